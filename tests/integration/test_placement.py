"""Workers on the GPUs and cores of one node, as Ray places them. The GPUs are only Ray's: no worker uses one."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import ray
import torch

from openrlhf.errors import UserError
from openrlhf.trainer.ray.launcher import PPORayActorGroup, wait_all, wait_parts
from openrlhf.trainer.ray.placement import reserve_gpus
from openrlhf.trainer.ray.role import BasePPORole

NUM_GPUS = 2


@ray.remote
def load(after: Any = None, *, failure: str = "") -> str:
    """`after`: what Ray waits for first."""
    if failure:
        raise OSError(failure)
    return "there"


class Looker(BasePPORole):
    def look(self) -> tuple[int, int, list[Any]]:
        """Threads of torch, threads of any OpenMP library, GPUs."""
        return torch.get_num_threads(), int(os.environ["OMP_NUM_THREADS"]), ray.get_gpu_ids()


@pytest.fixture
def cluster() -> Iterator[None]:
    path = os.pathsep.join(path for path in sys.path if path)
    ray.init(
        address="local",
        num_cpus=4,
        num_gpus=NUM_GPUS,
        include_dashboard=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    yield
    ray.shutdown()


def test_roles_share_gpus_rank_by_rank_and_each_has_its_share_of_the_cores(
    cluster: None, monkeypatch: pytest.MonkeyPatch
):
    """Ray itself would give one thread to a worker that books a part of a GPU."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))  # of the node; 4 / 2 ranks = 2 threads
    policy = PPORayActorGroup(Looker, num_nodes=1, num_gpus_per_node=NUM_GPUS, seed=1, gpu_share=0.6)
    reference = PPORayActorGroup(
        Looker,
        num_nodes=1,
        num_gpus_per_node=NUM_GPUS,
        seed=1,
        shared_placement=policy.placement,
        gpu_share=0.4,
    )
    wait_all([*policy.joined, *reference.joined])
    seen = ray.get(policy.run("look"))
    assert seen == ray.get(reference.run("look"))
    assert [threads for *threads, _ in seen] == [[2, 2], [2, 2]]
    assert sorted(gpus for *_, gpus in seen) == [[0], [1]]


def test_more_gpus_than_a_node_has_are_refused(cluster: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("openrlhf.trainer.ray.placement.PLACEMENT_TIMEOUT_S", 0.5)
    with pytest.raises(UserError, match="no room for 3 training GPUs on one node: free are 2 GPUs"):
        reserve_gpus(3)


def test_each_part_is_told_once_all_of_it_is_there(cluster: None):
    told: list[str] = []
    first = load.remote()
    wait_parts(
        {"none": [], "late": [load.remote(first), load.remote(load.remote(first))], "early": [first]}, told.append
    )
    assert told == ["early", "late"]


def test_the_first_failure_of_any_part_ends_the_wait(cluster: None):
    """What never comes is not waited for, and what follows from a failure does not hide it."""
    never = ray.remote(num_gpus=NUM_GPUS + 1)(lambda: None).remote()
    broken = load.remote(failure="no such model")
    told: list[str] = []
    with pytest.raises(OSError, match="no such model"):
        wait_parts({"engine": [never], "policy": [broken, load.remote(broken)]}, told.append)
    assert told == []
