"""Ray started by the training command listens on loopback only."""

import psutil
import ray

from openrlhf.cli.train_ppo_ray import start_ray


@ray.remote(num_cpus=0)
class Worker:
    def address(self) -> str:
        return ray.util.get_node_ip_address()


def listening_addresses(process: psutil.Process) -> set[str]:
    processes = [process, *process.children(recursive=True)]
    connections = [c for p in processes for c in p.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN]
    return {connection.laddr.ip for connection in connections}


def test_everything_listens_on_loopback():
    start_ray()
    try:
        assert ray.get(Worker.remote().address.remote()) == "127.0.0.1"
        addresses = listening_addresses(psutil.Process())
    finally:
        ray.shutdown()
    assert addresses
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
