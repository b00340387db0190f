"""Our statistics and SciPy's on the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from openrlhf.vr_cli import statistics
from openrlhf.vr_cli.statistics import bootstrap_interval


@pytest.mark.parametrize("size", [2, 5, 33])
@pytest.mark.parametrize("draws_at_once", [statistics.DRAWS_AT_ONCE, 100])
def test_it_is_scipys_percentile_bootstrap(monkeypatch: pytest.MonkeyPatch, size: int, draws_at_once: int):
    """The same draws: number for number."""
    monkeypatch.setattr(statistics, "DRAWS_AT_ONCE", draws_at_once)
    values = np.random.default_rng(size).gamma(2.0, size=size)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=2_000, method="percentile", rng=np.random.default_rng(7)
    ).confidence_interval
    interval = bootstrap_interval([[value] for value in values], seed=7, num_resamples=2_000)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
