"""The one way to get a seed from the run's: from the run's seed, what it is for, and which one of those.

A seed depends on nothing else, so a resumed run, or one on another number of ranks, draws the same.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a seed is for. Part of the seed: a number must not change, or runs are no longer repeated."""

    TRAIN_ROLLOUT = 0
    """step, prompt index."""
    EVAL_ROLLOUT = 1
    """step, prompt index."""
    DATA_ORDER = 2
    """episode."""
    UPDATE_ORDER = 3
    """step, epoch."""
    RANK = 4
    """rank: what may differ between ranks, such as dropout."""
    BOOTSTRAP = 5
    """No path: every interval of a run is of the same draws."""


def derive_seed(seed: int, stream: Stream, *path: int) -> int:
    """A 32-bit seed, independent of those of other streams and paths (NumPy's SeedSequence)."""
    return int(np.random.SeedSequence([seed, stream, *path]).generate_state(1)[0])
