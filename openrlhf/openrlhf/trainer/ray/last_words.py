"""How an engine's process tells its actor what broke it: vLLM's client learns that the process died, not of what."""

from __future__ import annotations

import logging
import os
from collections import deque
from contextlib import suppress
from pathlib import Path

VARIABLE = "OPENRLHF_ENGINE_LAST_WORDS"
MOST_BYTES = 4096
LONGEST_MESSAGE = 300
"""Where a step fails vLLM also logs all that it was given, at length."""


class LastWords:
    """A file without a name, open as long as this object lives. Processes started later find it in the environment."""

    def __init__(self) -> None:
        self._file = os.memfd_create("last-words")
        os.environ[VARIABLE] = f"/proc/{os.getpid()}/fd/{self._file}"

    def read(self) -> str:
        """What `keep_last_words` kept, on one line; empty where nothing went wrong in a way that was logged."""
        return os.pread(self._file, MOST_BYTES, 0).decode(errors="replace")

    def __del__(self) -> None:
        os.close(self._file)


def keep_last_words(logger: logging.Logger) -> None:
    """From now on the newest errors that `logger` gets are left where a `LastWords` of a process above reads them."""
    if (path := os.environ.get(VARIABLE)) is not None:
        logger.addHandler(_Keeper(Path(path)))


class _Keeper(logging.Handler):
    def __init__(self, path: Path) -> None:
        super().__init__(logging.ERROR)
        self._path = path
        self._words: deque[str] = deque(maxlen=2)  # a worker's end is logged first, then what it does to the scheduler

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        words = record.getMessage() if error is None else f"{type(error).__name__}: {error}"
        if error is None and len(words) > LONGEST_MESSAGE:
            return
        self._words.append(words)
        with suppress(OSError):  # whoever would read it is gone
            self._path.write_text("; ".join(self._words), encoding="utf-8")
