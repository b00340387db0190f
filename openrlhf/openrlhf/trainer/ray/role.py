"""One rank of a group of Ray workers, and how the ranks find each other."""

from __future__ import annotations

import os
import socket
from datetime import timedelta

import ray
import torch.distributed as dist

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

    def join_group(self, rendezvous: tuple[str, int], seed: int) -> None:
        """Joins the group's process group. Blocks until all ranks are there.

        Args:
            rendezvous: what `open_rendezvous` of rank 0 returned.
        """
        address, port = rendezvous
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
