"""How runs of `train_ncp.py` end that do not end by themselves, and what they open and print until then."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from support.processes import is_loopback_only, wait_until
from support.tiny_run import arguments, command, make_world, quiet_environment


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@dataclass
class Run:
    process: subprocess.Popen[bytes]
    log: Path
    ray_folder: Path

    def text(self) -> str:
        return self.log.read_text()

    def below(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def named(self, name: str) -> psutil.Process | None:
        return next((process for process in self.below() if process.is_running() and process.name() == name), None)

    def left(self, processes: list[psutil.Process]) -> list[psutil.Process]:
        return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def start(argv: list[str], folder: Path) -> Iterator[Run]:
    log = folder / "log"
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as ray_folder, log.open("wb") as file:
        process = subprocess.Popen(
            command(argv),
            env={**quiet_environment(), "RAY_TMPDIR": ray_folder},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield Run(process, log, Path(ray_folder))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def test_a_signal_ends_a_run_that_listens_on_loopback_only(world: Path, tmp_path: Path):
    """Its log has whole lines and no bars; without a checkpoint none is promised."""
    with start(arguments(world, tmp_path, num_episodes=500, eval_steps=None), tmp_path) as run:
        wait_until(lambda: "step 2/" in run.text(), alive=run.process, timeout_s=200)
        below = run.below()
        assert is_loopback_only(below)
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(timeout=30) == 143
        assert run.left(below) == []
        assert not list(run.ray_folder.iterdir())
        text = run.text()
    assert re.search(r"SIGTERM: ending the workers.*There is no complete checkpoint to resume from", text)
    assert "pid=" not in text
    lines = text.splitlines()
    assert [line for line in lines if len(line) > 200] == []
    warnings = [re.sub(r"^\d\d:\d\d:\d\d", "", line) for line in lines if "WARNING" in line]
    assert len(set(warnings)) == len(warnings)
    assert "Traceback" not in text
    assert "*** SIGTERM" not in text
    assert "\r" not in text
    assert "%|" not in text
    assert "\x1b" not in text
    assert len(re.findall(r"^\d\d:\d\d:\d\d  step \d", text, flags=re.MULTILINE)) >= 2


def test_a_dead_head_ends_the_run_and_names_the_checkpoint(world: Path, tmp_path: Path):
    argv = arguments(world, tmp_path, num_episodes=500, eval_steps=None, save_steps=1)
    with start(argv, tmp_path) as run:
        wait_until(lambda: list(tmp_path.glob("checkpoints/_actor/*/COMPLETE")), alive=run.process, timeout_s=200)
        below, head = run.below(), run.named("gcs_server")
        assert head is not None
        head.kill()
        assert run.process.wait(timeout=20) == 1
        wait_until(lambda: not run.left(below), timeout_s=10)  # the reaper is the last to go
    assert "Ray's gcs_server died" in run.text()
    assert re.search(r"--load_checkpoint goes on from \S+global_step\d", run.text())


@pytest.mark.parametrize("after_s", [0.6, 1.05, 1.2])
@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_head_that_dies_while_ray_starts_ends_the_run_and_says_so(
    name: str, after_s: float, world: Path, tmp_path: Path
):
    """Our watch says it, or the reaper where Ray's own code, inside which no Python runs, ended the run."""
    with start(arguments(world, tmp_path), tmp_path) as run:
        wait_until(lambda: run.named(name), alive=run.process, timeout_s=100)
        time.sleep(after_s)
        head = run.named(name)
        assert head is not None
        head.kill()
        assert run.process.wait(timeout=30) == 1
        said = [f"Ray's {name} died, and the run with it", "The run ended while Ray started: a process of Ray's died"]
        wait_until(lambda: any(line in run.text() for line in said), timeout_s=10)
    assert sum(run.text().count(line) for line in said) == 1
    assert "Traceback" not in run.text()


@pytest.mark.parametrize(("name", "number"), [("gcs_server", signal.SIGTERM), ("raylet", signal.SIGINT)])
def test_a_signal_while_ray_starts_ends_the_run_in_order(
    name: str, number: signal.Signals, world: Path, tmp_path: Path
):
    with start(arguments(world, tmp_path), tmp_path) as run:
        wait_until(lambda: run.named(name), alive=run.process, timeout_s=100)
        below = run.below()
        run.process.send_signal(number)
        assert run.process.wait(timeout=30) == 128 + number
        wait_until(lambda: not run.left(below), timeout_s=10)
        assert not list(run.ray_folder.iterdir())
        assert f"{number.name}: ending the workers" in run.text()
        assert "There is no complete checkpoint to resume from" in run.text()
        assert "The run ended while Ray started" not in run.text()
        assert "Traceback" not in run.text()


def test_a_killed_driver_leaves_nothing_behind(world: Path, tmp_path: Path):
    with start(arguments(world, tmp_path), tmp_path) as run:
        wait_until(lambda: "loading models" in run.text(), alive=run.process, timeout_s=100)
        time.sleep(3)  # the reaper has looked
        below = run.below()
        run.process.kill()
        run.process.wait()
        wait_until(lambda: not run.left(below) and not list(run.ray_folder.iterdir()), timeout_s=15)


@pytest.mark.parametrize("after_s", [0.3, 1.5])
def test_a_signal_during_the_imports_ends_quietly(after_s: float, world: Path, tmp_path: Path):
    with start(arguments(world, tmp_path), tmp_path) as run:
        time.sleep(after_s)
        os.kill(run.process.pid, signal.SIGINT)
        assert run.process.wait(timeout=10) == 130
    *before, last = run.text().splitlines()
    assert last == "SIGINT: ended before anything started"
    assert all(line.endswith("reading and checking the prompts ...") for line in before)
