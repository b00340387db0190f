"""Which processes of this host are alive."""

from __future__ import annotations

import psutil


def process_start(pid: int) -> float | None:
    """When a process of this host started (seconds since the epoch); None where there is none, or only its remains."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
