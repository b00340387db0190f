"""Ten training steps of a tiny model against committed numbers: the same ones for one rank and for two.

A refactoring leaves them equal. A change that is meant to alter them is a commit of its own that says why, and records
them anew:

    python -m pytest tests/integration/test_golden_losses.py --record_golden
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ray_utils import CustomStoryBasedActorModelRayActor
from support.tiny_run import arguments, make_world, metrics_rows, run_in_process

GOLDEN = Path(__file__).with_name("golden_losses.json")
NAMES = ("loss", "grad_norm", "reward", "kl")
NUM_STEPS = 10
# fp32 throughout. CPUs differ in the last digits, and ten optimizer steps carry that on.
TOLERANCE = 1e-4

RUNS: dict[str, dict[str, Any]] = {
    "one rank": {"zero_stage": 2},
    "two ranks": {"zero_stage": 3, "actor_num_gpus_per_node": 2, "ref_num_gpus_per_node": 2},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("run", RUNS)
def test_losses_are_the_committed_ones(run: str, world: Path, tmp_path: Path, request: pytest.FixtureRequest):
    """Three prompts, two a step, so every other step leaves the second rank idle."""
    # Upstream's epsilon: the numbers are older than the default.
    argv = arguments(world, tmp_path, num_episodes=5, eval_steps=None, advantage_eps=1e-9, **RUNS[run])
    run_in_process(argv, CustomStoryBasedActorModelRayActor)
    measured = [{name: row[name] for name in NAMES} for row in metrics_rows(tmp_path, "train")]
    assert len(measured) == NUM_STEPS
    if run == "one rank" and request.config.getoption("--record_golden"):
        GOLDEN.write_text(json.dumps(measured, indent=1) + "\n")
    for step, (row, golden) in enumerate(zip(measured, json.loads(GOLDEN.read_text()), strict=True)):
        assert row == pytest.approx(golden, rel=TOLERANCE, abs=1e-7), f"step {step}"
