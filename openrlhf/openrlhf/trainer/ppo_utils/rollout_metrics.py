"""What a rollout adds to the metrics: rewards, lengths, log-probs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from openrlhf.config import KLEstimator
from openrlhf.models.loss import estimate_kl
from openrlhf.trainer.ppo_utils.advantages import clip_rewards
from openrlhf.trainer.ppo_utils.metrics import MeanMetrics
from openrlhf.trainer.ppo_utils.rollout import ScoredSamples
from openrlhf.trainer.ppo_utils.samples import Experience

EQUAL_REWARDS = "equal_reward_groups_frac"


def add_reward_metrics(metrics: MeanMetrics, scored: Sequence[ScoredSamples], clip_range: tuple[float, float]) -> None:
    """Reward, response length and the task's own metrics, as means over samples; the groups' spread over groups.

    `clip_range`: the algorithm's: rewards that it makes equal are.
    """
    for group in scored:
        completions = group.samples.completions
        metrics.add("reward", group.rewards.rewards)
        metrics.add("response_length", [len(c.token_ids) for c in completions])
        metrics.add("truncated_frac", [c.finish_reason == "length" for c in completions])
        for name, values in group.rewards.metrics.items():
            metrics.add(name, values)
        if len(completions) > 1:
            metrics.add("group_reward_std", [float(np.std(group.rewards.rewards, ddof=1))])
            metrics.add(EQUAL_REWARDS, [len(set(clip_rewards(group.rewards.rewards, clip_range))) == 1])


def add_logprob_metrics(metrics: MeanMetrics, experiences: Sequence[Experience], kl_estimator: KLEstimator) -> None:
    """How far vLLM's log-probs are from the policy's (mean over tokens), and the policy from the reference."""
    for experience in experiences:
        for i, completion in enumerate(experience.samples.completions):
            assert completion.logprobs is not None
            old = experience.old_logprobs[i]
            difference = (old - torch.tensor(completion.logprobs)).abs()
            metrics.add_sum("rollout_logprob_diff", difference.sum().item(), difference.numel())
            if experience.ref_logprobs is not None:
                kl = estimate_kl(old - experience.ref_logprobs[i], kl_estimator)
                metrics.add_sum("kl", kl.mean().item(), 1)
