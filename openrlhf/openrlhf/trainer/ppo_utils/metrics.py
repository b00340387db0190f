"""Means that are right over samples, micro-batches and ranks: sums and counts add up, and are divided once."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from openrlhf.utils.deepspeed.collectives import all_gather_object


class MeanMetrics:
    """Running means by name."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)

    def add(self, name: str, values: Iterable[float]) -> None:
        for value in values:
            self.add_sum(name, value, 1)

    def add_sum(self, name: str, value_sum: float, count: float) -> None:
        self.sums[name] += float(value_sum)
        self.counts[name] += count

    def reduce(self) -> dict[str, float]:
        """The means over all ranks, on every rank. Names may differ between ranks (one may have had no samples)."""
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, float] = defaultdict(float)
        for rank_sums, rank_counts in all_gather_object((dict(self.sums), dict(self.counts))):
            for name, value in rank_sums.items():
                sums[name] += value
                counts[name] += rank_counts[name]
        return {name: sums[name] / counts[name] for name in sorted(sums) if counts[name]}


class PhaseTimer:
    """Wall-clock seconds by phase of a step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def metrics(self) -> dict[str, float]:
        return {f"time/{name}_s": seconds for name, seconds in self.seconds.items()}
