"""Advantages: from one reward a sample to one advantage a token. Pure functions, no models.

G samples of one prompt (a group), R tokens of a response.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from openrlhf.config import AdvantageEstimator

EPSILON = 1e-9

# REINFORCE++ (Hu 2025) and its baseline form whiten the advantages over the whole rollout; the others do not.
NORMALISED_OVER_ROLLOUT = frozenset({"reinforce", "reinforce_baseline"})


def shape_rewards(rewards: Tensor, estimator: AdvantageEstimator) -> Tensor:
    """Compares each reward of a group with the others: (G,) -> (G,).

    group_norm: (r - mean) / (std + 1e-9), std with n - 1 (GRPO, Shao et al. 2024);
    rloo: r - mean of the others (Ahmadian et al. 2024); reinforce_baseline: r - mean (Hu 2025); reinforce: r.
    In float64: in float32 the mean of three rewards of 0.9 is off by 6e-8, and so is their std; group_norm would make
    an advantage of 0.8 out of a group that has nothing to teach.
    """
    rewards = rewards.double()
    if estimator == "reinforce":
        return rewards
    if rewards.numel() < 2:
        raise ValueError(f"{estimator} compares the samples of a prompt: it needs at least 2, got {rewards.numel()}")
    if estimator == "rloo":
        return rewards - (rewards.sum() - rewards) / (rewards.numel() - 1)
    centred = rewards - rewards.mean()
    return centred if estimator == "reinforce_baseline" else centred / (rewards.std() + EPSILON)


def token_returns(shaped_reward: float, kl: Tensor, *, kl_coef: float, gamma: float) -> Tensor:
    """Discounted return at each token of one response: (R,) -> (R,).

    The reward of token t is -kl_coef * kl_t, plus the sample's shaped reward at the last token;
    return_t = reward_t + gamma * return_{t+1}.
    """
    rewards = (-kl_coef * kl).tolist()  # plain floats: a loop over tensor elements would cost seconds a step
    rewards[-1] += shaped_reward
    returns, following = [], 0.0
    for reward in reversed(rewards):
        following = reward + gamma * following
        returns.append(following)
    return torch.tensor(returns[::-1], dtype=kl.dtype)


def whiten(values: Sequence[Tensor], *, count: float, total: float, square_total: float) -> list[Tensor]:
    """(v - mean) / std over all tokens of a rollout, from sums that were added up over all ranks."""
    mean = total / count
    variance = max(square_total / count - mean**2, 0.0)
    return [(value - mean) / (variance + EPSILON) ** 0.5 for value in values]
