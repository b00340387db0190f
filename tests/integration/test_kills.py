"""SIGKILLs at random moments of a run: what is resumed ends as the uninterrupted run does, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from support.run_processes import start, wait_for, worker_pid, workers
from support.tiny_run import arguments, command, make_world, metrics_rows, quiet_environment, without_times

pytestmark = pytest.mark.timeout(600)

DRIVER = "driver"
# Who dies, one start each: a random moment after the start's first checkpoint.
VICTIMS = ("CustomStoryBasedActorModelRayActor", DRIVER, "LLMRayActor")
MOST_DELAY_S = 1.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def test_random_kills_leave_no_trace(world: Path, tmp_path: Path):
    """24 steps, three kills: too many to end before a kill. The seed is new each time; assertion messages have it."""
    seed = random.SystemRandom().randrange(10**6)
    delays = random.Random(seed)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_to_the_end(flags(world, whole))
    for victim in VICTIMS:
        kill_after_a_checkpoint(flags(world, killed), killed, victim, delays.uniform(0, MOST_DELAY_S))
    run_to_the_end(flags(world, killed))

    assert_same_rows(rows(killed), rows(whole), seed)
    expected, got = (load_file(folder / "final_model" / "model.safetensors") for folder in (whole, killed))
    assert all(torch.equal(got[name], expected[name]) for name in expected), f"seed {seed}"
    assert not [path.name for path in killed.iterdir() if ".partial-" in path.name or path.name == ".run.lock"]


def flags(world: Path, output: Path) -> list[str]:
    output.mkdir(exist_ok=True)
    return arguments(world, output, num_episodes=12, save_steps=1, load_checkpoint=True)


def run_to_the_end(argv: list[str]) -> None:
    done = subprocess.run(command(argv), env=quiet_environment(), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def kill_after_a_checkpoint(argv: list[str], output: Path, victim: str, delay_s: float) -> None:
    """Kills the driver, or a worker, whose death must end the run."""
    before = complete_checkpoints(output)
    with start(argv, output / f"{victim}.log") as process:
        wait_for(lambda: bool(complete_checkpoints(output) - before), process)
        running = workers(process.pid)
        pid = process.pid if victim == DRIVER else worker_pid(process.pid, victim)
        time.sleep(delay_s)
        kill = os.killpg if victim == DRIVER else os.kill
        kill(pid, signal.SIGKILL)
        assert process.wait(timeout=90) != 0
        # The workers of a dead driver may still finish a checkpoint, which would be taken for the next start's.
        _, alive = psutil.wait_procs(running, timeout=60)
        assert not alive


def complete_checkpoints(output: Path) -> set[Path]:
    return set((output / "checkpoints" / "_actor").glob("*/COMPLETE"))


def assert_same_rows(got: list[dict[str, Any]], expected: list[dict[str, Any]], seed: int) -> None:
    """Bit for bit but for `rollout_logprob_diff`: vLLM's log-probs round by which requests came in time for a batch."""
    rounding = [[row.pop("rollout_logprob_diff", 0.0) for row in side] for side in (got, expected)]
    assert got == expected, f"seed {seed}"
    assert rounding[0] == pytest.approx(rounding[1], abs=1e-6), f"seed {seed}"


def rows(output: Path) -> list[dict[str, Any]]:
    """All rows but their times, in order: none lost, none twice."""
    return [without_times(row) for phase in ("train", "eval") for row in metrics_rows(output, phase)]
