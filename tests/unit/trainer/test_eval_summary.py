"""From completions to an evaluation's numbers, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from openrlhf.trainer.eval_summary import breakdown, evaluation_line, metric_names, split_metrics
from openrlhf.trainer.evaluation import completion_rows
from openrlhf.trainer.ppo_utils.rollout import ScoredSamples
from openrlhf.trainer.ppo_utils.samples import Completion, ControlScore, Prompt, Rewards, Samples
from openrlhf.vr_cli.statistics import bootstrap_interval

NAMES = ("improvement_pct",)


def row(prompt: int, improvement: float, **fields: Any) -> dict[str, Any]:
    return {"prompt_index": prompt, "reward": improvement / 10, "improvement_pct": improvement, **fields}


def control(prompt: int, name: str, improvement: float) -> ControlScore:
    return ControlScore(
        prompt_index=prompt,
        datapoint_id=None,
        control=name,
        plan="",
        reward=0.0,
        metrics={"improvement_pct": improvement},
    )


# Two prompts of two responses, one of one: mean 12 / 5, median 2, three of five above 0.
ROWS = [row(0, 1.0), row(0, 3.0), row(4, -1.0), row(4, 0.0), row(7, 9.0)]


def test_the_reward_and_the_improvement_are_summarised_over_the_split():
    metrics = split_metrics(ROWS, [], names=NAMES, seed=5)
    assert metrics["num_datapoints"] == 3
    assert metrics["improvement_pct"] == pytest.approx(12 / 5)
    assert metrics["improvement_pct_median"] == 1.0
    assert metrics["improvement_pct_positive_frac"] == pytest.approx(3 / 5)
    assert metrics["reward_median"] == pytest.approx(0.1)
    interval = bootstrap_interval([[1.0, 3.0], [-1.0, 0.0], [9.0]], seed=5)
    assert (metrics["improvement_pct_ci_low"], metrics["improvement_pct_ci_high"]) == (interval.low, interval.high)


def test_a_task_without_more_metrics_has_its_reward():
    metrics = split_metrics(ROWS, [], names=(), seed=5)
    assert set(metrics) == {
        "num_datapoints", "reward", "reward_median", "reward_positive_frac", "reward_ci_low", "reward_ci_high"
    }  # fmt: skip


def test_controls_are_compared_datapoint_by_datapoint():
    """Empty plans: 2, 1, 3; differences -1, 1; -2, -1; 6: mean 3/5. The synopsis: 4 and 0, none for prompt 4."""
    controls = [control(p, "empty", v) for p, v in ((0, 2.0), (4, 1.0), (7, 3.0))]
    controls += [control(0, "synopsis", 4.0), control(7, "synopsis", 0.0)]
    metrics = split_metrics(ROWS, controls, names=NAMES, seed=5)
    assert metrics["control_empty/improvement_pct"] == pytest.approx(2.0)
    assert metrics["over_empty/improvement_pct"] == pytest.approx(3 / 5)
    assert metrics["control_synopsis/improvement_pct"] == pytest.approx(2.0)
    assert metrics["over_synopsis/improvement_pct"] == pytest.approx((-3 - 1 + 9) / 3)
    interval = bootstrap_interval([[-1.0, 1.0], [-2.0, -1.0], [6.0]], seed=5)
    assert metrics["over_empty/improvement_pct_ci_low"] == interval.low
    assert metrics["over_empty/improvement_pct_ci_high"] == interval.high


def test_a_constant_control_shifts_the_interval_and_no_more():
    controls = [control(p, "empty", 2.0) for p in (0, 4, 7)]
    metrics = split_metrics(ROWS, controls, names=NAMES, seed=5)
    for end in ("", "_ci_low", "_ci_high"):
        shifted = metrics[f"improvement_pct{end}"] - 2.0
        assert metrics[f"over_empty/improvement_pct{end}"] == pytest.approx(shifted)


def test_the_names_are_known_before_anything_is_measured():
    controls = [control(p, "empty", 2.0) for p in (0, 4, 7)]
    rows = [{**row(p, 1.0), "response_length": 1.0, "truncated_frac": 0.0} for p in (0, 4, 7)]
    measured = {"response_length", "truncated_frac", *split_metrics(rows, controls, names=NAMES, seed=5)}
    assert metric_names(NAMES, summarised=NAMES, controls=["empty"], num_datapoints=3) == measured
    assert "reward_ci_low" not in metric_names(NAMES, summarised=NAMES, controls=[], num_datapoints=1)


def test_the_split_is_broken_down_by_story_and_genre():
    rows = [
        row(0, 1.0, story_id="a", genre="crime"),
        row(1, 3.0, story_id="a"),
        row(2, 8.0, story_id=7, genre="crime"),
        row(3, 0.0, story_id="", genre=None),
    ]
    parts = {(part["by"], part["value"]): part for part in breakdown(rows, names=NAMES, seed=5)}
    assert {key: part["improvement_pct"] for key, part in parts.items()} == {
        ("story_id", "a"): 2.0,
        ("story_id", 7): 8.0,
        ("genre", "crime"): 4.5,
    }
    assert parts["story_id", "a"]["num_datapoints"] == 2
    assert "improvement_pct_ci_low" not in parts["story_id", 7]  # a single datapoint
    assert breakdown(ROWS, names=NAMES, seed=5) == []


def test_the_line_says_how_sure_the_number_is():
    metrics = {**split_metrics(ROWS, [], names=NAMES, seed=5), "plan_length": 64.0, "time/eval_s": 2.5}
    metrics |= {"improvement_pct_ci_low": -1.25, "improvement_pct_ci_high": 9.0}
    assert evaluation_line(metrics, noise_pct=0.004) == (
        "improvement_pct 2.4 (95 % interval -1.25 to 9, 3 datapoints), above 0 in 60 %, reward 0.24, scoring noise "
        "0.004 %, plan_length 64, eval_s 2.5"
    )
    assert "noise" not in evaluation_line(metrics, noise_pct=None)  # a resumed run whose first rows are elsewhere
    of_reward = split_metrics(ROWS[-1:], [], names=(), seed=5)
    assert evaluation_line(of_reward, noise_pct=None) == "reward 0.9"


def test_a_completions_row_has_what_its_datapoint_is_broken_down_by():
    prompt = Prompt(
        index=3,
        text="Plan.",
        token_ids=[1],
        datapoint={"story_id": "a", "genre": "crime", "gold": "x"},
        datapoint_id="a/2",
    )
    completion = Completion(token_ids=[5, 6], logprobs=[-1.0, -2.0], finish_reason="length")
    group = ScoredSamples(
        samples=Samples(prompt=prompt, completions=[completion], responses=["Why."]),
        rewards=Rewards(rewards=[0.5], metrics={"improvement_pct": [2.0]}),
    )
    assert completion_rows(group) == [
        {
            "prompt_index": 3,
            "datapoint_id": "a/2",
            "story_id": "a",
            "genre": "crime",
            "sample": 0,
            "prompt": "Plan.",
            "completion": "Why.",
            "finish_reason": "length",
            "response_length": 2,
            "reward": 0.5,
            "improvement_pct": 2.0,
        }
    ]
