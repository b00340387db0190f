"""Rank-aware logging: rank 0 speaks from INFO on, every other rank only from WARNING on.

    12:32:54  step 1/2  reward 0.5
    12:32:54  WARNING: every reward is equal
    12:32:54  ERROR (rank 3): the disk is full

`OPENRLHF_LOG_LEVEL` (DEBUG, INFO, WARNING, ...) sets the level; DEBUG also lets every rank and every library speak, and
names each line's logger.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from pathlib import Path

from openrlhf.errors import UserError
from openrlhf.utils.terminal import screen

ROOT_NAME = "openrlhf"
OUR_LINE = re.compile(r"^\d\d:\d\d:\d\d  (?=\S)")
NOISY_LIBRARIES = ("DeepSpeed", "transformers", "accelerate", "torch.distributed", "filelock", "httpx")


def log_level() -> int:
    """The level asked for by `OPENRLHF_LOG_LEVEL`, INFO unless set. Raises UserError for an unknown name."""
    name = os.environ.get("OPENRLHF_LOG_LEVEL", "INFO").upper()
    levels = logging.getLevelNamesMapping()
    if name not in levels:
        raise UserError(f"OPENRLHF_LOG_LEVEL={name!r} is not a log level; use DEBUG, INFO, WARNING or ERROR")
    return levels[name]


class LineFormatter(logging.Formatter):
    """Time and message; what is worse than INFO says so, and a rank other than 0 its number."""

    def __init__(self, time_format: str = "%H:%M:%S") -> None:
        super().__init__("%(asctime)s  %(head)s%(message)s", time_format)

    def format(self, record: logging.LogRecord) -> str:
        record.__dict__["head"] = _head(record)
        return super().format(record)


def _head(record: logging.LogRecord) -> str:
    verbose = logging.getLogger(ROOT_NAME).level <= logging.DEBUG
    words = [record.levelname] if record.levelno != logging.INFO or verbose else []
    words += [record.name] if verbose else []
    rank = os.environ.get("RANK", "0")  # read per record: workers learn their rank after the loggers are made
    words += [f"(rank {rank})"] if rank != "0" else []
    return " ".join(words) + ": " if words else ""


class ScreenHandler(logging.Handler):
    """To standard error, above the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        screen().line(self.format(record))


class _RankFilter(logging.Filter):
    """Keeps other ranks' INFO out."""

    def filter(self, record: logging.LogRecord) -> bool:
        rank = os.environ.get("RANK", "0")
        return rank == "0" or record.levelno >= logging.WARNING or logging.getLogger(ROOT_NAME).level <= logging.DEBUG


def init_logger(name: str) -> logging.Logger:
    """The logger of one module; call it with `__name__`. All of them write to standard error through one handler."""
    root = logging.getLogger(ROOT_NAME)
    if not root.handlers:
        _add_handler(ScreenHandler())
        try:
            root.setLevel(log_level())
        except UserError:  # a module's import is no place to refuse it: `run_command` does, before anything else
            root.setLevel(logging.INFO)
    return logging.getLogger(name if name.partition(".")[0] == ROOT_NAME else f"{ROOT_NAME}.{name}")


def is_our_line(line: str) -> bool:
    """Whether one of these loggers wrote it."""
    return OUR_LINE.match(line) is not None


def add_log_file(path: Path) -> None:
    """Appends everything that is logged in this process to a file, too, with dates.

    Raises:
        OSError: it cannot be written.
    """
    _add_handler(logging.FileHandler(path), "%Y-%m-%d %H:%M:%S")


def _add_handler(handler: logging.Handler, time_format: str = "%H:%M:%S") -> None:
    handler.setFormatter(LineFormatter(time_format))
    handler.addFilter(_RankFilter())
    logging.getLogger(ROOT_NAME).addHandler(handler)


def quiet_libraries() -> None:
    """Lets the libraries below us speak from WARNING on only, unless the level is DEBUG."""
    if log_level() <= logging.DEBUG:
        return
    for name in NOISY_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
    # DeepSpeed's collectives, once per call and rank
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)
