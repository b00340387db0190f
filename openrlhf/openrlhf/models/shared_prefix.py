"""Shared-prefix batches: one packed sequence that holds a group's common prefix once and then every segment.

    token     p0 p1 p2 | a0 a1 | b0 b1 b2 | (padding)
    segment    0  0  0    1  1    2  2  2     -1
    position   0  1  2    3  4    3  4  5      0

A token attends to the prefix and to its own segment, up to itself. Positions restart after the prefix, so every
segment sees exactly what it would see alone behind the prefix: values and gradients equal the one-by-one ones.
The same structure serves scoring (labels = gold span), reference and old log-probs, and training (labels = response).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

PREFIX_SEGMENT = 0
PADDING_SEGMENT = -1


@dataclass(frozen=True, kw_only=True)
class LabeledSequence:
    """Token ids of which `token_ids[label_start:]` are labels, each predicted from all tokens before it."""

    token_ids: list[int]
    label_start: int

    def __post_init__(self) -> None:
        if not 1 <= self.label_start < len(self.token_ids):
            raise ValueError(
                f"label_start must lie in [1, {len(self.token_ids)}), got {self.label_start}: "
                "a labeled sequence needs at least one token before its first label and one label"
            )


@dataclass(frozen=True, kw_only=True)
class SharedPrefixBatch:
    """One packed sequence of T tokens with L labels from `len(sample_indices)` samples."""

    input_ids: Tensor
    """(T,) long."""
    position_ids: Tensor
    """(T,) long, restarting after the prefix."""
    segment_ids: Tensor
    """(T,) long: 0 prefix, k = 1, 2, ... the k-th segment, -1 padding."""
    label_positions: Tensor
    """(L,) long: index into T of the hidden state that predicts the label."""
    labels: Tensor
    """(L,) long: token ids; the labels of one sample are contiguous and in order."""
    label_samples: Tensor
    """(L,) long: which entry of `sample_indices` a label belongs to."""
    sample_indices: tuple[int, ...]
    """Which of the sequences given to `pack_shared_prefix` are in here."""

    @classmethod
    def empty(cls) -> SharedPrefixBatch:
        """A batch of one token and no labels: what a rank with no work left runs to stay in step with its peers."""
        zero, none = torch.zeros(1, dtype=torch.long), torch.zeros(0, dtype=torch.long)
        return cls(
            input_ids=zero,
            position_ids=zero,
            segment_ids=zero,
            label_positions=none,
            labels=none,
            label_samples=none,
            sample_indices=(),
        )

    @property
    def num_tokens(self) -> int:
        """T, padding included."""
        return self.input_ids.numel()

    @property
    def num_samples(self) -> int:
        return len(self.sample_indices)

    def to(self, device: torch.device | str) -> SharedPrefixBatch:
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            segment_ids=self.segment_ids.to(device),
            label_positions=self.label_positions.to(device),
            labels=self.labels.to(device),
            label_samples=self.label_samples.to(device),
        )

    def padded(self, multiple: int) -> SharedPrefixBatch:
        """The same batch with T rounded up to a multiple. Nothing attends to the padding."""
        padding = -self.num_tokens % multiple
        return replace(
            self,
            input_ids=F.pad(self.input_ids, (0, padding)),
            position_ids=F.pad(self.position_ids, (0, padding)),
            segment_ids=F.pad(self.segment_ids, (0, padding), value=PADDING_SEGMENT),
        )

    def halved(self) -> tuple[SharedPrefixBatch, SharedPrefixBatch]:
        """Two batches with half of the samples each, in order and without padding. Raises ValueError below two samples.

        What both give for their labels, one after the other, is what this batch gives for its own.
        """
        if self.num_samples < 2:
            raise ValueError(f"a batch of {self.num_samples} samples has no halves")
        middle = (self.num_samples + 1) // 2
        return self._of_samples(0, middle), self._of_samples(middle, self.num_samples)

    def _of_samples(self, first: int, end: int) -> SharedPrefixBatch:
        """The batch of the samples from `first` up to `end`."""
        of_segments = (self.segment_ids > first) & (self.segment_ids <= end)
        tokens = of_segments | (self.segment_ids == PREFIX_SEGMENT)  # (T,)
        labels = (self.label_samples >= first) & (self.label_samples < end)  # (L,)
        new_index = tokens.cumsum(0) - 1  # (T,)
        segment_ids = self.segment_ids[tokens]
        return SharedPrefixBatch(
            input_ids=self.input_ids[tokens],
            position_ids=self.position_ids[tokens],
            segment_ids=torch.where(segment_ids == PREFIX_SEGMENT, segment_ids, segment_ids - first),
            label_positions=new_index[self.label_positions[labels]],
            labels=self.labels[labels],
            label_samples=self.label_samples[labels] - first,
            sample_indices=self.sample_indices[first:end],
        )

    def sum_per_sample(self, values: Tensor) -> Tensor:
        """Sums per-label values (L,) within each sample: (num_samples,), in the order of `sample_indices`."""
        return values.new_zeros(self.num_samples).index_add(0, self.label_samples, values)

    def split_per_sample(self, values: Tensor) -> list[Tensor]:
        """Splits per-label values (L,) into one tensor a sample, in the order of `sample_indices`."""
        counts = torch.bincount(self.label_samples, minlength=self.num_samples).tolist()
        return list(values.split(counts))


def pack_shared_prefix(sequences: Sequence[LabeledSequence], *, max_tokens: int) -> list[SharedPrefixBatch]:
    """Packs sequences that share a prefix into as few batches as `max_tokens` allows.

    The prefix is the longest one that all sequences share, ending before the first label. Sequences keep their order.
    A sequence that is longer than `max_tokens` by itself still gets a batch of its own: nothing is dropped or cut.
    """
    if not sequences:
        return []
    prefix_length = common_prefix_length(sequences)
    batches: list[SharedPrefixBatch] = []
    chosen: list[int] = []
    num_tokens = prefix_length
    for index, sequence in enumerate(sequences):
        segment_length = len(sequence.token_ids) - prefix_length
        if chosen and num_tokens + segment_length > max_tokens:
            batches.append(_pack(sequences, tuple(chosen), prefix_length))
            chosen, num_tokens = [], prefix_length
        chosen.append(index)
        num_tokens += segment_length
    batches.append(_pack(sequences, tuple(chosen), prefix_length))
    return batches


def common_prefix_length(sequences: Sequence[LabeledSequence]) -> int:
    """Length of the longest prefix that all sequences share, capped so that it holds no label and no whole sequence."""
    limit = min(sequence.label_start for sequence in sequences)
    first = sequences[0].token_ids
    for sequence in sequences[1:]:
        if sequence.token_ids[:limit] != first[:limit]:
            limit = next(i for i, (a, b) in enumerate(zip(first, sequence.token_ids, strict=False)) if a != b)
    if limit == 0:
        raise ValueError("the sequences of a shared-prefix batch must share at least their first token")
    return limit


def _pack(sequences: Sequence[LabeledSequence], indices: tuple[int, ...], prefix_length: int) -> SharedPrefixBatch:
    input_ids = list(sequences[indices[0]].token_ids[:prefix_length])
    position_ids = list(range(prefix_length))
    segment_ids = [PREFIX_SEGMENT] * prefix_length
    label_positions: list[int] = []
    labels: list[int] = []
    label_samples: list[int] = []
    for slot, index in enumerate(indices):
        sequence = sequences[index]
        length = len(sequence.token_ids)
        offset = len(input_ids) - prefix_length  # packed index = position in the sequence + offset, past the prefix
        for position in range(sequence.label_start, length):
            predictor = position - 1
            label_positions.append(predictor if predictor < prefix_length else predictor + offset)
        labels.extend(sequence.token_ids[sequence.label_start :])
        label_samples.extend([slot] * (length - sequence.label_start))
        input_ids.extend(sequence.token_ids[prefix_length:])
        position_ids.extend(range(prefix_length, length))
        segment_ids.extend([slot + 1] * (length - prefix_length))
    return SharedPrefixBatch(
        input_ids=torch.tensor(input_ids),
        position_ids=torch.tensor(position_ids),
        segment_ids=torch.tensor(segment_ids),
        label_positions=torch.tensor(label_positions),
        labels=torch.tensor(labels),
        label_samples=torch.tensor(label_samples),
        sample_indices=indices,
    )
