"""Processes of this host: whether they live; those below this one found, ended, and watched over by a reaper.

Run as a script it is the reaper (see `start_reaper`): processes.py PID [FOLDER]
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

import psutil

SNAPSHOT_SECONDS = 2.0
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def process_start(pid: int) -> float | None:
    """When a process of this host started (seconds since the epoch); None where there is none, or only its remains."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def adopt_orphans() -> None:
    """From now on processes below this one whose parent dies become its children, not those of init.

    So `descendants` finds them. Linux only, like all of this module's users.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """From now on this process is killed as soon as the thread of `parent` that started it ends, however that ends.

    At once where `parent` is gone already.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def descendants(pid: int | None = None) -> list[psutil.Process]:
    """All processes below `pid` (by default this process), parents first; the reaper of this process is not one."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [child for child in children if child.pid not in _reapers]


def end_processes(processes: Sequence[psutil.Process], *, grace_s: float) -> None:
    """SIGTERM to all, SIGKILL to those that are left after `grace_s`. Processes that are gone already are fine."""
    if grace_s > 0:
        for process in processes:
            _signal(process, kill=False)
        psutil.wait_procs(processes, timeout=grace_s)
    for process in processes:
        _signal(process, kill=True)
    psutil.wait_procs(processes, timeout=5)


def _signal(process: psutil.Process, *, kill: bool) -> None:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        if kill:
            process.kill()
        else:
            process.terminate()


_reapers: set[int] = set()


def start_reaper(folder: str | None = None) -> subprocess.Popen[bytes]:
    """A small process that, once this one is gone, kills what this one left running and removes `folder`.

    An exit handler or a `finally` does not run on SIGKILL; Ray's agents then live on for 45 s. It finds out by the end
    of the pipe that is its standard input, and needs nothing at a normal end. Lines on that pipe are last words: see
    `leave_last_words`.
    """
    # -P: this file's folder, which holds a logging.py, stays off the import path
    command = [sys.executable, "-P", __file__, str(os.getpid()), *([folder] if folder else [])]
    reaper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    _reapers.add(reaper.pid)
    return reaper


def leave_last_words(reaper: subprocess.Popen[bytes], words: str) -> None:
    """The reaper says `words` on stderr once this process is gone; none where they are empty.

    For a stretch in which a library may end this process without a word of Python's.
    """
    assert reaper.stdin is not None
    with suppress(BrokenPipeError):  # it was killed: nobody will say anything
        reaper.stdin.write(words.encode() + b"\n")
        reaper.stdin.flush()


def reap(pid: int, folder: str | None) -> None:
    """Follows which processes are below `pid` until standard input ends, then kills those that are still there."""
    gone = threading.Event()
    threading.Thread(target=_hear_last_words, args=(gone,), daemon=True).start()
    seen: set[psutil.Process] = set()
    while not gone.wait(SNAPSHOT_SECONDS):
        # kept although it may be nobody's child any more: Ray's agents outlive the process that started them
        seen = {process for process in seen.union(descendants(pid)) if process.is_running()}
    end_processes([process for process in seen if process.pid != os.getpid()], grace_s=0)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _hear_last_words(gone: threading.Event) -> None:
    words = ""
    for line in sys.stdin:
        words = line
    if words.strip():
        sys.stderr.write(words)
    gone.set()


if __name__ == "__main__":
    reap(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
