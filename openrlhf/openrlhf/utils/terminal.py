"""Lines that scroll, and at most one bar below them.

On a terminal the bar is drawn in place. In a file there is none. A pipe gets one only where the process that reads it
has asked for it (OPENRLHF_PROGRESS_BARS=1), as text that ends with a carriage return.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
from functools import cache
from typing import TextIO

BARS_VARIABLE = "OPENRLHF_PROGRESS_BARS"
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CLEAR_LINE = "\r\x1b[K"


def plain(text: str) -> str:
    """Without colours and other escape codes."""
    return ANSI.sub("", text)


def bars_wanted() -> bool:
    """On a terminal, not in files; OPENRLHF_PROGRESS_BARS=1 or 0 says otherwise."""
    wanted = os.environ.get(BARS_VARIABLE)
    return sys.stderr.isatty() if wanted is None else wanted == "1"


class Screen:
    """What this process shows. Lines go to standard error or standard output, the bar to standard error."""

    def __init__(self) -> None:
        self._bar = ""
        self._lock = threading.RLock()  # a signal's handler may speak while its thread does

    @property
    def columns(self) -> int:
        return shutil.get_terminal_size().columns

    def line(self, text: str, stream: TextIO | None = None) -> None:
        """Prints a line above the bar; to standard error, unless `stream` is given."""
        with self._lock:
            drawn = self._bar if sys.stderr.isatty() else ""
            if drawn:
                write(sys.stderr, CLEAR_LINE)
            write(stream or sys.stderr, text + "\n")
            if drawn:
                write(sys.stderr, drawn)

    def bar(self, text: str) -> None:
        """Shows this in place of the bar that was there; an empty one takes it away."""
        if not bars_wanted():
            return
        with self._lock:
            in_place = sys.stderr.isatty()
            if in_place:
                write(sys.stderr, CLEAR_LINE + text[: self.columns - 1])
            else:
                write(sys.stderr, text + "\r")
            self._bar = text[: self.columns - 1]


def write(stream: TextIO, text: str) -> None:
    """As long as somebody reads it: `| head` may have seen enough, and a terminal may be gone."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@cache
def screen() -> Screen:
    """The one of this process."""
    return Screen()
