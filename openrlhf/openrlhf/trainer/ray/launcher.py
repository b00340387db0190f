"""Groups of Ray workers: one process a rank, placed on GPUs, or on the CPU where there are none.

Workers of both roles are importable from here, as upstream has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray

from openrlhf.trainer.ray.handles import WorkerHandle
from openrlhf.trainer.ray.placement import Placement, place_ranks
from openrlhf.trainer.ray.reference import ReferenceModelRayActor as ReferenceModelRayActor
from openrlhf.trainer.ray.role import BasePPORole as BasePPORole


class PPORayActorGroup:
    """The ranks of one role. Its processes start and find each other while the caller goes on: wait for `joined`."""

    def __init__(
        self,
        role_class: type[BasePPORole],
        *,
        num_nodes: int,
        num_gpus_per_node: int,
        seed: int,
        shared_placement: Placement | None = None,
        gpu_share: float = 1.0,
        **role_arguments: Any,
    ) -> None:
        """
        Args:
            shared_placement: that of another group of this size, whose GPUs it shares.
            gpu_share: part of its GPU that Ray books for a worker; the shares of those on one GPU add up to 1 at most.
            role_arguments: passed to `role_class` beside `rank` and `world_size`.

        Raises:
            UserError: the cluster has not got the GPUs.
        """
        self.placement = shared_placement or place_ranks(num_nodes, num_gpus_per_node)
        world_size = num_nodes * num_gpus_per_node
        remote_class: Any = ray.remote(role_class)
        self.workers: list[WorkerHandle] = [
            remote_class.options(**worker_options(self.placement, rank, gpu_share)).remote(
                rank=rank, world_size=world_size, **role_arguments
            )
            for rank in range(world_size)
        ]
        self.joined = self.run("join_group", self.workers[0].open_rendezvous.remote(), seed)
        """One reference a rank. Methods that are called meanwhile run afterwards."""

    def run(self, method: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Starts a method on every rank; one object reference a rank."""
        return [getattr(worker, method).remote(*args, **kwargs) for worker in self.workers]


def worker_options(placement: Placement, rank: int, gpu_share: float) -> dict[str, Any]:
    """What Ray is told about a worker's process.

    Ray would give it as many threads as it books CPUs, so one for a share of a GPU. Roles take turns on the CPU, so
    none books much of it; threads that wait for work must sleep instead of spinning, or they hold up the role whose
    turn it is.
    """
    env_vars = {"OMP_NUM_THREADS": str(placement.threads[rank]), "OMP_WAIT_POLICY": "PASSIVE"}
    resources = {"num_gpus": gpu_share, "num_cpus": gpu_share} if placement.on_gpus else {"num_cpus": 0}
    return {
        **resources,
        "scheduling_strategy": placement.strategy(rank),
        "runtime_env": {"env_vars": env_vars},
    }


def wait_all(references: Sequence[Any]) -> list[Any]:
    """The results of all, raising the first failure as soon as it happens, whichever reference it is."""
    pending = list(references)
    while pending:
        done, pending = ray.wait(pending, num_returns=1)
        ray.get(done)
    return ray.get(list(references))


def wait_parts(parts: Mapping[str, Sequence[Any]], ready: Callable[[str], None]) -> None:
    """Waits for all references as `wait_all` does, and tells `ready` the name of each part as soon as it is there.

    Of a worker's references the one that it works on first stands first: where both have failed, it holds the cause.
    """
    pending = {name: list(references) for name, references in parts.items() if references}
    while pending:
        done, _ = ray.wait([reference for references in pending.values() for reference in references], num_returns=1)
        ray.get(done)
        for name in list(pending):
            pending[name] = [reference for reference in pending[name] if reference not in done]
            if not pending[name]:
                del pending[name]
                ready(name)
