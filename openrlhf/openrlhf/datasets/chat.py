"""Conversations as a tokenizer's chat template renders them, and their token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateError

from openrlhf.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]
"""`{"role": ..., "content": ...}`."""


def tokenize_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation up to and including the generation prompt: what the policy continues.

    Raises:
        UserError: the tokenizer has no chat template, or its template refuses these messages.
    """
    return encode_rendered(
        tokenizer, render_chat(tokenizer, messages, add_generation_prompt=True, enable_thinking=False)
    )


def render_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, add_generation_prompt: bool, **switches: Any
) -> str:
    """A conversation's text, control tokens included; `switches` are variables of the template.

    Raises:
        UserError: the tokenizer has no chat template, or its template refuses these messages.
    """
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no chat template; use an instruction-tuned model"
        )
    try:
        rendered = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **switches,
        )
    except TemplateError as error:
        raise UserError(
            f"the chat template of {tokenizer.name_or_path!r} refuses the roles {[m['role'] for m in messages]}: "
            f"{error}. If it has no system role, set USE_SYSTEM_ROLE = False or pass --no_system_role"
        ) from error
    assert isinstance(rendered, str)
    return rendered


def encode_rendered(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a rendered conversation, or of a part of it."""
    # The template has rendered every special token itself, BOS included: adding them again would double it.
    # Not verbose: lengths are checked where it is known what they must fit into.
    return tokenizer.encode(text, add_special_tokens=False, verbose=False)
