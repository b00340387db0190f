"""Ray workers: one process a rank, in groups, placed on GPUs (or on the CPU where there are none)."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray.util.placement_group import PlacementGroup

from openrlhf.config import TrainConfig
from openrlhf.models.actor import Actor, load_causal_lm
from openrlhf.models.pack_check import check_packs
from openrlhf.models.shared_prefix import SharedPrefixBatch
from openrlhf.trainer.ray.cluster import in_bundle, reserve_gpus
from openrlhf.utils.deepspeed.strategy import get_strategy
from openrlhf.utils.devices import dist_backend
from openrlhf.utils.logging import quiet_libraries
from openrlhf.utils.network import use_interface_of

DISTRIBUTED_TIMEOUT = timedelta(minutes=60)


class BasePPORole:
    """One rank of a group. Undecorated: `PPORayActorGroup` turns it into a Ray actor, subclasses add or override."""

    def __init__(self, *, rank: int, world_size: int) -> None:
        quiet_libraries()
        self.rank = rank
        self.world_size = world_size

    def open_rendezvous(self) -> tuple[str, int]:
        """Rank 0's address and the port on which it listens for the other ranks."""
        self._listener = socket.create_server((ray.util.get_node_ip_address(), 0))
        address, port = self._listener.getsockname()[:2]
        return address, port

    def join_group(self, address: str, port: int, seed: int) -> None:
        """Joins the group's process group. Blocks until all ranks are there."""
        use_interface_of(ray.util.get_node_ip_address())
        os.environ.update(
            MASTER_ADDR=address,
            MASTER_PORT=str(port),
            RANK=str(self.rank),
            WORLD_SIZE=str(self.world_size),
            LOCAL_RANK="0",  # Ray shows a worker its own GPU alone
        )
        # The given socket listens on one address; a store that opens its own would listen on all.
        listen_fd = self._listener.detach() if self.rank == 0 else None
        store = dist.TCPStore(
            address, port, self.world_size, self.rank == 0, DISTRIBUTED_TIMEOUT, master_listen_fd=listen_fd
        )
        dist.init_process_group(
            dist_backend(), store=store, rank=self.rank, world_size=self.world_size, timeout=DISTRIBUTED_TIMEOUT
        )
        self.strategy = get_strategy(seed=seed, timeout=DISTRIBUTED_TIMEOUT)


class ReferenceModelRayActor(BasePPORole):
    """Holds the frozen reference model: its log-probs serve VR-CLI scoring and the KL term."""

    def init_model(self, config: TrainConfig) -> None:
        model = self.strategy.load_model(partial(load_causal_lm, config.reference), config.ref_deepspeed)
        self.actor = Actor(self.strategy.prepare_eval(model, deepspeed=config.ref_deepspeed))
        check_packs(self.actor.model, name=config.reference.pretrain)

    @torch.no_grad()
    def forward(self, batch: SharedPrefixBatch, temperature: float = 1.0) -> torch.Tensor:
        """fp32 CPU log-probs (L,) of the batch's labels."""
        return self.actor(batch, temperature).cpu()


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
        self.workers: list[Any] = [
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
