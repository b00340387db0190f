"""Where workers run: on which node, on which of its GPUs, with how many of its cores."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from openrlhf.errors import UserError

PLACEMENT_TIMEOUT_S = 60


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The places of one role's ranks. Roles that share GPUs share it."""

    nodes: tuple[str, ...]
    """Each rank's node, by its id in Ray."""
    threads: tuple[int, ...]
    """Each rank's share of its node's cores."""
    groups: tuple[PlacementGroup, ...] = ()
    """On GPUs, those of one node each, one bundle a GPU."""

    @property
    def on_gpus(self) -> bool:
        return bool(self.groups)

    def strategy(self, rank: int) -> PlacementGroupSchedulingStrategy | NodeAffinitySchedulingStrategy:
        """Tells Ray where a rank goes."""
        if not self.on_gpus:
            return NodeAffinitySchedulingStrategy(node_id=self.nodes[rank], soft=False)
        group, bundle = divmod(rank, len(self.nodes) // len(self.groups))
        return in_bundle(self.groups[group], bundle)


def place_ranks(num_nodes: int, ranks_per_node: int) -> Placement:
    """Reserves one GPU a rank, those of each node together; on a cluster without GPUs just names the nodes.

    Two of the nodes may be one and the same machine, where it has room for both.

    Raises:
        UserError: the cluster has not got that many free.
    """
    if ray.cluster_resources().get("GPU", 0) > 0:
        groups = tuple(reserve_gpus(ranks_per_node) for _ in range(num_nodes))
        homes = [placement_group_table(group)["bundles_to_node_id"][0] for group in groups]
    else:
        groups = ()
        homes = spread(list(node_cores()), num_nodes)
    nodes = tuple(node for node in homes for _ in range(ranks_per_node))
    return Placement(nodes=nodes, threads=shares(nodes, node_cores()), groups=groups)


def spread(nodes: Sequence[str], count: int) -> list[str]:
    """`count` of the nodes in turn, from the first on."""
    return [nodes[index % len(nodes)] for index in range(count)]


def node_cores() -> dict[str, int]:
    """The cores of each node that is up, by its id in Ray: of this one, which comes first, those that we may use."""
    here = ray.get_runtime_context().get_node_id()
    others = {node["NodeID"]: int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"]}
    return {here: len(os.sched_getaffinity(0))} | {node: cores for node, cores in others.items() if node != here}


def shares(nodes: Sequence[str], cores: Mapping[str, int]) -> tuple[int, ...]:
    """Threads of each rank: its node's cores, divided among the role's ranks there.

    Among those of one role, because the roles' work on the CPU (optimizer steps with `--adam_offload`, forwards where
    there is no GPU) takes turns.
    """
    ranks = Counter(nodes)
    return tuple(max(1, cores[node] // ranks[node]) for node in nodes)


def reserve_gpus(num_gpus: int) -> PlacementGroup:
    """One bundle a GPU, all on one node.

    Raises:
        UserError: no node has that many free.
    """
    return _reserve(
        [{"GPU": 1, "CPU": 1}] * num_gpus,
        f"{num_gpus} training GPUs on one node",
        "lower --actor_num_gpus_per_node (--ref_num_gpus_per_node), with --actor_num_nodes (--ref_num_nodes) for more",
        strategy="STRICT_PACK",
    )


def reserve_engine_gpus(num_engines: int, gpus_per_engine: int) -> PlacementGroup:
    """One bundle, hence one node, an engine: its tensor-parallel workers are child processes of the actor.

    Raises:
        UserError: the cluster has not got that many free.
    """
    return _reserve(
        [{"GPU": gpus_per_engine, "CPU": 1}] * num_engines,
        f"{num_engines} vLLM engines of {gpus_per_engine} GPUs each",
        "lower --vllm_num_engines or --vllm_tensor_parallel_size, or give the trainers fewer GPUs",
        strategy="PACK",
    )


def _reserve(bundles: list[dict[str, float]], what: str, instead: str, *, strategy: str) -> PlacementGroup:
    group = placement_group(bundles, strategy=strategy)
    if not group.wait(PLACEMENT_TIMEOUT_S):
        free = ray.available_resources()
        raise UserError(
            f"no room for {what}: free are {free.get('GPU', 0):g} GPUs and {free.get('CPU', 0):g} CPUs; {instead}"
        )
    return group


def in_bundle(group: PlacementGroup, index: int) -> PlacementGroupSchedulingStrategy:
    """Places a worker in one of the group's bundles."""
    return PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=index)
