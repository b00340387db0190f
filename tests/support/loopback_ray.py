"""A Ray cluster as the training command starts it, looked at from inside: run as a script, by test_start_ray.py."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import psutil
import ray

from openrlhf.trainer.ray.cluster import ray_cluster
from support.processes import is_loopback_only


def main() -> None:
    before = set(psutil.Process().children(recursive=True))
    with ray_cluster():

        @ray.remote(num_cpus=0)
        def address() -> str:
            return ray.util.get_node_ip_address()

        assert ray.get(address.remote()) == "127.0.0.1"
        started = set(psutil.Process().children(recursive=True)) - before
        assert is_loopback_only(started)
        token = Path(os.environ["HOME"]) / ".ray" / "auth_token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert not [process for process in started if process.is_running()]
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(token)


if __name__ == "__main__":
    main()
