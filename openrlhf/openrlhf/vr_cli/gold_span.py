"""The gold span: which tokens of a rendered conversation are its gold completion, for any chat template.

A conversation is rendered twice, up to the generation prompt and whole. The first text must be a prefix of the second;
everything after it is the gold span, end-of-turn marker included. Nothing is ever searched for in token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openrlhf.datasets.chat import Message, encode_marked, render_chat, unmark
from openrlhf.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class GoldText:
    """A tokenized conversation whose gold span is `token_ids[gold_start:]`."""

    token_ids: list[int]
    gold_start: int

    @property
    def num_gold_tokens(self) -> int:
        return len(self.token_ids) - self.gold_start


def tokenize_with_gold(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> GoldText:
    """Token ids of a conversation whose last message is the assistant's gold completion, and where that begins.

    The tokens before the gold span are exactly those of the prompt alone, because that is what generation continues.
    Where the tokenizer would merge characters across the boundary (a prompt that ends in a line break and a gold text
    that starts with one), prompt and gold are therefore tokenized apart.

    Raises:
        UserError: the last message is not the assistant's or is blank, or the template renders no gold span for it.
    """
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise UserError("a conversation to score needs a prompt and, as its last message, the assistant's gold text")
    if not messages[-1]["content"].strip():
        raise UserError("the gold text (the last message) is blank; there is nothing to score")
    prompt_text, gold_text = _split_rendering(tokenizer, messages)
    prompt_ids = encode_marked(tokenizer, prompt_text)
    token_ids = encode_marked(tokenizer, prompt_text + gold_text)
    if token_ids[: len(prompt_ids)] != prompt_ids:
        token_ids = prompt_ids + encode_marked(tokenizer, gold_text)
    assert len(token_ids) > len(prompt_ids) > 0
    return GoldText(token_ids=token_ids, gold_start=len(prompt_ids))


def _split_rendering(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> tuple[str, str]:
    """The rendered prompt, and what the template renders after it for the gold turn, both with marks (see `chat`).

    Templates of thinking models put an empty thinking block before the gold text. With thinking disabled it belongs to
    the generation prompt; a template that only adds the block to prompts is rendered without that switch instead.
    """
    renderings: tuple[dict[str, Any], ...] = ({"enable_thinking": False}, {})
    for switches in renderings:
        prompt = render_chat(tokenizer, messages[:-1], add_generation_prompt=True, **switches)
        whole = render_chat(tokenizer, messages, add_generation_prompt=False, **switches)
        # Strip: some templates trim a turn's content. A gold text that they rewrite must not be scored as if intact.
        if whole.startswith(prompt) and messages[-1]["content"].strip() in unmark(whole[len(prompt) :]):
            return prompt, whole[len(prompt) :]
    raise UserError(
        f"the chat template of {tokenizer.name_or_path!r} gives no gold span: the conversation rendered up to the "
        "generation prompt is not followed by the unchanged gold text when it is rendered whole. Use a model whose "
        "template only appends turns, or give the tokenizer such a chat template"
    )
