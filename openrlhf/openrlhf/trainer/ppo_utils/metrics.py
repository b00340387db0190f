"""Means that are right over samples, micro-batches and ranks: sums and counts add up, and are divided once."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from openrlhf.utils.deepspeed.collectives import all_gather_object
from openrlhf.utils.progress import doing


class MeanMetrics:
    """Running means by name. Sums may be tensors of a device: they are read once, in `reduce`."""

    def __init__(self) -> None:
        self.sums: dict[str, float | Tensor] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)

    def add(self, name: str, values: Iterable[float]) -> None:
        for value in values:
            self.add_sum(name, float(value), 1)

    def add_sum(self, name: str, value_sum: float | Tensor, count: float) -> None:
        """`value_sum`: of `count` values; a scalar tensor is added up in float64 where it is."""
        self.sums[name] = self.sums[name] + (value_sum.double() if isinstance(value_sum, Tensor) else value_sum)
        self.counts[name] += count

    def add_sums(self, value_sums: Mapping[str, float | Tensor], count: float) -> None:
        for name, value_sum in value_sums.items():
            self.add_sum(name, value_sum, count)

    def reduce(self) -> dict[str, float]:
        """The means over all ranks, on every rank. Names may differ between ranks (one may have had no samples)."""
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, float] = defaultdict(float)
        for rank_sums, rank_counts in all_gather_object((self._read_sums(), dict(self.counts))):
            for name, value in rank_sums.items():
                sums[name] += value
                counts[name] += rank_counts[name]
        return {name: sums[name] / counts[name] for name in sorted(sums) if counts[name]}

    def _read_sums(self) -> dict[str, float]:
        """All sums as numbers; the tensors among them in one copy from the device."""
        tensors = {name: value for name, value in self.sums.items() if isinstance(value, Tensor)}
        read = torch.stack(list(tensors.values())).tolist() if tensors else []
        return {
            **{name: float(value) for name, value in self.sums.items() if name not in tensors},
            **dict(zip(tensors, read, strict=True)),
        }


PHASE_WORDS = {
    "step": "",
    "generate": "",  # and `train`: counted, and told, inside
    "train": "",
    "eval": "evaluating",
    "controls": "scoring controls",
    "score": "scoring",
    "old_logprobs": "old log-probs",
    "transfer": "sending weights",
}
"""What a run's bar says of a phase."""


class PhaseTimer:
    """Wall-clock seconds by phase of a step; the run's bar tells the phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            with doing(PHASE_WORDS.get(name, name)):
                yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def metrics(self) -> dict[str, float]:
        return {f"time/{name}_s": seconds for name, seconds in self.seconds.items()}
