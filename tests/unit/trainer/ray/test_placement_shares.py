"""Threads of the ranks of one role, and the nodes of those without GPUs."""

from __future__ import annotations

from openrlhf.trainer.ray.placement import shares, spread


def test_ranks_share_the_cores_of_their_own_node():
    """Two ranks on 9 cores have 4 each, three on 64 have 21; more ranks than cores have one each."""
    cores = {"a": 9, "b": 64, "c": 1}
    assert shares(["a", "a", "b", "b", "b", "c", "c"], cores) == (4, 4, 21, 21, 21, 1, 1)


def test_nodes_are_taken_in_turn():
    assert spread(["a", "b"], 3) == ["a", "b", "a"]
