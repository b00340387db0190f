"""State of the random number generators of one process: Python, NumPy, torch and its GPU."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from openrlhf.utils.devices import device_type


def set_seed(seed: int) -> None:
    """Seeds Python, NumPy and torch (CPU and GPU)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """The state as tensors and plain values, which `torch.load(..., weights_only=True)` reads."""
    version, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=True)
    _, keys, position, has_gauss, cached_gaussian = numpy_state
    return {
        "python": (version, torch.tensor(words, dtype=torch.int64), gauss),
        "numpy": (torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached_gaussian),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if device_type() == "cuda" else None,
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Continues from a state that `rng_state` returned. The GPU's is skipped where there is none."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    keys, position, has_gauss, cached_gaussian = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached_gaussian))
    torch.set_rng_state(state["torch"])
    if device_type() == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])
