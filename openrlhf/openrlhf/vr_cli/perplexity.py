"""Likelihood of a gold span, its perplexity, and the improvement that a plan brings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from openrlhf.models.shared_prefix import SharedPrefixBatch

MAX_MEAN_NLL = 700.0
"""exp() overflows a double beyond 709 nats; a language model gives some 10 to pure noise."""


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """Negative log-likelihood of a gold span in nats: the sum over its tokens, and how many there are."""

    nll_sum: float
    num_tokens: int

    def __post_init__(self) -> None:
        if self.num_tokens < 1:
            raise ValueError(f"a gold span needs at least one token, got {self.num_tokens}")
        if not math.isfinite(self.nll_sum) or self.mean_nll > MAX_MEAN_NLL:
            raise ValueError(
                f"the NLL of {self.num_tokens} gold tokens is {self.nll_sum}: the scoring model's output is broken"
            )

    @property
    def mean_nll(self) -> float:
        """Nats per token."""
        return self.nll_sum / self.num_tokens

    @property
    def perplexity(self) -> float:
        """exp(sum of gold NLL / number of gold tokens)."""
        return math.exp(self.mean_nll)


def gold_likelihoods(batch: SharedPrefixBatch, logprobs: Tensor) -> list[Likelihood]:
    """One likelihood for each sample of a batch whose labels are gold spans, in the order of `sample_indices`.

    Args:
        logprobs: (L,) log-probs of the batch's labels, as `shared_prefix_logprobs` returns them.
    """
    return [gold_likelihood(values) for values in batch.split_per_sample(logprobs.detach())]


def gold_likelihood(logprobs: Tensor) -> Likelihood:
    """The likelihood of one gold span from the log-probs (L,) of its tokens. Summed in float64."""
    return Likelihood(nll_sum=-logprobs.double().sum().item(), num_tokens=logprobs.numel())


def improvement_pct(baseline: Likelihood, planned: Likelihood) -> float:
    """How much lower the perplexity is with the plan: 100 * (baseline_ppl - planned_ppl) / baseline_ppl, in percent.

    Source: Gurung & Lapata 2025 (arXiv 2503.22828), VR-CLI. At most 100; negative where the plan hurts.
    """
    return 100.0 * (baseline.perplexity - planned.perplexity) / baseline.perplexity
