"""Collectives of plain Python values over all ranks of the process group (gloo or NCCL, one rank or many).

Every rank has to call them, in the same order; under dicts, with the same keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist

from openrlhf.utils.devices import current_device, device_type

T = TypeVar("T")
NumbersT = TypeVar("NumbersT", float, dict[str, float])
ReduceOp = Literal["mean", "sum", "max"]


def all_reduce(value: NumbersT, op: ReduceOp = "mean") -> NumbersT:
    """Mean, sum or maximum over the ranks of a number, or of each number of a dict. In fp64, in one collective."""
    if not isinstance(value, dict):
        return all_reduce({"value": value}, op)["value"]
    names = sorted(value)
    numbers = torch.tensor([float(value[name]) for name in names], dtype=torch.float64, device=current_device())
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX if op == "max" else dist.ReduceOp.SUM)
    if op == "mean":
        numbers /= dist.get_world_size()
    return dict(zip(names, numbers.tolist(), strict=True))


def all_gather_object(value: T) -> list[T]:
    """Every rank's value, in rank order."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast_object(value: T, src: int = 0) -> T:
    """The value of rank `src`; what the other ranks pass is not looked at."""
    values = [value]
    dist.broadcast_object_list(values, src=src, device=current_device())
    return values[0]


def barrier() -> None:
    """Waits until every rank is here."""
    dist.barrier(device_ids=[torch.cuda.current_device()] if device_type() == "cuda" else None)


def raise_everywhere(work: Callable[[], T], *, only_rank: int | None = None) -> T | None:
    """Runs `work` on every rank, or on one; what it raises on any rank is raised on all.

    So a failure ends a collective phase everywhere, instead of leaving the others in their next collective. Only
    OSError and ValueError are passed around, the others are faults that end their process.
    Returns the result of this rank's `work`, None where it did not run.
    """
    result: T | None = None
    failure: Exception | None = None
    try:
        if only_rank in (None, dist.get_rank()):
            result = work()
    except (OSError, ValueError) as error:
        failure = error
    for of_rank in all_gather_object(failure):
        if of_rank is not None:
            raise of_rank
    return result
