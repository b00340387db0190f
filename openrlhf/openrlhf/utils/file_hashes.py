"""SHA-256 of large files, each read once: the result is kept in the user's cache folder.

A kept hash counts while path, inode, size and times of the file are the same. The time of the last change (ctime) is
among them because, unlike that of the last modification, no copying tool sets it back.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from openrlhf.utils.atomic_io import atomic_write
from openrlhf.utils.logging import init_logger

logger = init_logger(__name__)

MIN_BYTES = 1 << 24
"""Less is read in a few hundredths of a second."""
SETTLED_NS = 2_000_000_000
"""A file that changed more recently may change again and keep its times: file systems' clocks tick up to 2 s apart."""
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class FileState:
    """What tells one content of a file from the next."""

    path: str
    """Without symbolic links."""
    inode: int
    size: int
    """Bytes."""
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path, descriptor: int) -> FileState:
        """The state of the open file."""
        status = os.fstat(descriptor)
        return cls(
            path=os.path.realpath(path),
            inode=status.st_ino,
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
        )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal. Reads it only where no hash of its present state is kept.

    Raises:
        OSError: it cannot be read. (A cache folder that cannot be read or written is no error.)
    """
    with open(path, "rb") as file:
        state = FileState.of(path, file.fileno())
        if (kept := kept_sha256(state)) is not None:
            return kept
        began_ns = time.time_ns()
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        unchanged = FileState.of(path, file.fileno()) == state
    if unchanged and state.size >= MIN_BYTES and began_ns - state.ctime_ns > SETTLED_NS:
        keep_sha256(state, digest)
    return digest


def kept_sha256(state: FileState) -> str | None:
    """The hash that is kept for this state. None where there is none, or its file is torn or something else."""
    try:
        entry = json.loads(entry_path(state).read_text(encoding="utf-8"))
    except (OSError, RuntimeError, ValueError):  # RuntimeError: no home folder; RecursionError is one, too
        return None
    digest = entry.get("sha256") if isinstance(entry, dict) else None
    if not isinstance(digest, str) or SHA256.fullmatch(digest) is None:
        return None
    return digest if entry == {**asdict(state), "sha256": digest} else None


def keep_sha256(state: FileState, digest: str) -> None:
    """Writes it down, in place of an earlier state's. Where that fails, the next start reads the file again."""
    try:
        with atomic_write(entry_path(state)) as file:
            json.dump({**asdict(state), "sha256": digest}, file)
    except (OSError, RuntimeError) as error:
        logger.debug("the hash of %s is not kept: %s", state.path, error)


def entry_path(state: FileState) -> Path:
    """One entry a file, so that writers of several need no lock.

    Raises:
        RuntimeError: there is no home folder, and XDG_CACHE_HOME is not set.
    """
    name = hashlib.sha256(os.fsencode(state.path)).hexdigest()
    return cache_folder() / "file_sha256" / f"{name}.json"


def cache_folder() -> Path:
    """The user's: `openrlhf` in XDG_CACHE_HOME, which counts only where it is absolute, or in ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "openrlhf"
