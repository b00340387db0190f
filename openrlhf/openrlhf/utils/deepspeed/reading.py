"""Reads DeepSpeed's files without running what a pickle may contain."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from openrlhf.utils.deepspeed.library import import_deepspeed

FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def load_weights_only(path: str, map_location: Any = None, *, mmap: bool = False) -> Any:
    """`torch.load` of one of DeepSpeed's files: tensors, plain containers, and three of its classes.

    `mmap`: tensors are read where they are used, so that those that are not cost no memory.
    """
    _admit_classes()
    return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)


@contextmanager
def reading_weights_only() -> Iterator[None]:
    """Within: every `torch.load` of this process reads so, also those of DeepSpeed's that ask for the contrary."""
    _admit_classes()
    before = os.environ.get(FORCE)
    os.environ[FORCE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[FORCE]
        else:
            os.environ[FORCE] = before


def _admit_classes() -> None:
    """For good: torch's context manager for it takes the classes away from a block around it, too."""
    import_deepspeed()
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    torch.serialization.add_safe_globals([LossScaler, ZeroStageEnum, fragment_address])
