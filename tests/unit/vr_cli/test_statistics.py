"""Means and intervals, by hand; test_statistics_against_scipy.py has another implementation."""

from __future__ import annotations

import pytest

from openrlhf.vr_cli.statistics import Interval, bootstrap_interval, paired_differences, summarize


def test_mean_median_and_share_are_over_samples():
    # 1, 2, -3 and 8: mean 2, median (1 + 2) / 2, three of four above 0
    summary = summarize([[1.0, 2.0], [-3.0, 8.0]], seed=0)
    assert (summary.mean, summary.median, summary.positive_frac) == (2.0, 1.5, 0.75)
    assert summary.num_datapoints == 2


def test_nothing_is_not_above_zero():
    assert summarize([[0.0], [-1.0], [1.0]], seed=0).positive_frac == pytest.approx(1 / 3)


def test_the_interval_of_two_groups_by_hand():
    """Drawn with replacement, groups of 0 and 4 give the means 0, 2 and 4, a quarter, a half and a quarter of them."""
    assert bootstrap_interval([[0.0], [4.0]], seed=1) == Interval(low=0.0, high=4.0)
    # In the middle 40 % there is the 2 only.
    assert bootstrap_interval([[0.0], [4.0]], seed=1, confidence=0.4) == Interval(low=2.0, high=2.0)


def test_samples_of_a_datapoint_stay_together():
    """Four equal samples a datapoint are worth one: the interval is that of the datapoints, not half as wide."""
    values = [1.0, 2.0, 4.0, 7.0, 11.0]
    assert bootstrap_interval([[value] * 4 for value in values], seed=3) == bootstrap_interval(
        [[value] for value in values], seed=3
    )


def test_groups_of_other_sizes_are_means_over_samples():
    """Groups 0 and (6, 6): means 0 (twice the first), 12/3 (one of each), 6."""
    assert bootstrap_interval([[0.0], [6.0, 6.0]], seed=1, confidence=0.4) == Interval(low=4.0, high=4.0)


def test_the_seed_decides():
    values = [[float(value)] for value in range(10)]
    assert bootstrap_interval(values, seed=5) == bootstrap_interval(values, seed=5)
    assert bootstrap_interval(values, seed=5, num_resamples=50) != bootstrap_interval(values, seed=6, num_resamples=50)


def test_one_datapoint_has_no_interval():
    summary = summarize([[1.0, 3.0]], seed=0)
    assert summary.interval is None
    assert summary.metrics("x") == {"x": 2.0, "x_median": 2.0, "x_positive_frac": 1.0}


def test_metrics_are_flat():
    assert set(summarize([[1.0], [3.0]], seed=0).metrics("x")) == {
        "x", "x_median", "x_positive_frac", "x_ci_low", "x_ci_high"
    }  # fmt: skip


@pytest.mark.parametrize("groups", [[], [[1.0], []]])
def test_nothing_has_no_summary(groups):
    with pytest.raises(ValueError, match="at least one"):
        summarize(groups, seed=0)


def test_differences_are_taken_datapoint_by_datapoint():
    groups = {"a": [1.0, 2.0], "b": [5.0], "c": [0.0]}
    assert paired_differences(groups, {"b": 2.0, "a": -1.0}) == [[2.0, 3.0], [3.0]]
