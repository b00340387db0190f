"""Conversations as a tokenizer's chat template renders them, and their token ids.

Text is text: a special string in a message (`<|im_end|>` in a chapter or a plan) is tokenized as the characters that it
consists of, and only what the template itself writes becomes control tokens. To that end a mark goes into each such
string before rendering. On encoding, a control token stands in for the mark, where tokenizers always cut a text, and is
taken out of the token ids again. A conversation without special strings is encoded exactly as it is rendered.
(A tokenizer that puts a space in front of whatever follows a control token, as Llama 2's did, puts one at the cut too.)
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateError, TemplateSyntaxError

from openrlhf.errors import UserError
from openrlhf.utils.logging import init_logger

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = init_logger(__name__)

Message = Mapping[str, str]
"""`{"role": ..., "content": ...}`."""

THINKING_TAGS = frozenset({"<think>", "</think>"})
"""Stay what they are in the assistant's own turns: the model writes them, and templates look for them there."""

PROBE = "What has been said."
"""A content that no template writes or changes."""

# U+FDD0 and its neighbours are no characters of any script. Where a text has one nevertheless, it is escaped.
MARK_START = "\ufdd0"
MARK = MARK_START + "\ufdd2"
ESCAPED_START = MARK_START + "\ufdd1"


def tokenize_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation up to and including the generation prompt: what the policy continues.

    Raises:
        UserError: the tokenizer has no chat template, or its template refuses these messages.
    """
    return encode_marked(tokenizer, render_chat(tokenizer, messages, add_generation_prompt=True, enable_thinking=False))


def render_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, add_generation_prompt: bool, **switches: Any
) -> str:
    """A conversation's text, control tokens included, with a mark inside each special string of its messages.

    Args:
        switches: variables of the template.

    Raises:
        UserError: the tokenizer has no chat template, or its template refuses these messages.
    """
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no chat template; use an instruction-tuned model"
        )
    try:
        rendered = tokenizer.apply_chat_template(
            _mark_messages(tokenizer, messages),
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **switches,
        )
    except TemplateSyntaxError as error:
        raise UserError(f"the chat template of {tokenizer.name_or_path!r} is broken: {error}; restore it") from error
    except TemplateError as error:
        raise UserError(
            f"the chat template of {tokenizer.name_or_path!r} refuses the roles {[m['role'] for m in messages]}: "
            f"{error}. If it has no system role, set USE_SYSTEM_ROLE = False or pass --no_system_role"
        ) from error
    assert isinstance(rendered, str)
    return rendered


def mark_special_strings(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """A text that may be put into a template, and stays text when the whole goes through `encode_marked`."""
    return _mark(_control_pattern(control_strings(tokenizer)), text)


def encode_marked(tokenizer: PreTrainedTokenizerBase, text: str, *, add_special_tokens: bool = False) -> list[int]:
    """Token ids of a text with marks, or of a part of it.

    Args:
        add_special_tokens: lets the tokenizer put its own BOS in front. A chat template has rendered every special
            token itself.
    """
    pieces = [piece.replace(ESCAPED_START, MARK_START) for piece in text.split(MARK)]
    if len(pieces) > 1:
        return _join(tokenizer, pieces, add_special_tokens=add_special_tokens)
    # Not verbose: lengths are checked where it is known what they must fit into.
    return tokenizer.encode(pieces[0], add_special_tokens=add_special_tokens, verbose=False)


def stop_token_ids(tokenizer: PreTrainedTokenizerBase, *, chat: bool) -> list[int]:
    """The tokens that end a response: the end of the sequence, and with `chat` what the template puts after a turn.

    In some tokenizers the two differ, and a response would run on into turns of its own. With a warning where they do.
    """
    stops = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    turn_end = turn_end_id(tokenizer) if chat else None
    if turn_end is not None and turn_end not in stops:
        stops.append(turn_end)
        logger.warning(
            "the chat template ends turns with %r and the tokenizer's end of sequence is %r: responses stop at both",
            tokenizer.convert_ids_to_tokens(turn_end),
            tokenizer.eos_token,
        )
    return stops


def turn_end_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The first control token that the chat template writes after an assistant turn's content; None if it has none."""
    messages = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": PROBE}]
    rendered = render_chat(tokenizer, messages, add_generation_prompt=False, enable_thinking=False)
    controls = {tokenizer.convert_tokens_to_ids(string) for string in control_strings(tokenizer)}
    after = encode_marked(tokenizer, rendered.rpartition(PROBE)[2])
    return next((token_id for token_id in after if token_id in controls), None)


