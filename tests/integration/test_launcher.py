"""scripts/launch_training.sh's cluster: real Ray heads, and small commands in the training's place."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from support.processes import is_loopback_only, wait_until

JOB = """\
import os, sys, time
import ray
ray.init(logging_level="ERROR")
print("cluster", os.environ["RAY_ADDRESS"], flush=True)
open(sys.argv[1], "w").write(os.environ["RAY_ADDRESS"])
while not os.path.exists(sys.argv[2]):
    time.sleep(0.05)
sys.exit(int(sys.argv[3]))
"""
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


class Launch:
    """A launcher in a process group and a temporary folder of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        exit_code: int = 0,
        job: str = JOB,
        flags: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.log, self.up, self.go = folder / "run.log", folder / "up", folder / "go"
        (folder / "job.py").write_text(job)
        job_command = ["python3", folder / "job.py", self.up, self.go, exit_code]
        launcher = [sys.executable, "-P", "-m", "openrlhf.cli.launch", "--log", self.log, *flags, "--"]
        self.output = (folder / "output").open("w+")
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.process = subprocess.Popen(
            [str(part) for part in [*launcher, *job_command]],
            env={**os.environ, "PATH": path, "RAY_TMPDIR": str(folder), **(env or {})},
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.below: list[psutil.Process] = []

    def wait_until_up(self) -> str:
        wait_until(lambda: self.up.exists() and self.up.read_text(), alive=self.process, timeout_s=120)
        self.below = psutil.Process(self.process.pid).children(recursive=True)
        return self.up.read_text()

    def finish(self, timeout_s: float = 60) -> int:
        self.go.touch()
        return self.process.wait(timeout=timeout_s)

    def text(self) -> str:
        self.output.seek(0)
        return self.output.read()

    def survivors(self) -> list[psutil.Process]:
        return [p for p in self.below if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def one_below(self, name: str) -> psutil.Process:
        return next(process for process in self.below if process.name() == name)


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A folder whose path leaves room for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="t", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def launches() -> Iterator[list[Launch]]:
    """Ends what a failed test leaves."""
    started: list[Launch] = []
    yield started
    for launch in started:
        if launch.process.poll() is None:
            launch.process.send_signal(signal.SIGTERM)
            launch.process.wait(timeout=30)


def test_two_launchers_at_once_use_a_cluster_each_and_pass_on_the_exit_code(short_tmp: Path, launches: list[Launch]):
    """Also behind a proxy that leads nowhere; and all sockets of both are on loopback."""
    nowhere = {name: "http://127.0.0.1:9" for name in ("http_proxy", "HTTP_PROXY", "https_proxy")}
    launches += [Launch(short_tmp / "a", exit_code=0, env=nowhere), Launch(short_tmp / "b", exit_code=3, env=nowhere)]
    first, second = launches
    assert first.wait_until_up() != second.wait_until_up()
    assert is_loopback_only(first.below)
    assert is_loopback_only(second.below)
    assert second.finish() == 3
    assert first.process.poll() is None
    assert first.finish() == 0
    assert first.survivors() == second.survivors() == []
    assert "cluster 127.0.0.1:" in first.text()
    assert "cluster 127.0.0.1:" in first.log.read_text()
    assert not list((short_tmp / "a").glob("ncp-ray-*"))


@pytest.mark.parametrize(("flag", "value"), [("--node_ip", "localhost"), ("--node_ip", "192.0.2.1"), ("--port", "x")])
def test_an_address_or_port_that_cannot_be_is_refused(flag: str, value: str, short_tmp: Path, launches: list[Launch]):
    port = ("--port", "20000") if value == "192.0.2.1" else ()
    launches.append(launch := Launch(short_tmp, flags=(flag, value, *port)))
    assert launch.process.wait(timeout=30) == 2
    assert value in launch.text()
    assert "Traceback" not in launch.text()


def test_a_named_port_that_is_taken_is_refused_before_anything_starts(short_tmp: Path, launches: list[Launch]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for flag, name in (("--port", "RAY_PORT"), ("--dashboard_port", "DASHBOARD_PORT")):
            launches.append(Launch(short_tmp / name, flags=(flag, str(port))))
            assert launches[-1].process.wait(timeout=30) == 2
            assert f"{name} {port}: nothing can listen on 127.0.0.1:{port}" in launches[-1].text()
            assert not list((short_tmp / name).glob("ncp-ray-*"))


@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_head_that_dies_ends_the_run_within_seconds(name: str, short_tmp: Path, launches: list[Launch]):
    launches.append(launch := Launch(short_tmp))
    launch.wait_until_up()
    launch.one_below(name).kill()
    assert launch.process.wait(timeout=25) == 1
    assert name in launch.text()
    assert "goes on from the last checkpoint" in launch.text()
    assert launch.survivors() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_job_and_cluster(number: signal.Signals, short_tmp: Path, launches: list[Launch]):
    launches.append(launch := Launch(short_tmp))
    launch.wait_until_up()
    launch.process.send_signal(number)
    assert launch.process.wait(timeout=25) == 128 + number
    assert f"{number.name}: ending the training" in launch.text()
    assert launch.survivors() == []
    assert not list(short_tmp.glob("ncp-ray-*"))


def test_a_second_signal_kills_a_job_that_does_not_end(short_tmp: Path, launches: list[Launch]):
    launches.append(launch := Launch(short_tmp, job=JOB.replace("while", f"{DEAF}while", 1)))
    launch.wait_until_up()
    launch.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "a second signal kills" in launch.text(), alive=launch.process, timeout_s=10)
    launch.process.send_signal(signal.SIGTERM)
    assert launch.process.wait(timeout=15) == 143
    wait_until(lambda: not launch.survivors(), timeout_s=10)  # the reaper is the last to go


def test_a_killed_launcher_leaves_nothing_behind(short_tmp: Path, launches: list[Launch]):
    launches.append(launch := Launch(short_tmp))
    launch.wait_until_up()
    time.sleep(3)  # the reaper has looked
    launch.process.kill()
    wait_until(lambda: not launch.survivors() and not list(short_tmp.glob("ncp-ray-*")), timeout_s=25)


def test_a_head_that_cannot_start_says_why(short_tmp: Path, launches: list[Launch]):
    launches.append(launch := Launch(short_tmp, env={"RAY_OVERRIDE_RESOURCES": "not json"}))
    assert launch.process.wait(timeout=60) == 1
    assert "Ray did not start. Its last lines:" in launch.text()
    assert "JSONDecodeError" in launch.text()


def script(name: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    command = [str(root / name), *env.pop("arguments", "").split()]
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def test_without_the_environment_the_scripts_say_so(tmp_path: Path):
    result = script("train_7b.sh", tmp_path, PATH="/usr/bin:/bin")
    assert result.returncode == 2
    assert "activate the environment" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["a,b", "nowhere"])
def test_a_data_folder_that_cannot_work(folder: str, tmp_path: Path):
    (tmp_path / "a,b").mkdir()
    result = script("train_7b.sh", tmp_path, PATH=os.environ["PATH"], DATA_DIR=str(tmp_path / folder))
    assert result.returncode == 2
    assert f"DATA_DIR={tmp_path / folder}: " in result.stderr
