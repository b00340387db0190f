"""How one rollout's experiences are cut into optimizer steps, and each step into packed micro-batches."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openrlhf.models.shared_prefix import SharedPrefixBatch, pack_shared_prefix
from openrlhf.trainer.ppo_utils.finite import describe_samples
from openrlhf.trainer.ppo_utils.samples import Experience


@dataclass(frozen=True, kw_only=True)
class TrainBatch:
    """A packed micro-batch with its targets, one entry a label (L,)."""

    batch: SharedPrefixBatch
    old_logprobs: Tensor
    advantages: Tensor
    ref_logprobs: Tensor | None
    source: str = "no samples"
    """Whose samples these are, for error messages."""

    @classmethod
    def empty(cls, *, with_reference: bool) -> TrainBatch:
        """No samples: what a rank with no work left trains on to stay in step with its peers."""
        none = torch.zeros(0)
        return cls(
            batch=SharedPrefixBatch.empty(),
            old_logprobs=none,
            advantages=none,
            ref_logprobs=none if with_reference else None,
        )


class ReplayBuffer:
    """This rank's experiences of one rollout.

    A sample is `(experience index, sample index)`. Groups are shuffled, samples of a group stay neighbours, so the
    samples of one optimizer step share as many prefixes as they can.
    """

    def __init__(self, experiences: Sequence[Experience]) -> None:
        self.experiences = list(experiences)

    def updates(self, num_updates: int, *, seed: int) -> list[list[tuple[int, int]]]:
        """Cuts the samples into `num_updates` optimizer steps of near-equal size (some may be empty)."""
        order = list(range(len(self.experiences)))
        random.Random(seed).shuffle(order)
        samples = [(e, s) for e in order for s in range(len(self.experiences[e].samples.completions))]
        bounds = [round(i * len(samples) / num_updates) for i in range(num_updates + 1)]
        return [samples[start:end] for start, end in itertools.pairwise(bounds)]

    def micro_batches(self, samples: Sequence[tuple[int, int]], *, max_tokens: int) -> list[TrainBatch]:
        """Packs one optimizer step's samples, group by group."""
        groups: dict[int, list[int]] = {}
        for experience_index, sample_index in samples:
            groups.setdefault(experience_index, []).append(sample_index)
        return [
            train_batch
            for experience_index, sample_indices in groups.items()
            for train_batch in pack_experience(self.experiences[experience_index], sample_indices, max_tokens)
        ]


def pack_experience(experience: Experience, sample_indices: Sequence[int], max_tokens: int) -> list[TrainBatch]:
    """Packs some of a group's samples with their targets."""
    sequences = experience.samples.labeled_sequences()
    batches = pack_shared_prefix([sequences[i] for i in sample_indices], max_tokens=max_tokens)

    def targets(values: list[Tensor], batch: SharedPrefixBatch) -> Tensor:
        return torch.cat([values[sample_indices[i]] for i in batch.sample_indices])

    return [
        TrainBatch(
            batch=batch,
            old_logprobs=targets(experience.old_logprobs, batch),
            advantages=targets(experience.advantages, batch),
            ref_logprobs=None if experience.ref_logprobs is None else targets(experience.ref_logprobs, batch),
            source=describe_samples(experience.samples.prompt, [sample_indices[i] for i in batch.sample_indices]),
        )
        for batch in batches
    ]
