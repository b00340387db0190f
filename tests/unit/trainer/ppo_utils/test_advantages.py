"""Advantages, KL controllers: numbers worked out by hand."""

import math

import pytest
import torch

from openrlhf.config import AlgorithmConfig
from openrlhf.trainer.ppo_utils.advantages import (
    group_advantages,
    shape_rewards,
    token_returns,
    whiten,
    whitening_sums,
)
from openrlhf.trainer.ppo_utils.kl_controller import AdaptiveKLController, make_kl_controller
from openrlhf.vr_cli.rewards import advantage_eps


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("reinforce", [0.0, 0.5, 1.0]),
        ("reinforce_baseline", [-0.5, 0.0, 0.5]),
        # each against the mean of the other two: 0 - 0.75, 0.5 - 0.5, 1 - 0.25
        ("rloo", [-0.75, 0.0, 0.75]),
        # std with n - 1: sqrt((0.25 + 0 + 0.25) / 2) = 0.5
        ("group_norm", [-1.0, 0.0, 1.0]),
    ],
)
def test_shaped_rewards(estimator, expected):
    assert shape_rewards(torch.tensor([0.0, 0.5, 1.0]), estimator).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("estimator", ["rloo", "reinforce_baseline", "group_norm"])
def test_equal_rewards_teach_nothing(estimator):
    assert shape_rewards(torch.tensor([0.9, 0.9, 0.9]), estimator).abs().max() < 1e-6


def test_noise_of_scoring_does_not_become_advantages_of_two():
    """Seven equal plans and one that the scorer's noise in TF32 puts 4e-4 nats above: mean 5e-5, std 4e-4 / sqrt(8)."""
    rewards = torch.tensor([0.0] * 7 + [4e-4], dtype=torch.float64)
    std = 4e-4 / math.sqrt(8)
    assert shape_rewards(rewards, "group_norm").max() == pytest.approx(3.5e-4 / std, rel=1e-4)  # 2.47
    for shape, unit in (("nll_delta", 1.0), ("improvement", 100.0)):
        advantages = shape_rewards(rewards * unit, "group_norm", eps=advantage_eps(shape))
        assert advantages.max() == pytest.approx(3.5e-4 / (std + 1e-3))  # 0.31


@pytest.mark.parametrize("estimator", ["rloo", "reinforce_baseline", "group_norm"])
def test_a_single_sample_has_nothing_to_compare_with(estimator):
    with pytest.raises(ValueError, match="at least 2"):
        shape_rewards(torch.tensor([1.0]), estimator)


def test_returns_without_kl_are_the_reward_at_every_token():
    assert token_returns(2.0, torch.zeros(3), kl_coef=0.1, gamma=1.0).tolist() == [2.0, 2.0, 2.0]


def test_returns_with_kl_and_discount():
    # token rewards: -0.1 * (1, 2, 3) = (-0.1, -0.2, -0.3), the last one + 1 = 0.7
    # gamma 0.5: return_2 = 0.7, return_1 = -0.2 + 0.35 = 0.15, return_0 = -0.1 + 0.075 = -0.025
    returns = token_returns(1.0, torch.tensor([1.0, 2.0, 3.0]), kl_coef=0.1, gamma=0.5)
    assert returns.tolist() == pytest.approx([-0.025, 0.15, 0.7], abs=1e-6)


OLD = [torch.tensor([-1.0, -2.0]), torch.tensor([-3.0])]
REF = [torch.tensor([-1.5, -1.0]), torch.tensor([-3.0])]


def test_a_groups_advantages_clip_the_rewards_before_they_are_compared():
    # 0 and 50, clipped to 10: mean 5, so -5 and 5 at every token
    algorithm = AlgorithmConfig(advantage_estimator="reinforce_baseline")
    first, second = group_advantages([0.0, 50.0], OLD, None, algorithm=algorithm, kl_coef=0.1)
    assert (first.tolist(), second.tolist()) == ([-5.0, -5.0], [5.0])


def test_kl_is_taken_from_the_reward_of_each_token():
    # k1 = old - ref = (0.5, -1), (0); at 0.1: token rewards (-0.05, 0.1 + 2) and (4); gamma 1 sums up what follows
    algorithm = AlgorithmConfig(advantage_estimator="reinforce", kl_estimator="k1")
    first, second = group_advantages([2.0, 4.0], OLD, REF, algorithm=algorithm, kl_coef=0.1)
    assert first.tolist() == pytest.approx([2.05, 2.1])
    assert second.tolist() == [4.0]


def test_a_kl_term_in_the_loss_leaves_the_reward_alone():
    algorithm = AlgorithmConfig(advantage_estimator="reinforce", use_kl_loss=True)
    first, second = group_advantages([2.0, 4.0], OLD, REF, algorithm=algorithm, kl_coef=0.1)
    assert (first.tolist(), second.tolist()) == ([2.0, 2.0], [4.0])


def test_whitening_over_tokens():
    # tokens 1, 3 and 5: mean 3, variance 8/3
    values = [torch.tensor([1.0, 3.0]), torch.tensor([5.0])]
    assert whitening_sums(values) == {"count": 3, "total": 9, "square_total": 35}
    first, second = whiten(values, **whitening_sums(values))
    assert first.tolist() == pytest.approx([-2 / math.sqrt(8 / 3), 0.0], abs=1e-6)
    assert second.tolist() == pytest.approx([2 / math.sqrt(8 / 3)], abs=1e-6)


def test_adaptive_controller_moves_towards_the_target_in_bounded_steps():
    controller = make_kl_controller(0.1, target=2.0)
    assert isinstance(controller, AdaptiveKLController)
    controller.update(2.2, num_samples=1000)  # 10 % above: 0.1 * (1 + 0.1 * 1000 / 10000)
    assert controller.value == pytest.approx(0.101)
    controller.update(100.0, num_samples=1000)  # far above: 20 % at most
    assert controller.value == pytest.approx(0.101 * 1.02)
    controller.update(0.0, num_samples=1000)
    assert controller.value == pytest.approx(0.101 * 1.02 * 0.98)


def test_without_a_target_the_coefficient_stays():
    controller = make_kl_controller(0.1, target=None)
    controller.update(100.0, num_samples=1000)
    assert controller.value == 0.1
