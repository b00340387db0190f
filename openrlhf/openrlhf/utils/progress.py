"""The one bar of a run: how many steps are done, and what is being done now.

    training:  17%|#7        | 4/24 [02:10<11:05], sampling 3/8

A Ray worker prints the bar's states as lines of JSON; the process that started the run turns them into the bar
(`trainer/ray/worker_output.py`).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from tqdm import tqdm

from openrlhf.utils.terminal import bars_wanted as bars_wanted
from openrlhf.utils.terminal import screen

STATE_MARK = "openrlhf-progress "
# No rate: a step is minutes.
BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is."""

    done: int
    """Steps, of `total`."""
    total: int
    resumed_at: int = 0
    """Steps that were done before this start."""
    elapsed_s: float = 0.0
    doing: str = ""


def render(progress: Progress, *, columns: int) -> str:
    """The bar as text, `columns` wide."""
    return tqdm.format_meter(
        n=progress.done,
        total=progress.total,
        elapsed=progress.elapsed_s,
        ncols=columns,
        prefix="training",
        bar_format=BAR_FORMAT,
        initial=progress.resumed_at,
        postfix=progress.doing,
    )


def state_line(progress: Progress | None) -> str:
    """What a worker prints; None: the bar goes."""
    return STATE_MARK + json.dumps(progress and asdict(progress))


def read_state(line: str) -> Progress | None:
    """Of a line that `is_state`."""
    state = json.loads(line.removeprefix(STATE_MARK))
    return Progress(**state) if state else None


def is_state(line: str) -> bool:
    return line.startswith(STATE_MARK)


class RunBar:
    """The bar that this process reports to. `run_bar` makes it."""

    def __init__(self, total: int) -> None:
        self._state = Progress(done=0, total=total)
        self._start = time.monotonic()
        self._phases: list[str] = []
        self._in_worker = in_ray_worker()

    def resume(self, done: int) -> None:
        """`done` steps were done before this start."""
        self._show(replace(self._state, done=done, resumed_at=done))

    def advance(self) -> None:
        """One more step is done."""
        self._show(replace(self._state, done=self._state.done + 1))

    def enter(self, phase: str) -> None:
        self._phases.append(phase)
        self._tell()

    def leave(self) -> None:
        self._phases.pop()
        self._tell()

    def count(self, done: int, total: int) -> None:
        """How far the phase is."""
        self._tell(f" {done}/{total}")

    def close(self) -> None:
        if self._in_worker:
            print(state_line(None), flush=True)
        else:
            screen().bar("")

    def _tell(self, suffix: str = "") -> None:
        self._show(replace(self._state, doing=": ".join(filter(None, self._phases)) + suffix))

    def _show(self, state: Progress) -> None:
        if state == self._state:
            return
        self._state = replace(state, elapsed_s=time.monotonic() - self._start)
        if self._in_worker:
            print(state_line(self._state), flush=True)
        else:
            screen().bar(render(self._state, columns=screen().columns))


_bar: RunBar | None = None


@contextmanager
def run_bar(total: int, *, enabled: bool = True) -> Iterator[RunBar | None]:
    """The bar of a run of `total` steps. One a process at a time: `doing` and `progress_bar` find it by themselves."""
    global _bar
    assert _bar is None, "a run has one bar"
    if not enabled:
        yield None
        return
    _bar = RunBar(total)
    try:
        yield _bar
    finally:
        _bar.close()
        _bar = None


@contextmanager
def doing(phase: str) -> Iterator[None]:
    """Within: the bar says so, if this process has one. An empty phase is not told, but keeps its place."""
    bar = _bar
    if bar is None:
        yield
        return
    bar.enter(phase)
    try:
        yield
    finally:
        bar.leave()


class Counter:
    """How far a phase is, on the run's bar."""

    def __init__(self, total: int) -> None:
        self._done, self._total = 0, total
        self.update(0)

    def update(self, more: int) -> None:
        self._done += more
        if _bar is not None:
            _bar.count(self._done, self._total)


@contextmanager
def progress_bar(description: str, *, total: int, enabled: bool = True) -> Iterator[Counter]:
    """A phase of the run that is counted; it has no bar of its own, and shows only where this process has the run's."""
    with doing(description if enabled else ""):
        yield Counter(total)


def in_ray_worker() -> bool:
    """Whether another process shows what this one prints."""
    ray = sys.modules.get("ray")
    return bool(ray and ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE)


def is_rank_0() -> bool:
    """Whether this process is the one that reports: rank 0 of its group, or no part of one."""
    return os.environ.get("RANK", "0") == "0"
