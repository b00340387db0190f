"""Processes of a run: waiting for them, and what they listen on."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable

import psutil

LOOPBACK_ADDRESSES = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def wait_until(
    condition: Callable[[], object], *, timeout_s: float, alive: subprocess.Popen[bytes] | None = None
) -> None:
    """Waits for `condition`, which must come true before `alive` ends."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert alive is None or alive.poll() is None or condition(), f"ended early, with {alive.returncode}"
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def listening_addresses(processes: Iterable[psutil.Process]) -> set[str]:
    """The addresses of all TCP sockets that these processes listen on."""
    addresses: set[str] = set()
    for process in processes:
        if process.is_running():
            connections = process.net_connections(kind="tcp")
            addresses |= {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
    return addresses


def is_loopback_only(processes: Iterable[psutil.Process]) -> bool:
    addresses = listening_addresses(processes)
    assert addresses, "nothing listens at all"
    assert addresses <= LOOPBACK_ADDRESSES, f"sockets on {addresses - LOOPBACK_ADDRESSES}"
    return True
