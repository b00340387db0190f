"""Keeping ranks in step: under ZeRO-3 every rank must run the same number of forwards, or the group hangs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from openrlhf.utils.deepspeed.collectives import all_reduce

T = TypeVar("T")


def in_lockstep(items: Sequence[T], empty: T) -> Iterator[tuple[T, bool]]:
    """Yields `(item, is_last)` for this rank's items and then `empty`, as often as the rank with the most items needs.

    Collective: every rank of the process group calls it.
    """
    count = int(all_reduce(len(items), op="max"))
    for index in range(count):
        yield (items[index] if index < len(items) else empty), index == count - 1
