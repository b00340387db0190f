"""When a run is said to fall silent, to copy, or to do no better than plans that nobody learned."""

from __future__ import annotations

from openrlhf.trainer.guard import Guard, control_line

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
