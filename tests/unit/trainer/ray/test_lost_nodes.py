"""Nodes that are gone when a run on a cluster fails."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
import ray
from ray.exceptions import RayError

from openrlhf.errors import UserError
from openrlhf.trainer.ray.cluster import NodeLost, lost_nodes, ray_cluster
from openrlhf.utils.network import free_port


@pytest.fixture
def listener() -> Iterator[tuple[str, str, int]]:
    """A node that answers: name, address, port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield "here", "127.0.0.1", server.getsockname()[1]


@pytest.fixture
def gone() -> tuple[str, str, int]:
    return "there", "127.0.0.1", free_port("127.0.0.1")


def test_a_node_that_does_not_answer_is_named(listener: tuple[str, str, int], gone: tuple[str, str, int]):
    assert lost_nodes([listener, gone], wait_s=60) == ["node 127.0.0.1 (there)"]


def test_nodes_that_answer_are_asked_until_the_time_is_over(listener: tuple[str, str, int]):
    start = time.monotonic()
    assert lost_nodes([listener], wait_s=0.2) == []
    assert time.monotonic() - start >= 0.2


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, listener: tuple[str, str, int], gone: tuple[str, str, int]) -> None:
    """One of two nodes that is gone, and a third that was so before."""
    names = ("NodeManagerHostname", "NodeManagerAddress", "NodeManagerPort")
    nodes = [dict(zip(names, node, strict=True)) | {"Alive": True} for node in (listener, gone)]
    old = {"NodeManagerHostname": "old", "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": 1, "Alive": False}
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, old])
    monkeypatch.setattr(ray, "shutdown", lambda: None)


def test_a_lost_node_is_the_cause_of_what_ray_raises(cluster: None):
    with pytest.raises(NodeLost, match=r"^lost node 127\.0\.0\.1 \(there\) \(switched off\?") as error, ray_cluster():
        raise RayError("connection closed by peer")
    assert isinstance(error.value.__cause__, RayError)


@pytest.mark.parametrize("error", [UserError("no such file"), ValueError("a fault")])
def test_other_errors_keep_their_own_cause(cluster: None, error: Exception):
    with pytest.raises(type(error), match=str(error)), ray_cluster():
        raise error
