"""What a command that runs below this one prints, cut into lines and bars."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import IO

from openrlhf.utils.logging import is_our_line
from openrlhf.utils.terminal import plain

BAR = re.compile(r"^(?P<name>[^|:]{1,40}): +\d+%\|")
LIBRARY_BARS = ("Loading", "Converting", "Writing", "Fetching", "Capturing", "Saving", "Processed", "Map", "Generating")
LIBRARY_IN_WORKER = re.compile(r"^(?:engine|reference|policy|ray)(?:@\S+)? \| ")


def pieces(stream: IO[bytes], keep: Callable[[str], None]) -> Iterator[tuple[str, bool]]:
    """What `stream` says without escape codes, as it comes: a line, or a bar (True; empty: it goes).

    `keep` gets the lines alone, each once it is whole.
    """
    rest = b""
    while chunk := os.read(stream.fileno(), 65536):
        *parts, rest = re.split(rb"(\r\n|\r(?!\n)(?!$)|\n)", rest + chunk)
        for part, end in zip(parts[::2], parts[1::2], strict=True):
            yield from _piece(part, keep, redrawn=end == b"\r")
        if rest.endswith(b"\r") and BAR.match(plain(rest.decode(errors="replace"))):
            # A line's \r\n may be cut in two, but a bar is no line.
            yield from _piece(rest[:-1], keep, redrawn=True)
            rest = b""
    if rest:
        yield from _piece(rest.rstrip(b"\r"), keep, redrawn=rest == b"\r")


def _piece(part: bytes, keep: Callable[[str], None], *, redrawn: bool) -> Iterator[tuple[str, bool]]:
    text = plain(part.decode(errors="replace")).rstrip()
    if bar := BAR.match(text):
        if not bar["name"].startswith(LIBRARY_BARS):
            yield text, True
    elif redrawn and not text:
        yield "", True
    elif not redrawn:
        keep(text)
        yield text, False


def is_library_line(line: str) -> bool:
    """Whether a library said it in a worker (`trainer/ray/worker_output.py` marks those)."""
    return LIBRARY_IN_WORKER.match(line) is not None


def stamped(line: str, now: datetime) -> str:
    """For a log file: with the date, and the time where it has none."""
    return f"{now:%Y-%m-%d} {line}" if is_our_line(line) else f"{now:%Y-%m-%d %H:%M:%S}  {line}"