def unmark(text: str) -> str:
    """The text as readers know it."""
    return text.replace(MARK, "").replace(ESCAPED_START, MARK_START)


def control_strings(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """What the tokenizer turns into control tokens wherever it stands in a text.

    All special tokens; of the other added tokens those that the chat template writes itself (`<think>`), unless they
    are white space or words: those are vocabulary. One of a single character cannot be told from text, nor cut.
    """
    template = str(tokenizer.chat_template or "")
    added = tokenizer.added_tokens_decoder.values()
    strings = {str(token) for token in tokenizer.all_special_tokens}
    strings |= {token.content for token in added if token.special or _is_markup_of(template, token.content)}
    return frozenset(string for string in strings if len(string) > 1)


def _is_markup_of(template: str, token: str) -> bool:
    return token in template and not all(character.isalnum() or character.isspace() for character in token)


def _mark_messages(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Marks every text of every message, tool calls and the like included.

    Raises:
        UserError: a role holds a special string.
    """
    controls = control_strings(tokenizer)
    everywhere, but_thinking = _control_pattern(controls), _control_pattern(controls - THINKING_TAGS)
    marked = []
    for message in messages:
        if everywhere.search(message["role"]):
            raise UserError(f"the role {message['role']!r} holds a special token of {tokenizer.name_or_path!r}")
        pattern = but_thinking if message["role"] == "assistant" else everywhere
        marked.append({key: _mark_all(pattern, value) for key, value in message.items()})
    return marked


def _mark_all(pattern: re.Pattern[str], value: Any) -> Any:
    if isinstance(value, str):
        return _mark(pattern, value)
    if isinstance(value, Mapping):
        return {_mark_all(pattern, key): _mark_all(pattern, item) for key, item in value.items()}
    return [_mark_all(pattern, item) for item in value] if isinstance(value, list) else value


def _mark(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub(lambda match: match[0] + MARK, text.replace(MARK_START, ESCAPED_START))


@functools.lru_cache(maxsize=8)
def _control_pattern(controls: frozenset[str]) -> re.Pattern[str]:
    """Matches the first character of every control string, overlapping ones too.

    Alternatives are sorted by that character: a novel has few of them, and hundreds of control strings to compare.
    """
    rests: dict[str, list[str]] = {}
    for string in sorted(controls):
        rests.setdefault(string[0], []).append(re.escape(string[1:]))
    return re.compile("|".join(f"{re.escape(first)}(?={'|'.join(rest)})" for first, rest in rests.items()) or "(?!)")


def _join(tokenizer: PreTrainedTokenizerBase, pieces: list[str], *, add_special_tokens: bool) -> list[int]:
    """Token ids of the pieces as one text in which no token and no control string spans two of them."""
    separator = _separator(tokenizer, pieces)
    separator_id = tokenizer.convert_tokens_to_ids(separator)
    token_ids = tokenizer.encode(separator.join(pieces), add_special_tokens=add_special_tokens, verbose=False)
    is_ours = [ours for piece in pieces for ours in (*[False] * piece.count(separator), True)][:-1]
    positions = [position for position, token_id in enumerate(token_ids) if token_id == separator_id]
    num_added = len(positions) - len(is_ours)  # a BOS that the tokenizer itself puts in front
    assert num_added >= 0, f"{separator} is not always a token"
    ours = {position for position, ours in zip(positions[num_added:], is_ours, strict=True) if ours}
    return [token_id for position, token_id in enumerate(token_ids) if position not in ours]


def _separator(tokenizer: PreTrainedTokenizerBase, pieces: list[str]) -> str:
    """A control string that becomes one token; if possible one that is nowhere else and takes no white space away."""
    strips = {token.content for token in tokenizer.added_tokens_decoder.values() if token.lstrip or token.rstrip}
    used = {string for string in control_strings(tokenizer) if any(string in piece for piece in pieces)}
    used |= {tokenizer.bos_token, tokenizer.eos_token}
    for string in sorted(control_strings(tokenizer), key=lambda string: (string in used, string in strips, string)):
        token_ids = tokenizer.encode(string, add_special_tokens=False)
        if token_ids == [tokenizer.convert_tokens_to_ids(string)] and token_ids != [tokenizer.unk_token_id]:
            return string
    raise UserError(f"no special token of {tokenizer.name_or_path!r} is a single token; its tokenizer is broken")
