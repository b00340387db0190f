"""What travels through one training step: prompts, their sampled responses, rewards and training targets.

A *group* is all samples of one prompt; G is its size, R a response's length in tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from openrlhf.models.shared_prefix import LabeledSequence


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt as the policy sees it, with the datapoint that its reward is computed from."""

    index: int
    """Position in its dataset: stable over epochs and ranks."""
    text: str
    """What the user asked, before the chat template."""
    token_ids: list[int]
    """With the chat template and the generation prompt."""
    datapoint: dict[str, Any] = field(default_factory=dict)
    """Plain data that the reward may need; for VR-CLI the row of the baseline map."""
    datapoint_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One sampled response."""

    token_ids: list[int]
    """(R,), end-of-turn included when the model wrote one; never empty."""
    logprobs: list[float]
    """(R,) of the sampling policy at the sampling temperature."""
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
class Rewards:
    """The reward of each sample of a group, and numbers worth logging beside it."""

    rewards: list[float]
    """(G,)."""
    metrics: dict[str, list[float]] = field(default_factory=dict)
    """name -> (G,); logged as means."""


@dataclass(frozen=True, kw_only=True)
class Experience:
    """A group with everything that its update needs; the lists hold one (R,) fp32 CPU tensor a sample."""

    samples: Samples
    rewards: Rewards
    old_logprobs: list[Tensor]
    ref_logprobs: list[Tensor] | None
    """None when no KL term is used."""
    advantages: list[Tensor]
