"""A run as a process of its own, to be watched and killed."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from support.tiny_run import command, quiet_environment


def start(argv: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Starts `train_ncp.py` in a process group of its own."""
    with log.open("wb") as file:
        return subprocess.Popen(
            command(argv), env=quiet_environment(), stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], timeout_s: float = 180) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, "the run ended early"
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def workers(driver: int) -> list[psutil.Process]:
    """The policy, reference and engine workers below the driver and vLLM's own processes, by their titles."""
    children = psutil.Process(driver).children(recursive=True)
    titles = ("RayActor", "EngineCore")
    return [child for child in children if any(title in part for part in child.cmdline() for title in titles)]


def worker_pid(driver: int, class_name: str) -> int:
    return next(child.pid for child in workers(driver) if any(class_name in part for part in child.cmdline()))
