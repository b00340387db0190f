"""Ray started by the training command listens on loopback only."""

import os
import stat
from pathlib import Path

import psutil
import pytest
import ray

from openrlhf.trainer.ray.cluster import ray_cluster
from support.processes import is_loopback_only


@ray.remote(num_cpus=0)
class Worker:
    def address(self) -> str:
        return ray.util.get_node_ip_address()


def test_everything_listens_on_loopback_and_a_new_token_is_its_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "")
    before = set(psutil.Process().children(recursive=True))
    with ray_cluster():
        assert ray.get(Worker.remote().address.remote()) == "127.0.0.1"
        started = set(psutil.Process().children(recursive=True)) - before
        assert is_loopback_only(started)
        token = tmp_path / ".ray" / "auth_token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert not [process for process in started if process.is_running()]
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(token)
