"""Outputs that are there whole or not at all: written aside in the same folder, fsynced, then renamed."""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from openrlhf.utils.logging import init_logger
from openrlhf.utils.processes import process_start

logger = init_logger(__name__)

LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<kind>partial|replaced)-(?P<host>.+)-(?P<pid>\d+)")
# A writer on another host cannot be looked for: what it left counts as dead after this long.
FOREIGN_LEFTOVER_S = 24 * 3600


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a file beside `path` for writing (UTF-8 unless binary) that takes the name `path` at the end of the block.

    An exception in the block leaves `path` as it was and nothing else behind. Missing folders are made.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f"atomic_write writes whole files: mode is 'w' or 'wb', not {mode!r}")
    target = _prepare_target(path)
    aside = _aside(target, "partial")
    try:
        with open(aside, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    fsync_directory(target.parent)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yields a new empty folder that takes the name `path` at the end of the block, in place of what was there.

    An exception in the block leaves `path` as it was and nothing else behind. Replacing an existing folder takes two
    renames; a crash between them leaves the old one beside it as `.<name>.replaced-<host>-<pid>`, and
    `remove_leftovers` gives it its name back.
    """
    target = _prepare_target(path)
    replaced = _aside(target, "replaced")
    try:
        with temporary_directory(target) as aside:
            yield aside
            fsync_tree(aside)
            if target.exists():
                os.rename(target, replaced)
            os.rename(aside, target)
    except BaseException:
        if replaced.exists() and not target.exists():
            os.rename(replaced, target)
        raise
    fsync_directory(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def temporary_directory(path: str | Path) -> Iterator[Path]:
    """Yields a new empty folder beside `path`, removed at the end unless it has moved.

    After a crash `remove_leftovers` finds it.
    """
    aside = _aside(_prepare_target(path), "partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def fsync_directory(path: str | Path) -> None:
    """Makes the renames and new names in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(root: Path) -> None:
    """Fsyncs every file and folder below `root`, and `root`."""
    for folder, _, names in os.walk(root):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                os.fsync(file.fileno())
        fsync_directory(folder)


def remove_leftovers(folder: Path) -> None:
    """Removes what writers that died left in `folder`; a target that one had just set aside gets its name back."""
    for path in sorted(folder.glob(".*-*")):
        match = LEFTOVER.fullmatch(path.name)
        if match is None or not _writer_is_dead(path, match["host"], int(match["pid"])):
            continue
        target = path.with_name(match["name"])
        if match["kind"] == "replaced" and not target.exists():
            os.rename(path, target)
            logger.info("%s is back: its replacement was never finished", target)
        else:
            logger.info("removing %s, left by a writer that died", path)
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _writer_is_dead(path: Path, host: str, pid: int) -> bool:
    if host == socket.gethostname():
        return process_start(pid) is None
    return time.time() - path.stat().st_mtime > FOREIGN_LEFTOVER_S


def _prepare_target(path: str | Path) -> Path:
    target = Path(os.path.realpath(path))  # write through a symbolic link instead of replacing it
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _aside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.{kind}-{socket.gethostname()}-{os.getpid()}")
