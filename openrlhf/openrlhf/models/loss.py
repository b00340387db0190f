"""The policy-gradient loss over a shared-prefix batch, and the KL estimators: pure functions of tensors.

Shapes: L labels (response tokens) of S samples, `label_samples` (L,) says which sample a label belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openrlhf.config import KLEstimator

MAX_LOG_RATIO = 60.0
"""A log-ratio is clamped here before it is exponentiated, and its gradient is 0 beyond. exp overflows fp32 at 88.7;
exp(60) = 1e26 leaves room for products with advantages and for sums over tokens."""


@dataclass(frozen=True, kw_only=True)
class PolicyLossInputs:
    """What the clipped surrogate needs, one entry a response token."""

    logprobs: Tensor
    """(L,) of the current policy, with gradient."""
    old_logprobs: Tensor
    """(L,) of the policy at the start of the update."""
    advantages: Tensor
    """(L,)."""
    label_samples: Tensor
    """(L,) long."""
    num_samples: int
    ref_logprobs: Tensor | None = None
    """(L,) of the reference model; needed for a KL term in the loss."""


@dataclass(frozen=True, kw_only=True)
class PolicyLossOutput:
    """Sums over the batch's samples, so that micro-batches of any size add up; divide by the number of samples once."""

    loss_sum: Tensor
    """Scalar with gradient: sum over samples of (policy loss + KL coefficient x KL)."""
    metric_sums: dict[str, Tensor]
    """Scalars without gradient: sums over samples of each metric's mean over the sample's tokens."""


def policy_loss(
    inputs: PolicyLossInputs, *, eps_clip: float, kl_coef: float, kl_estimator: KLEstimator
) -> PolicyLossOutput:
    """Clipped surrogate of PPO (Schulman et al. 2017, eq. 7), mean over a response's tokens, summed over responses.

    With `ref_logprobs`, kl_coef x KL(policy, reference) per token is added, as in GRPO (Shao et al. 2024, eq. 3).
    Tokens whose log-ratio had to be clamped are counted in `log_ratio_clamped_frac`.
    """
    log_ratio = inputs.logprobs - inputs.old_logprobs  # (L,)
    ratio = log_ratio.clamp(max=MAX_LOG_RATIO).exp()
    overflows = log_ratio > MAX_LOG_RATIO
    unclipped = ratio * inputs.advantages
    clipped = ratio.clamp(1 - eps_clip, 1 + eps_clip) * inputs.advantages
    token_loss = -torch.minimum(unclipped, clipped)  # (L,)
    metrics = {
        "policy_loss": token_loss,
        "clip_frac": (clipped < unclipped).float(),
        "ratio": ratio,
        "approx_kl": estimate_kl(-log_ratio, "k3"),  # KL(old || current): samples come from the old policy
    }
    if inputs.ref_logprobs is not None:
        ref_log_ratio = inputs.logprobs - inputs.ref_logprobs
        kl = estimate_kl(ref_log_ratio, kl_estimator)
        if kl_estimator == "k3":
            overflows |= ref_log_ratio < -MAX_LOG_RATIO
        metrics["kl_loss"] = kl
        token_loss = token_loss + kl_coef * kl
    metrics["log_ratio_clamped_frac"] = overflows.float()
    per_sample = {name: _mean_per_sample(value.detach(), inputs).sum() for name, value in metrics.items()}
    return PolicyLossOutput(loss_sum=_mean_per_sample(token_loss, inputs).sum(), metric_sums=per_sample)


def estimate_kl(log_ratio: Tensor, estimator: KLEstimator) -> Tensor:
    """Per-token estimate of KL(p || q) from d = log p - log q at tokens sampled from p (Schulman 2020).

    k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d, with d at least -MAX_LOG_RATIO.
    """
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2
    clamped = log_ratio.clamp(min=-MAX_LOG_RATIO)
    return torch.exp(-clamped) - 1 + clamped


def _mean_per_sample(values: Tensor, inputs: PolicyLossInputs) -> Tensor:
    """(L,) -> (S,): mean over each sample's tokens."""
    sums = values.new_zeros(inputs.num_samples).index_add(0, inputs.label_samples, values)
    counts = torch.bincount(inputs.label_samples, minlength=inputs.num_samples)
    return sums / counts
