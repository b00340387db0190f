"""One run a folder: a lock file that says who writes there, and what dead writers left behind."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from openrlhf.errors import UserError
from openrlhf.utils.atomic_io import remove_leftovers
from openrlhf.utils.logging import init_logger
from openrlhf.utils.processes import process_start

logger = init_logger(__name__)

LOCK_NAME = ".run.lock"
CLOCK_SLACK_S = 5.0
"""Start times are reckoned from the boot time, which moves when the clock is set."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that holds a lock, told apart from a later one with its number by when it started."""

    host: str
    pid: int
    started: float | None
    since: str

    @classmethod
    def this_process(cls) -> Holder:
        pid = os.getpid()
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(host=socket.gethostname(), pid=pid, started=process_start(pid), since=now)

    def may_be_alive(self) -> bool:
        """False only where this host can tell: its own process of that number is gone, or is another one."""
        if self.host != socket.gethostname():
            return True
        started = process_start(self.pid)
        if started is None or self.started is None:
            return started is not None
        return abs(started - self.started) < CLOCK_SLACK_S


@contextmanager
def exclusive_folders(folders: Iterable[Path]) -> Iterator[None]:
    """Within: no other run writes into these folders, which are made if need be. Leftovers of dead writers are removed,
    from them and from the folders right below them.

    The lock of a process that is dead on this host is taken over. On a file system that several hosts share, a lock of
    another host counts until its file is removed.

    Raises:
        UserError: another run holds one of them; the message has its host and process id.
    """
    with ExitStack() as held:
        for folder in dict.fromkeys(Path(os.path.realpath(folder)) for folder in folders):
            held.enter_context(_locked(folder))
            for place in (folder, *(child for child in folder.iterdir() if child.is_dir())):
                remove_leftovers(place)
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    path, me = folder / LOCK_NAME, Holder.this_process()
    _acquire(path, me)
    try:
        yield
    finally:
        with _opened_alone(path) as descriptor:
            if _read(descriptor) == me:
                path.unlink()


def _acquire(path: Path, me: Holder) -> None:
    with _opened_alone(path) as descriptor:
        holder = _read(descriptor)
        if holder is not None and holder.may_be_alive():
            raise UserError(
                f"{path.parent} is in use by another run: process {holder.pid} on host {holder.host}, since "
                f"{holder.since}; end it, use another --save_path and --ckpt_path, or, if it is dead, remove {path}"
            )
        if holder is not None:
            logger.info("taking over %s from process %d, which is dead", path.parent, holder.pid)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(me)).encode(), 0)
        os.fsync(descriptor)


@contextmanager
def _opened_alone(path: Path) -> Iterator[int]:
    """The lock file, under `flock` while its holder is looked at or changed."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            break
        os.close(descriptor)  # removed by its holder while we waited
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Holder | None:
    """Who holds the lock; None for a new file, or one whose writer died before it had written."""
    try:
        return Holder(**json.loads(os.pread(descriptor, 65536, 0)))
    except (ValueError, TypeError):
        return None
