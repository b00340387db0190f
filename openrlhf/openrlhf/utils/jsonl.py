"""Reading JSON lines: whole files, and logs whose last line a crash may have cut short."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from openrlhf.errors import UserError
from openrlhf.utils.logging import init_logger

logger = init_logger(__name__)

MAX_DEPTH = 64
"""Containers within containers: far more than any data needs, and far less than recursive code can take."""
TOO_DEEP = f"JSON (containers are nested more than {MAX_DEPTH} deep)"
MAX_INT_DIGITS = 20
"""Of a 64-bit number with its sign; int() takes quadratic time on longer ones."""


def read_jsonl(path: str | Path, *, may_be_torn: bool = False) -> Iterator[tuple[int, Any]]:
    """Yields (line number from 1, parsed value) of each non-blank line.

    Args:
        may_be_torn: leave out, with a warning, a broken last line without line break: what a crash leaves of a log.

    Raises:
        UserError: naming file and line, where a line is not JSON in UTF-8 with whole characters, finite numbers of at
            most 64 bits, no key twice in an object, and MAX_DEPTH levels at most.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield number, _parse(_decode(line, number))
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


def _parse(line: str) -> Any:
    """One JSON value that every part of the program can take: `json` alone accepts more."""
    try:
        value = json.loads(
            line,
            object_pairs_hook=_object_of_single_keys,
            parse_int=_int_of_64_bits,
            parse_float=_finite_float,
            parse_constant=_finite_float,
        )
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except ValueError as error:  # a JSONDecodeError, or one of ours
        raise ValueError(f"JSON ({error})") from None
    if _depth(value) > MAX_DEPTH:
        raise ValueError(TOO_DEEP)
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # an escaped half of a surrogate pair, which no tokenizer takes
        raise ValueError(f"text ({error.reason})") from None
    return value


def _decode(line: bytes, number: int) -> str:
    try:
        # Some editors put a byte order mark at the head of a file; anywhere else it is a stray character.
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"JSON ({error})") from None


def _object_of_single_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"the key {counts.most_common(1)[0][0]!r} stands in one object twice")
    return value


def _int_of_64_bits(digits: str) -> int:
    if len(digits) > MAX_INT_DIGITS or not -(2**63) <= (value := int(digits)) < 2**63:
        raise ValueError(f"the number {digits:.30}... does not fit into 64 bits")
    return value


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _depth(value: Any) -> int:
    """Levels of containers; `value` itself is the first if it is one."""
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, list | dict)]:
        depth += 1
        level = [item for container in level for item in _items(container)]
    return depth


def _items(container: Any) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container
