"""A process group of one rank, for benchmarks that train in their own process."""

from __future__ import annotations

import os

from openrlhf.utils import get_strategy
from openrlhf.utils.deepspeed.strategy import DeepspeedStrategy
from openrlhf.utils.network import LOOPBACK, free_port


def one_rank() -> DeepspeedStrategy:
    """Joins the group, on loopback and a free port."""
    port = str(free_port(LOOPBACK))
    os.environ.update(MASTER_ADDR=LOOPBACK, MASTER_PORT=port, RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    return get_strategy(seed=0)
