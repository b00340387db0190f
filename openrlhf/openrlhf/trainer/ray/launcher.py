"""Groups of Ray workers: one process a rank, placed on GPUs, or on the CPU where there are none.

Workers of both roles are importable from here, as upstream has them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup

from openrlhf.trainer.ray.cluster import in_bundle, reserve_gpus
from openrlhf.trainer.ray.handles import WorkerHandle
from openrlhf.trainer.ray.reference import ReferenceModelRayActor as ReferenceModelRayActor
from openrlhf.trainer.ray.role import BasePPORole as BasePPORole


class PPORayActorGroup:
    """The ranks of one role."""

    def __init__(
        self,
        role_class: type[BasePPORole],
        *,
        num_nodes: int,
        num_gpus_per_node: int,
        seed: int,
        shared_placement: PlacementGroup | None = None,
        gpu_share: float = 1.0,
        **role_arguments: Any,
    ) -> None:
        """
        Args:
            shared_placement: a placement group of another group of this size whose GPUs it shares.
            gpu_share: part of its GPU that Ray books for a worker; the shares of those on one GPU add up to 1 at most.
            role_arguments: passed to `role_class` beside `rank` and `world_size`.
        """
        world_size = num_nodes * num_gpus_per_node
        on_gpu = ray.cluster_resources().get("GPU", 0) > 0
        self.placement = shared_placement
        if on_gpu and shared_placement is None:
            self.placement = reserve_gpus(world_size)
        remote_class: Any = ray.remote(role_class)
        self.workers: list[WorkerHandle] = [
            remote_class.options(**self._options(rank, world_size, gpu_share)).remote(
                rank=rank, world_size=world_size, **role_arguments
            )
            for rank in range(world_size)
        ]
        address, port = ray.get(self.workers[0].open_rendezvous.remote())
        wait_all(self.run("join_group", address, port, seed))

    def run(self, method: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Starts a method on every rank; one object reference a rank."""
        return [getattr(worker, method).remote(*args, **kwargs) for worker in self.workers]

    def _options(self, rank: int, world_size: int, gpu_share: float) -> dict[str, Any]:
        if self.placement is None:
            # Roles take turns on the CPU's cores, so none books any; the ranks of one role share them. Threads that
            # wait for work must sleep instead of spinning, or they hold up the role whose turn it is.
            threads = max(1, len(os.sched_getaffinity(0)) // world_size)
            env_vars = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
            return {"num_cpus": 0, "runtime_env": {"env_vars": env_vars}}
        return {
            "num_gpus": gpu_share,
            "num_cpus": gpu_share,
            "scheduling_strategy": in_bundle(self.placement, rank),
        }


def wait_all(references: Sequence[Any]) -> list[Any]:
    """The results of all, raising the first failure as soon as it happens, whichever reference it is."""
    pending = list(references)
    while pending:
        done, pending = ray.wait(pending, num_returns=1)
        ray.get(done)
    return ray.get(list(references))
