"""Whole parameters out of models that ZeRO-3 may hold in parts, and buffers that it damages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from openrlhf.utils.deepspeed.library import import_deepspeed


@contextmanager
def gather_params(params: Iterable[nn.Parameter]) -> Iterator[None]:
    """Within: every rank holds these parameters whole, to read. A collective under ZeRO-3, nothing to do below it."""
    partitioned = [parameter for parameter in params if hasattr(parameter, "ds_id")]
    if not partitioned:
        yield
        return
    with import_deepspeed().zero.GatheredParameters(partitioned, modifier_rank=None):
        yield


def named_parameter_buckets(model: nn.Module, max_bytes: int) -> Iterator[list[tuple[str, nn.Parameter]]]:
    """The model's parameters in order, in runs of at most `max_bytes` when whole (one parameter may be larger).

    The names are the model's own, tied parameters come once, and every rank gets the same buckets.
    """
    bucket: list[tuple[str, nn.Parameter]] = []
    num_bytes = 0
    for name, parameter in model.named_parameters():
        size = full_numel(parameter) * parameter.element_size()
        if bucket and num_bytes + size > max_bytes:
            yield bucket
            bucket, num_bytes = [], 0
        bucket.append((name, parameter))
        num_bytes += size
    if bucket:
        yield bucket


def full_numel(parameter: nn.Parameter) -> int:
    """Number of elements of the whole parameter, also while ZeRO-3 holds only a part of it here."""
    return getattr(parameter, "ds_numel", parameter.numel())


def full_state_dict(model: nn.Module, *, keep: bool, bucket_bytes: int = 2**30) -> dict[str, Tensor]:
    """The whole model's parameters and persistent buffers on the CPU, gathered bucket by bucket.

    Every rank of a ZeRO-3 group has to call it; those that do not `keep` the result get an empty dict.
    Tied parameters are there once.
    """
    parameter_names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    state: dict[str, Tensor] = {}
    for bucket in named_parameter_buckets(model, bucket_bytes):
        with gather_params(parameter for _, parameter in bucket):
            if keep:
                state.update({name: parameter.detach().to("cpu", copy=True) for name, parameter in bucket})
    if keep:
        buffers = {name: value for name, value in model.state_dict().items() if name not in parameter_names}
        state.update({name: value.to("cpu", copy=True) for name, value in buffers.items()})
    return state


def restore_rotary_buffers(model: nn.Module) -> None:
    """Recomputes rotary frequencies in fp32, in place.

    A bf16 model that is built partitioned (zero.Init) has its buffers cast to bf16 too, the rotary `inv_freq` among
    them, which shifts every position's angle (loss 1.2493 instead of 1.2626 on a 135M model). They are not in
    checkpoints, so each rotary module is built once more from its config and its buffers are taken.
    """
    for module in model.modules():
        buffers = dict(module.named_buffers(recurse=False))
        damaged = [name for name, buffer in buffers.items() if "inv_freq" in name and buffer.dtype != torch.float32]
        if damaged:
            fresh = type(module)(module.config)
            for name in damaged:
                setattr(module, name, getattr(fresh, name).to(buffers[name].device))
