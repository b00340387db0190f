"""What an engine's own process does besides sampling: it dies with its actor, and leaves word of what broke it.

vLLM's scheduler runs in a process below the actor's and imports this module there, by the name that `vllm_api` gives.
With tensor parallelism there is one more process a GPU below that one, which vLLM ends with it.
"""

from __future__ import annotations

import logging
import multiprocessing

from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from openrlhf.trainer.ray.last_words import keep_last_words
from openrlhf.utils.processes import die_with_parent


class OneWorker(UniProcExecutor):
    """The model in the scheduler's process."""

    def _init_executor(self) -> None:
        settle_in()
        super()._init_executor()


class WorkerPerGPU(MultiprocExecutor):
    """The model in a process for each GPU."""

    def _init_executor(self) -> None:
        settle_in()
        super()._init_executor()


def settle_in() -> None:
    """For the scheduler's process, before it loads anything."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    die_with_parent(parent.pid)
    keep_last_words(logging.getLogger("vllm"))
