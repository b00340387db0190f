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


def worker_pid(driver: int, class_name: str) -> int:
    """A Ray worker below the driver, by its process title."""
    children = psutil.Process(driver).children(recursive=True)
    return next(child.pid for child in children if any(class_name in part for part in child.cmdline()))


def engine_pid(driver: int) -> int:
    """The vLLM engine's worker below the driver: vLLM changes its title, so it is known by its environment."""
    children = psutil.Process(driver).children(recursive=True)
    return next(child.pid for child in children if "VLLM_ENABLE_V1_MULTIPROCESSING" in child.environ())
