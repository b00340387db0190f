"""What a rollout adds to the metrics, and the warning where it has nothing to teach."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from openrlhf.cli.flags import parse_args, to_config
from openrlhf.trainer.ppo_trainer import PPOTrainer
from openrlhf.trainer.ppo_utils.metrics import MeanMetrics
from openrlhf.trainer.ppo_utils.rollout import ScoredSamples
from openrlhf.trainer.ppo_utils.rollout_metrics import add_reward_metrics
from openrlhf.trainer.ppo_utils.samples import Completion, Prompt, Rewards, Samples
from support.tiny_run import arguments


def group(*rewards: float) -> ScoredSamples:
    completions = [Completion(token_ids=[1, 2], logprobs=[-1.0] * 2, finish_reason="stop") for _ in rewards]
    samples = Samples(
        prompt=Prompt(index=0, text="", token_ids=[1]), completions=completions, responses=[""] * len(rewards)
    )
    return ScoredSamples(samples=samples, rewards=Rewards(rewards=list(rewards), metrics={"extra": list(rewards)}))


def means(*groups: ScoredSamples) -> dict[str, float]:
    metrics = MeanMetrics()
    add_reward_metrics(metrics, groups, (-10.0, 10.0))
    return {name: float(metrics.sums[name]) / metrics.counts[name] for name in metrics.sums}


def test_rewards_are_means_over_samples_and_spreads_over_groups():
    # rewards 0, 1 and 4, 4: mean 9/4; standard deviations sqrt(1/2) and 0
    result = means(group(0.0, 1.0), group(4.0, 4.0))
    assert result["reward"] == result["extra"] == pytest.approx(2.25)
    assert result["group_reward_std"] == pytest.approx(0.5**0.5 / 2)
    assert result["equal_reward_groups_frac"] == 0.5


def test_rewards_that_clipping_makes_equal_are_equal():
    assert means(group(11.0, 50.0))["equal_reward_groups_frac"] == 1.0
    assert means(group(9.0, 50.0))["equal_reward_groups_frac"] == 0.0


def test_a_single_sample_has_no_group():
    assert "equal_reward_groups_frac" not in means(group(1.0))


@pytest.mark.parametrize(
    ("estimator", "share", "warns"),
    [("group_norm", 1.0, True), ("group_norm", 0.9, False), ("reinforce", 1.0, False)],
)
def test_a_step_that_teaches_nothing_is_said_once(estimator: str, share: float, warns: bool, caplog: Any):
    trainer: Any = object.__new__(PPOTrainer)
    trainer.tracker = object()  # rank 0 has one
    trainer.warned_of_equals = False
    trainer.config = to_config(parse_args(arguments(Path("w"), Path("o"), advantage_estimator=estimator)))
    with caplog.at_level(logging.WARNING):
        for step in (3, 4):
            trainer.warn_without_signal(step, {"equal_reward_groups_frac": share, "reward": 0.5})
    assert caplog.text.count("in every group all rewards are equal") == (1 if warns else 0)
    assert ("step 3: in every group all rewards are equal (mean 0.5)" in caplog.text) == warns
