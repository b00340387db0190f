"""Reading JSON lines: whole files, and logs whose last line a crash may have cut short."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openrlhf.errors import UserError
from openrlhf.utils.logging import init_logger

logger = init_logger(__name__)


def read_jsonl(path: str | Path, *, may_be_torn: bool = False) -> Iterator[tuple[int, Any]]:
    """Yields (line number from 1, parsed value) of each non-blank line.

    Args:
        may_be_torn: leave out, with a warning, a broken last line without line break: what a crash leaves of a log.

    Raises:
        UserError: naming file and line, where a line is not JSON in UTF-8 with whole characters.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield number, _parse(line)
            except ValueError as error:
                if not may_be_torn or line.endswith(b"\n"):
                    raise UserError(f"{path}:{number}: not valid {error}; fix or remove the line") from None
                logger.warning("%s:%d was cut short and is left out", path, number)


def cut_torn_line(path: str | Path) -> int:
    """Removes a last line without line break from a log, so that the next line does not continue it. Returns its bytes.

    A line counts once its line break is there; whoever appends writes the two together.
    """
    with open(path, "rb") as file:
        content = file.read()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    return len(content) - whole


def _parse(line: bytes) -> Any:
    try:
        value = json.loads(line)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both
        raise ValueError(f"JSON ({error})") from None
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # an escaped half of a surrogate pair, which no tokenizer takes
        raise ValueError(f"text ({error.reason})") from None
    return value
