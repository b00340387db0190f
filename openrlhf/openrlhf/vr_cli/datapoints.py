"""What one dataset row holds, how it is checked, and what identifies it.

A row is a dict of either kind:
* NCP: `story_text`, `next_chapter`, `next_chapter_header`, and optionally `chapter_index`, `prior_plot_summary`,
  `high_level_plot_summary`, `character_sheets`, `next_chapter_synopsis`, `last_n_chapters`, `story_id`, `genre`;
* messages: `messages`, a conversation that ends in a user turn and the assistant's gold completion.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from openrlhf.errors import UserError

Datapoint = dict[str, Any]

SYNOPSIS_TITLE = "Next Chapter Synopsis"
REQUIRED_FIELDS = ("story_text", "next_chapter", "next_chapter_header")


def check_datapoint(datapoint: Any) -> None:
    """Raises UserError naming the field that makes this no dataset row, and what to do."""
    if not isinstance(datapoint, dict):
        raise UserError(f"expected a JSON object, got {_kind(datapoint)}")
    if "messages" in datapoint:
        _check_messages(datapoint["messages"])
    else:
        _check_chapter(datapoint)


def _check_chapter(datapoint: Datapoint) -> None:
    for field in REQUIRED_FIELDS:
        if field not in datapoint:
            raise UserError(
                f"field {field!r} is missing; a row needs {', '.join(REQUIRED_FIELDS)}, or 'messages' instead"
            )
        _check_type(datapoint, field, str, "a string")
    if not datapoint["next_chapter"].strip():
        raise UserError("field 'next_chapter' is blank: there is no gold chapter to score; remove the row")
    for field in ("prior_plot_summary", "high_level_plot_summary", "next_chapter_synopsis", "last_n_chapters"):
        _check_type(datapoint, field, str, "a string", optional=True)
    _check_type(datapoint, "genre", str, "a string", optional=True)
    _check_type(datapoint, "story_id", str | int, "a string or an integer", optional=True)
    _check_type(datapoint, "chapter_index", int, "an integer", optional=True)
    if (datapoint.get("chapter_index") or 0) < 0:
        raise UserError(f"field 'chapter_index' is {datapoint['chapter_index']}; it counts prior chapters, from 0")
    _check_type(datapoint, "character_sheets", dict, "an object (name -> sheet)", optional=True)
    for name, sheet in (datapoint.get("character_sheets") or {}).items():
        if not isinstance(sheet, str):
            raise UserError(f"field 'character_sheets': the sheet of {name!r} must be a string, got {_kind(sheet)}")


def _check_type(datapoint: Datapoint, field: str, kind: Any, expected: str, *, optional: bool = False) -> None:
    value = datapoint.get(field)
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, kind):
        raise UserError(f"field {field!r} must be {expected}, got {_kind(value)}; fix or remove the row")


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or len(messages) < 2:
        raise UserError("field 'messages' must be a list of at least a user turn and the assistant's gold completion")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise UserError(f"field 'messages[{index}]' must be an object with the strings 'role' and 'content'")
    if [message["role"] for message in messages[-2:]] != ["user", "assistant"]:
        raise UserError("field 'messages' must end with a user turn and then the assistant's gold completion")
    if not messages[-2]["content"].strip():
        raise UserError("field 'messages': the last user turn is blank; remove the row")
    if not messages[-1]["content"].strip():
        raise UserError("field 'messages': the gold completion (the last message) is blank; remove the row")


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


def is_messages_row(datapoint: Datapoint) -> bool:
    return "messages" in datapoint


def gold_text(datapoint: Datapoint) -> str:
    """The gold completion: the next chapter, stripped, or the last message as it is."""
    return datapoint["messages"][-1]["content"] if is_messages_row(datapoint) else datapoint["next_chapter"].strip()


def datapoint_id(datapoint: Datapoint) -> str:
    """`<story_id>/<chapter_index>` where a row has both, else `row-` and 12 hex digits of a hash of its content."""
    story_id, chapter_index = datapoint.get("story_id"), datapoint.get("chapter_index")
    if not is_messages_row(datapoint) and story_id not in (None, "") and chapter_index is not None:
        return f"{story_id}/{chapter_index}"
    content = json.dumps(datapoint, sort_keys=True, separators=(",", ":")).encode()
    return f"row-{hashlib.sha256(content).hexdigest()[:12]}"


def brief(datapoint: Datapoint) -> str | None:
    """What the policy is told of the gold text: the next-chapter synopsis, or the last user message. Stripped.

    None for a chapter without a synopsis.
    """
    if is_messages_row(datapoint):
        return datapoint["messages"][-2]["content"].strip()
    return (datapoint.get("next_chapter_synopsis") or "").strip() or None


def baseline_key(datapoint: Datapoint) -> str:
    """The datapoint's key in the baseline map, if no other shares it: its brief, or its id where it has none."""
    return brief(datapoint) or datapoint_id(datapoint)


def extract_synopsis(prompt_text: str) -> str | None:
    """The next-chapter synopsis in a prompt's text: the section of that title, up to the next title or the end.

    None where there is no such section. The last one counts, since earlier sections may quote anything.
    """
    _, title, rest = prompt_text.rpartition(f"### {SYNOPSIS_TITLE}: ###")
    return re.split(r"^### .+: ###", rest, maxsplit=1, flags=re.MULTILINE)[0].strip() if title else None
