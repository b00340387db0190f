"""Means with intervals, for values that come in groups: the samples of one datapoint.

Samples of one datapoint resemble each other, so an interval that takes each for an independent value is too narrow. The
bootstrap here draws whole datapoints (Davison & Hinkley 1997, Bootstrap Methods and their Application, section 3.8),
and takes the percentiles of their means, as `scipy.stats.bootstrap(method="percentile")` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Key = TypeVar("Key")

NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95
DRAWS_AT_ONCE = 2**22
"""Bounds the memory of one bootstrap: 32 MiB of indices."""

Groups = Sequence[Sequence[float]]
"""One sequence of values a datapoint, each with at least one."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Where a mean lies with a confidence of 95 %."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a quantity is over a set of datapoints."""

    num_datapoints: int
    mean: float
    """Over all samples."""
    median: float
    """Of all samples."""
    positive_frac: float
    """Share of the samples that are above 0."""
    interval: Interval | None
    """Of the mean; None for a single datapoint, which says nothing of others."""

    def metrics(self, name: str) -> dict[str, float]:
        """As flat metrics; the mean has the bare name."""
        found = {name: self.mean, f"{name}_median": self.median, f"{name}_positive_frac": self.positive_frac}
        if self.interval is not None:
            found |= {f"{name}_ci_low": self.interval.low, f"{name}_ci_high": self.interval.high}
        return found


def summarize(groups: Groups, *, seed: int) -> Summary:
    """The summary of values that are grouped by datapoint.

    Raises:
        ValueError: there are no groups, or one is empty.
    """
    if not groups or not all(groups):
        raise ValueError("a summary needs at least one group, and at least one value in each")
    values = np.concatenate([np.asarray(group, dtype=np.float64) for group in groups])
    return Summary(
        num_datapoints=len(groups),
        mean=float(values.mean()),
        median=float(np.median(values)),
        positive_frac=float((values > 0).mean()),
        interval=bootstrap_interval(groups, seed=seed) if len(groups) > 1 else None,
    )


def bootstrap_interval(
    groups: Groups, *, seed: int, num_resamples: int = NUM_RESAMPLES, confidence: float = CONFIDENCE
) -> Interval:
    """Percentile bootstrap of the mean over all samples; whole groups are drawn, with replacement.

    With few groups it is too narrow: for normal values it holds the true mean 84 % of the time at 5 groups, 90 % at 10,
    93 % at 32 (4,000 simulated sets).
    """
    sums = np.array([np.sum(group, dtype=np.float64) for group in groups])
    counts = np.array([len(group) for group in groups], dtype=np.float64)
    generator = np.random.default_rng(seed)
    rows = max(1, DRAWS_AT_ONCE // len(groups))
    means = [
        _resampled_means(
            sums, counts, generator.integers(0, len(groups), (min(rows, num_resamples - done), len(groups)))
        )
        for done in range(0, num_resamples, rows)
    ]
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(np.concatenate(means), [tail, 100.0 - tail])
    return Interval(low=float(low), high=float(high))


def paired_differences(groups: Mapping[Key, Sequence[float]], subtrahends: Mapping[Key, float]) -> list[list[float]]:
    """Each datapoint's values less a number of its own; datapoints that have none are left out."""
    return [[value - subtrahends[key] for value in values] for key, values in groups.items() if key in subtrahends]


def _resampled_means(
    sums: npt.NDArray[np.float64], counts: npt.NDArray[np.float64], draws: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """(B,) means of the samples of each of B sets of drawn groups; `draws` is (B, number of groups)."""
    return sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
