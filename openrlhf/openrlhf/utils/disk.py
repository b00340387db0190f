"""Room on disks, and writes that fail because there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from openrlhf.errors import UserError

GB = 10**9


class WriteError(OSError):
    """Something could not be written; the message has path, cause, and the room that was needed and there."""


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """What fails inside becomes a WriteError that names `path` and the room left.

    torch and safetensors report a full disk as RuntimeError or as errors of their own, often without a reason
    ("iostream error"): hence every exception that a writer of theirs raises.
    """
    try:
        yield
    except WriteError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        raise WriteError(f"{path}: cannot be written ({error}); free {free_bytes(Path(path)) / GB:.3f} GB") from error


def existing_parent(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    path = Path(os.path.realpath(path))
    while not path.exists():
        path = path.parent
    return path


def free_bytes(path: Path) -> int:
    """What an ordinary user may still write below `path`, which need not exist yet."""
    return shutil.disk_usage(existing_parent(path)).free


def check_room(path: Path, needed_bytes: int) -> None:
    """Raises WriteError where the disk of `path` has not got that much room."""
    free = free_bytes(path)
    if free < needed_bytes:
        raise WriteError(f"{path}: not enough room, {describe_room(needed_bytes, free)}")


def describe_room(needed_bytes: int, free: int) -> str:
    return f"needed {needed_bytes / GB:.3f} GB ({needed_bytes} bytes), free {free / GB:.3f} GB ({free} bytes)"


def check_writable(path: Path, flag: str) -> None:
    """Makes the folder and writes a file in it.

    Raises:
        UserError: that is not possible.
    """
    probe = path / f".probe-{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"probe")
        probe.unlink()
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot write there ({error.strerror}); pass a folder that is yours") from error
