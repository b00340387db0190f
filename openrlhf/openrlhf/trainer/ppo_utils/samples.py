"""What travels through one training step: prompts, their sampled responses, rewards and training targets.

A *group* is all samples of one prompt; G is its size, R a response's length in tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from openrlhf.datasets.prompt import Prompt
from openrlhf.models.shared_prefix import LabeledSequence
from openrlhf.vr_cli.rewards import Rewards

__all__ = ["Completion", "ControlScore", "Experience", "Prompt", "Rewards", "Samples"]


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One sampled response."""

    token_ids: list[int]
    """(R,), end-of-turn included when the model wrote one; never empty."""
    logprobs: list[float] | None
    """(R,) of the sampling policy at the sampling temperature; None where nobody asked for them."""
    finish_reason: str
    """`stop`, or `length` when it was cut."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """A prompt and its G sampled responses."""

    prompt: Prompt
    completions: list[Completion]
    responses: list[str]
    """(G,) decoded, without special tokens."""

    def labeled_sequences(self) -> list[LabeledSequence]:
        """(G,) prompt + response, labels on the response: what log-probs and training pack."""
        prompt = self.prompt.token_ids
        return [LabeledSequence(token_ids=prompt + c.token_ids, label_start=len(prompt)) for c in self.completions]


@dataclass(frozen=True, kw_only=True)
class ControlScore:
    """What a plan that nobody had to learn is worth for one prompt of the evaluation split."""

    prompt_index: int
    datapoint_id: str | None
    control: str
    """Which kind of plan: a name for metrics."""
    plan: str
    reward: float
    metrics: dict[str, float]
    """The same names as those of the prompts' samples."""

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "metrics"}
        return {**own, **self.metrics}


@dataclass(frozen=True, kw_only=True)
class Experience:
    """A group with everything that its update needs; the lists hold one (R,) fp32 CPU tensor a sample."""

    samples: Samples
    rewards: Rewards
    old_logprobs: list[Tensor]
    ref_logprobs: list[Tensor] | None
    """None when no KL term is used."""
    advantages: list[Tensor]
