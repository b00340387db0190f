"""What a run waits for while it starts, so that minutes of silence do not look like a hang.

    with stage("loading models: 4 policy and 4 reference workers, 2 vLLM engines") as loading:
        ...
        loading.ready("vLLM engine 1")

logs

    12:32:01  loading models: 4 policy and 4 reference workers, 2 vLLM engines ...
    12:32:40  vLLM engine 1: ready after 39 s
    12:33:01  loading models: 1:00 so far
    12:33:10  loading models: done in 1:09
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from openrlhf.utils.durations import duration
from openrlhf.utils.logging import init_logger

logger = init_logger(__name__)

REMIND_AFTER_S = 60.0
SHORT_S = 1.0
"""A stage that is shorter needs no line for its end."""


class Stage:
    """One that is under way. `stage` makes it."""

    def __init__(self, what: str) -> None:
        """`what` is told in full when it begins, and up to its first colon afterwards."""
        self._name = what.partition(":")[0]
        self._start = time.monotonic()
        logger.info("%s ...", what)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def ready(self, part: str) -> None:
        """Says that a part of it is there."""
        logger.info("%s: ready after %s", part, duration(self.seconds))

    def remind(self, over: threading.Event, every_s: float) -> None:
        """Says how long it has taken so far, until it is `over`."""
        while not over.wait(every_s):
            logger.info("%s: %s so far", self._name, duration(self.seconds))

    def done(self) -> None:
        if self.seconds >= SHORT_S:
            logger.info("%s: done in %s", self._name, duration(self.seconds))


@contextmanager
def stage(what: str, *, remind_every_s: float = REMIND_AFTER_S) -> Iterator[Stage]:
    """Within: see the module's docstring. An exception ends it without a word: it has its own."""
    current, over = Stage(what), threading.Event()
    threading.Thread(target=current.remind, args=(over, remind_every_s), daemon=True).start()
    try:
        yield current
        current.done()
    finally:
        over.set()
