"""Advantages: from one reward a sample to one advantage a token. Pure functions, no models.

G samples of one prompt (a group), R tokens of a response.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from openrlhf.config import AdvantageEstimator, AlgorithmConfig
from openrlhf.models.loss import estimate_kl

EPSILON = 1e-9
"""Upstream's, of everything that is divided by a standard deviation."""

# REINFORCE++ (Hu 2025) and its baseline form whiten the advantages over the whole rollout; the others do not.
NORMALISED_OVER_ROLLOUT = frozenset({"reinforce", "reinforce_baseline"})


# Their advantages are differences within a group: equal rewards give none.
COMPARED_WITHIN_GROUP = frozenset({"group_norm", "rloo", "reinforce_baseline"})


def shape_rewards(rewards: Tensor, estimator: AdvantageEstimator, *, eps: float = EPSILON) -> Tensor:
    """Compares each reward of a group with the others: (G,) -> (G,).

    group_norm: (r - mean) / (std + eps), std with n - 1 (GRPO, Shao et al. 2024);
    rloo: r - mean of the others (Ahmadian et al. 2024); reinforce_baseline: r - mean (Hu 2025); reinforce: r.
    With upstream's eps of 1e-9 group_norm makes advantages of +-2 out of any noise; `--advantage_eps` is above the
    scorer's. In float64: in float32 the mean of three rewards of 0.9 is off by 6e-8, and so is their std; with 1e-9 an
    advantage of 0.8 came out of a group that has nothing to teach.
    """
    rewards = rewards.double()
    if estimator == "reinforce":
        return rewards
    if rewards.numel() < 2:
        raise ValueError(f"{estimator} compares the samples of a prompt: it needs at least 2, got {rewards.numel()}")
    if estimator == "rloo":
        return rewards - (rewards.sum() - rewards) / (rewards.numel() - 1)
    centred = rewards - rewards.mean()
    return centred if estimator == "reinforce_baseline" else centred / (rewards.std() + eps)


def clip_rewards(rewards: Sequence[float], clip_range: tuple[float, float]) -> list[float]:
    low, high = clip_range
    return [min(max(reward, low), high) for reward in rewards]


def group_advantages(
    rewards: Sequence[float],
    old_logprobs: Sequence[Tensor],
    ref_logprobs: Sequence[Tensor] | None,
    *,
    algorithm: AlgorithmConfig,
    kl_coef: float,
) -> list[Tensor]:
    """One group's rewards (G,) -> G tensors (R,), one advantage a token, before any whitening over the rollout.

    Rewards are clipped to `reward_clip_range` and compared within the group. With `ref_logprobs`, and unless the KL
    term is in the loss, kl_coef x KL is taken from each token's reward. `old_logprobs`, `ref_logprobs`: (R,) a sample.
    """
    clipped = torch.tensor(clip_rewards(rewards, algorithm.reward_clip_range), dtype=torch.float64)
    shaped = shape_rewards(clipped, algorithm.advantage_estimator, eps=algorithm.advantage_eps).tolist()
    if ref_logprobs is None or algorithm.use_kl_loss:
        kls = [torch.zeros_like(old) for old in old_logprobs]
    else:
        pairs = zip(old_logprobs, ref_logprobs, strict=True)
        kls = [estimate_kl(old - ref, algorithm.kl_estimator) for old, ref in pairs]
    return [
        token_returns(reward, kl, kl_coef=kl_coef, gamma=algorithm.gamma)
        for reward, kl in zip(shaped, kls, strict=True)
    ]


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


def whitening_sums(values: Sequence[Tensor]) -> dict[str, float]:
    """What `whiten` needs of one rank's tokens; the sums of all ranks add up. In float64."""
    flat = [tokens.double() for tokens in values]
    return {
        "count": float(sum(tokens.numel() for tokens in flat)),
        "total": float(sum(tokens.sum().item() for tokens in flat)),
        "square_total": float(sum(tokens.square().sum().item() for tokens in flat)),
    }


def whiten(values: Sequence[Tensor], *, count: float, total: float, square_total: float) -> list[Tensor]:
    """(v - mean) / std over all tokens of a rollout, from sums added up over all ranks. In float64, to fp32."""
    mean = total / count
    variance = max(square_total / count - mean**2, 0.0)
    return [((value.double() - mean) / (variance + EPSILON) ** 0.5).float() for value in values]
