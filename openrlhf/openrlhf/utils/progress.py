"""Progress bars that show on the terminal of whoever started the run, also from inside Ray workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.experimental import tqdm_ray
from tqdm import tqdm


def is_rank_0() -> bool:
    """Whether this process is the one that reports: rank 0 of its group, or no part of one."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def progress_bar(description: str, *, total: int, enabled: bool = True) -> Iterator[Any]:
    """A tqdm-like bar (`update(n)`, `set_description(text)`); nothing is shown where it is not enabled."""
    in_worker = ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE
    if enabled and in_worker:
        bar: Any = tqdm_ray.tqdm(desc=description, total=total)
    else:
        bar = tqdm(desc=description, total=total, disable=not enabled, dynamic_ncols=True)
    try:
        yield bar
    finally:
        bar.close()
