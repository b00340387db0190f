"""A run on a cluster of two nodes, started as docs/cluster.md says. Both are this machine, with an address each."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from support.run_processes import wait_for, workers
from support.tiny_run import arguments, command, make_world, quiet_environment

HEAD, OTHER = "127.0.0.2", "127.0.0.3"
SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@contextmanager
def ray_node(log: Path, env: dict[str, str], *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """`ray start`; at the end it and all below it are killed."""
    ray = Path(sys.executable).with_name("ray")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [ray, "start", "--block", "--disable-usage-stats", *flags],
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        kill_tree(process)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """As a host does that loses its power."""
    if process.poll() is None:
        below = psutil.Process(process.pid).children(recursive=True)
        for child in [psutil.Process(process.pid), *below]:
            child.kill()
        psutil.wait_procs(below, timeout=10)
        process.wait()


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Short enough for the names of Ray's sockets below it."""
    with tempfile.TemporaryDirectory(prefix="ncp-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def test_a_run_uses_both_nodes_and_a_lost_one_ends_it_by_name(tmp_path: Path, ray_folder: Path):
    """Two ranks, one a node, with the weights split over both; ten updates reach the engine before the node is lost."""
    argv = arguments(
        make_world(tmp_path / "world"),
        tmp_path / "output",
        num_episodes=500,
        eval_steps=None,
        actor_num_nodes=2,
        ref_num_nodes=2,
        zero_stage=3,
    )
    (tmp_path / "token").write_text("a secret of this test's")
    (tmp_path / "token").chmod(0o600)
    env = quiet_environment() | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    env = {name: value for name, value in env.items() if name not in ("RAY_ADDRESS", SWITCH)}
    head_env = env | {SWITCH: "0"}  # loopback, which other hosts could not reach
    head_flags = ["--head", "--node-ip-address", HEAD, "--port", "0", "--include-dashboard", "false"]
    with ray_node(tmp_path / "head.log", head_env, *head_flags, "--temp-dir", str(ray_folder)) as head:
        wait_for(lambda: (ray_folder / "ray_current_cluster").exists(), head)
        address = (ray_folder / "ray_current_cluster").read_text().strip()
        other_flags = ["--address", address, "--node-ip-address", OTHER]
        with ray_node(tmp_path / "other.log", env, *other_flags) as other:
            wait_for(lambda: "Ray runtime started" in (tmp_path / "other.log").read_text(), other)
            with (tmp_path / "log").open("wb") as log:
                run = subprocess.Popen(
                    command(argv), env=head_env | {"RAY_ADDRESS": address}, stdout=log, stderr=subprocess.STDOUT
                )
            try:
                metrics = tmp_path / "output" / "metrics.jsonl"
                wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= 10, run)
                for node in (head, other):
                    there = " ".join(part for worker in workers(node.pid) for part in worker.cmdline())
                    assert "ReferenceModelRayActor" in there
                    assert "CustomStoryBasedActorModelRayActor" in there
                kill_tree(other)
                lost = time.monotonic()
                assert run.wait(timeout=90) == 1
                assert time.monotonic() - lost < 60
            finally:
                run.kill()
                run.wait()
    assert f"training ended early: lost node {OTHER} (" in (tmp_path / "log").read_text()
