"""A process group made by `get_strategy` alone, without this project's launcher."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from openrlhf.utils.deepspeed.strategy import loopback_address
from openrlhf.utils.network import free_port

PROGRAM = """
import ipaddress, psutil
from openrlhf.utils.deepspeed.strategy import DeepspeedStrategy

DeepspeedStrategy(seed=1).setup_distributed()
listening = {c.laddr.ip for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN}
print("listens on", sorted(listening))
assert listening and all(ipaddress.ip_address(address).is_loopback for address in listening)
"""


def test_a_group_from_the_environment_listens_on_loopback_where_that_is_its_master() -> None:
    # every socket: the store's and gloo's
    group = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port("127.0.0.1"))}
    rank = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    environment = {name: value for name, value in os.environ.items() if not name.endswith("SOCKET_IFNAME")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**environment, **group, **rank}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("master", "address"),
    [("localhost", "127.0.0.1"), ("127.0.0.2", "127.0.0.2"), ("::1", "::1"), ("10.0.0.7", None), ("node-0", None)],
)
def test_a_master_that_other_machines_may_have_to_reach_is_left_to_torch(master: str, address: str | None):
    assert loopback_address(master) == address
