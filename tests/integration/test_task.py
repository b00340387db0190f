"""A task is one class: the third example of openrlhf/README.md, as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.tiny_run import REPO, arguments, make_world, metrics_rows, quiet_environment

VR_CLI_FLAGS = {"baseline_ppl_path": None, "reward_shape": None}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def twenty(tmp_path: Path) -> Path:
    (code,) = re.findall(r'```python\n("""twenty\.py.*?)```', (REPO / "openrlhf/README.md").read_text(), re.DOTALL)
    path = tmp_path / "twenty.py"
    path.write_text(code)
    return path


def run(script: Path, argv: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in quiet_environment().items() if name != "BASELINE_PPL_PATH"}
    environment["PYTHONPATH"] = os.pathsep.join([str(REPO / "openrlhf"), environment.get("PYTHONPATH", "")])
    command = [sys.executable, str(script), *argv]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_readmes_task_trains(world: Path, twenty: Path, tmp_path: Path):
    result = run(twenty, arguments(world, tmp_path / "out", num_episodes=1, eval_steps=None, **VR_CLI_FLAGS))
    assert result.returncode == 0, result.stderr[-3000:]
    rows = metrics_rows(tmp_path / "out", "train")
    assert len(rows) == 2
    for row in rows:  # responses have at most 16 tokens
        assert row["too_long_frac"] == 0.0
        assert row["reward"] == pytest.approx((row["response_length"] - 20) / 20)


def test_it_refuses_the_flags_of_another_reward(world: Path, twenty: Path, tmp_path: Path):
    result = run(twenty, arguments(world, tmp_path / "out", baseline_ppl_path=None, reward_shape="nll_delta"))
    assert result.returncode == 2
    assert "--reward_shape nll_delta: TwentyTokensMaker does not read it" in result.stderr
    assert not (tmp_path / "out").exists()
