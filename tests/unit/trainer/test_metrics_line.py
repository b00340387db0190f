"""The line of a step."""

from __future__ import annotations

from openrlhf.trainer.metrics_line import metrics_line, seconds_left

TRAIN = {
    "reward": -0.10019,
    "improvement_pct": -12.171,
    "response_length": 16.0,
    "kl": 0.17521,
    "time/step_s": 2.245,
    "time/train_s": 1.0,
    "equal_reward_groups_frac": 0.5,
}


def test_columns_stand_below_each_other():
    step = metrics_line("step 4/24", TRAIN, left_s=45.2)
    later = metrics_line("step 12/24", {**TRAIN, "reward": 1.5, "improvement_pct": 3.0, "response_length": 1024.0})
    assert step == "step 4/24      reward  -0.1002  improvement  -12.17 %  length   16.0  KL 0.175    2.2 s, 45 s left"
    assert later == "step 12/24     reward   1.5000  improvement    3.00 %  length 1024.0  KL 0.175    2.2 s"


def test_a_large_or_a_tiny_number_keeps_the_columns():
    line = metrics_line("step 100/2400", {"reward": -123456.789, "response_length": 2048.0, "kl": 1.234e-06})
    assert line == "step 100/2400  reward -1.2346e+05  length 2048.0  KL 1.23e-06"
    assert metrics_line("step 1/2", {"reward": 123.4567}) == "step 1/2       reward   123.46"


def test_a_step_that_teaches_nothing_says_so():
    assert metrics_line("step 1/2", {**TRAIN, "equal_reward_groups_frac": 1.0}).endswith("  (all rewards equal)")


def test_what_is_left_is_counted_from_the_steps_of_this_start():
    # 4 steps in 10 s: 2.5 s each; 6 are left
    assert seconds_left(10.0, done=4, remaining=6) == 15.0
