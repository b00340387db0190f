"""Attention masks of shared-prefix batches, in the form that each attention implementation wants."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from openrlhf.models.shared_prefix import PREFIX_SEGMENT, SharedPrefixBatch

# FlexAttention works in blocks of 128; rounding T up to a coarser step keeps the number of compiled shapes small.
FLEX_LENGTH_MULTIPLE = 512


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
    """(T,) -> `BlockMask` of the same mask. T must be a multiple of 128."""

    def shared_prefix(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = segment_ids[query] == segment_ids[key]
        return (query >= key) & (same | (segment_ids[key] == PREFIX_SEGMENT))

    length = segment_ids.numel()
    return _compiled_create_block_mask()(shared_prefix, None, None, length, length, device=segment_ids.device)


@functools.cache
def _compiled_create_block_mask() -> Any:
    """Compiled, so that the dense T x T mask it reduces to blocks is never stored."""
    from torch.nn.attention.flex_attention import create_block_mask

    return torch.compile(create_block_mask)
