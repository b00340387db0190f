"""When a run is said to fall silent, to copy, or to do no better than plans that nobody learned."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openrlhf.cli.flags import parse_args, to_config
from openrlhf.trainer.evaluation import Evaluator
from openrlhf.trainer.guard import Guard, control_line
from openrlhf.trainer.ppo_trainer import PPOTrainer
from openrlhf.trainer.tracking import MetricsLogger
from support.tiny_run import arguments

START = {"plan_length": 64.0, "unseen_trigram_share": 0.8, "entropy": 2.0}


def over(control: str, mean: float, low: float, high: float) -> dict[str, float]:
    name = f"over_{control}/improvement_pct"
    return {name: mean, f"{name}_ci_low": low, f"{name}_ci_high": high}


def test_a_policy_that_falls_silent_is_said_once():
    guard = Guard()
    assert guard.lines(START, START) == []
    assert guard.lines({**START, "plan_length": 16.0}, START) == []  # a quarter, not less
    (line,) = guard.lines({**START, "plan_length": 9.0}, START)
    assert line.startswith("plans have 9 tokens, 64 at the start: the policy falls silent; --min_plan_tokens")
    assert guard.lines({**START, "plan_length": 5.0}, START) == []


def test_it_is_said_again_after_a_recovery():
    guard = Guard()
    low = {**START, "plan_length": 9.0}
    assert len(guard.lines(low, START)) == 1
    assert guard.lines(START, START) == []
    assert len(guard.lines(low, START)) == 1


def test_copying_and_a_lost_entropy_are_said():
    lines = Guard().lines({**START, "unseen_trigram_share": 0.1, "entropy": 0.15}, START)
    assert lines[0] == "10% of the plans' trigrams are not in their prompts, 80% at the start: the policy copies"
    assert lines[1].startswith("entropy 0.15 nats, 2 at the start")


def test_silence_is_not_called_copying():
    (line,) = Guard().lines({**START, "plan_length": 0.0, "unseen_trigram_share": 0.0}, START)
    assert "falls silent" in line


def test_what_is_not_measured_is_not_watched():
    assert Guard().lines({"reward": 0.0, "entropy": 0.1}, {"reward": 1.0, "entropy": None}) == []  # type: ignore[dict-item]


def test_a_policy_that_beats_every_control_is_no_line():
    assert control_line({**over("empty", 2.0, 0.1, 4.0), **over("other", 1.0, 0.5, 2.0)}) is None
    assert control_line({"improvement_pct": -1.0}) is None
    assert control_line({"over_empty/improvement_pct": -1.0}) is None  # of one datapoint: no interval


def test_controls_that_are_not_beaten_are_named():
    """An interval that reaches 0 is not above it."""
    metrics = {**over("empty", 0.5, -0.25, 1.0), **over("synopsis", 3.0, 1.0, 4.0), **over("other", -8.0, -10.0, -6.0)}
    assert control_line(metrics) == (
        "the policy's plans do no better than no plan at all (+0.5, 95 % interval -0.25 to +1), another story's "
        "synopsis (-8, 95 % interval -10 to -6), in improvement_pct"
    )


def test_training_and_evaluation_say_it(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Through the trainer and the evaluator, against the first rows of the record; `eval` rows have their own."""
    config = to_config(parse_args(arguments(tmp_path, tmp_path)))
    tracker = MetricsLogger(config.tracking, tmp_path, {})
    trainer: Any = object.__new__(PPOTrainer)
    trainer.config, trainer.tracker, trainer.guard = config, tracker, Guard()
    trainer.schedule = SimpleNamespace(num_steps=9)
    evaluator = Evaluator(experience_maker=object(), split=[], share=[], config=config, tracker=tracker)  # type: ignore[arg-type]
    worse = {"improvement_pct_positive_frac": 0.0, **over("empty", -2.0, -3.0, -1.0)}

    def say(step: int, tokens: float) -> list[str]:
        caplog.clear()
        metrics = {"reward": 0.0, "improvement_pct": 0.0, "plan_length": tokens, **worse}
        with caplog.at_level("WARNING"):
            trainer.log_step(step, metrics)
            evaluator._record(tracker, step, {**metrics, "plan_length": tokens + 1}, [], [])
        return [record.message for record in caplog.records]

    assert say(0, 64.0) == []
    trained, no_better, evaluated = say(8, 9.0)
    assert trained.startswith("step 8: plans have 9 tokens, 64 at the start")
    assert no_better.startswith("evaluation after step 8: the policy's plans do no better than no plan at all (-2, ")
    assert evaluated.startswith("evaluation after step 8: plans have 10 tokens, 65 at the start")
