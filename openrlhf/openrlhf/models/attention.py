"""Attention masks of shared-prefix batches, in the form that each attention implementation wants."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from openrlhf.models.shared_prefix import PADDING_SEGMENT, PREFIX_SEGMENT, SharedPrefixBatch

FLEX_BLOCK = 128
"""Tokens a side of a FlexAttention block."""
FLEX_LENGTH_MULTIPLE = 512
"""T is rounded up to a multiple: FlexAttention compiles for shapes, so few of them must occur."""


def attention_mask(batch: SharedPrefixBatch, implementation: str) -> Any:
    """The mask for `attn_implementation`: a `BlockMask` for flex_attention, else a dense bool mask (1, 1, T, T).

    None means plain causal attention, which is what a batch of one segment needs: the kernels' fast path.
    """
    if implementation == "flex_attention":
        return flex_block_mask(batch.segment_ids)
    if batch.num_samples <= 1 and bool((batch.segment_ids >= PREFIX_SEGMENT).all()):
        return None
    return dense_mask(batch.segment_ids)


def dense_mask(segment_ids: Tensor) -> Tensor:
    """(T,) -> (1, 1, T, T) bool, True where query (row) may attend to key (column)."""
    query, key = segment_ids[:, None], segment_ids[None, :]
    index = torch.arange(segment_ids.numel(), device=segment_ids.device)
    causal = index[:, None] >= index[None, :]
    return (causal & ((key == query) | (key == PREFIX_SEGMENT)))[None, None]


def flex_block_mask(segment_ids: Tensor) -> Any:
    """(T,) -> `BlockMask` of the same mask. T must be a multiple of `FLEX_BLOCK`.

    Segments are contiguous, so what a block of queries may see of a block of keys follows from each block's first and
    last segment. torch's own `create_block_mask` evaluates T x T entries, or compiles anew for every mask.
    """
    from torch.nn.attention.flex_attention import BlockMask

    def shared_prefix(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = segment_ids[query] == segment_ids[key]
        return (query >= key) & (same | (segment_ids[key] == PREFIX_SEGMENT))

    some, every = block_visibility(segment_ids)
    partial_count, partial_indices = _block_lists(some & ~every)
    full_count, full_indices = _block_lists(every)
    length = segment_ids.numel()
    return BlockMask.from_kv_blocks(
        partial_count,
        partial_indices,
        full_count,
        full_indices,
        BLOCK_SIZE=FLEX_BLOCK,
        mask_mod=shared_prefix,
        seq_lengths=(length, length),
    )


def block_visibility(segment_ids: Tensor) -> tuple[Tensor, Tensor]:
    """(T,) -> two (N, N) bool matrices over blocks of queries (rows) and keys, N = T / FLEX_BLOCK.

    The first says whether any query of the block may attend to any key of the other (never false where one may), the
    second whether all queries may attend to all keys (never true where one may not).
    """
    last_segment = segment_ids.max()
    ordered = torch.where(segment_ids == PADDING_SEGMENT, last_segment + 1, segment_ids).view(-1, FLEX_BLOCK)
    low, high = ordered[:, 0], ordered[:, -1]  # (N,)
    index = torch.arange(low.numel(), device=segment_ids.device)
    before = index[:, None] > index[None, :]
    meets = (low[None, :] == PREFIX_SEGMENT) | (high[None, :] >= low[:, None])
    one_segment = (low == high)[:, None] & (low == high)[None, :] & (low[:, None] == low[None, :])
    some = (before & meets) | torch.eye(low.numel(), dtype=torch.bool, device=segment_ids.device)
    return some, before & ((high == PREFIX_SEGMENT)[None, :] | one_segment)


def _block_lists(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """(N, N) bool -> how many key blocks each query block visits (1, 1, N), and which, first (1, 1, N, N); int32."""
    counts = blocks.sum(dim=-1, dtype=torch.int32)
    indices = blocks.to(torch.int8).argsort(dim=-1, descending=True, stable=True).to(torch.int32)
    return counts[None, None], indices[None, None]
