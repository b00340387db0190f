"""Progress bars that show on the terminal of whoever started the run, also from inside Ray workers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

BARS_VARIABLE = "OPENRLHF_PROGRESS_BARS"
# No rate: a worker's bar starts with what it has done already.
BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"


def is_rank_0() -> bool:
    """Whether this process is the one that reports: rank 0 of its group, or no part of one."""
    return os.environ.get("RANK", "0") == "0"


def bars_wanted() -> bool:
    """On a terminal, not in files; OPENRLHF_PROGRESS_BARS=1 or 0 says otherwise."""
    wanted = os.environ.get(BARS_VARIABLE)
    return sys.stderr.isatty() if wanted is None else wanted == "1"


def new_bar(description: str, *, total: int, enabled: bool = True, initial: int = 0) -> tqdm:
    """A bar on standard error."""
    return tqdm(
        desc=description,
        total=total,
        initial=initial,
        disable=not enabled,
        dynamic_ncols=True,
        bar_format=BAR_FORMAT,
    )


@contextmanager
def progress_bar(description: str, *, total: int, enabled: bool = True) -> Iterator[Any]:
    """A tqdm-like bar (`update(n)`, `set_description(text)`); nothing is shown where it is not enabled or wanted.

    A worker's bar is drawn, or not, by the process that started the run.
    """
    import ray
    from ray.experimental import tqdm_ray

    in_worker = ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE
    if enabled and in_worker:
        bar: Any = tqdm_ray.tqdm(desc=description, total=total)
    else:
        bar = new_bar(description, total=total, enabled=enabled and bars_wanted())
    try:
        yield bar
    finally:
        bar.close()
