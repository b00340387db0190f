"""How far a piece of work is: a bar on a terminal, a line now and then in a file."""

from __future__ import annotations

import time
from collections import Counter

from tqdm import tqdm

from openrlhf.utils.logging import init_logger
from openrlhf.utils.progress import bars_wanted

logger = init_logger("setup_data.progress")

SECONDS_PER_LINE = 30.0


class Progress:
    """Books that are read, or a step's answers with their tokens per second; the total grows as more become known."""

    def __init__(self, step: str, *, unit: str) -> None:
        self.step = step
        self.unit = unit
        self._bar = tqdm(total=0, desc=step, unit=unit, dynamic_ncols=True, mininterval=0.5) if bars_wanted() else None
        self._start = self._last_line = time.monotonic()
        self._known = self._done = 0
        self._tokens: Counter[str] = Counter()

    def add(self, count: int = 1) -> None:
        """More of them are known."""
        self._known += count
        if self._bar is not None:
            self._bar.total = self._known

    def skip(self) -> None:
        """One that was there before: it counts as done, but not for the rate or the time left."""
        if self._bar is not None:
            self._bar.initial += 1
        self.done()

    def count(self, *, read: int, written: int) -> None:
        """Tokens of any answer, usable or not."""
        self._tokens.update(read=read, written=written)
        if self._bar is not None:
            self._bar.set_postfix_str(self._rates(), refresh=False)

    def done(self) -> None:
        """One of them is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.update(1)
        elif time.monotonic() - self._last_line >= SECONDS_PER_LINE:
            self._say()

    def close(self) -> None:
        """Ends the bar, or says how it ended."""
        if self._bar is not None:
            self._bar.close()
        elif self._known:
            self._say()

    def _rates(self) -> str:
        elapsed_s = max(time.monotonic() - self._start, 1e-3)
        return ", ".join(f"{name} {count / elapsed_s:,.0f} tokens/s" for name, count in self._tokens.items())

    def _say(self) -> None:
        self._last_line = time.monotonic()
        rates = f" ({self._rates()})" if self._tokens else ""
        logger.info("%s: %d of %d %ss%s", self.step, self._done, self._known, self.unit, rates)
