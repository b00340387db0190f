"""Bad input stops `train_ncp.py` with exit code 2 and one clear message, before Ray starts or any model loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import ray

import train_ncp
from openrlhf.cli import train_ppo_ray
from support.tiny_run import arguments, make_world


@pytest.fixture(scope="module")
def good_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(good_world: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(good_world, tmp_path / "world"))


def refusal(world: Path, capsys: pytest.CaptureFixture[str], **changes: Any) -> str:
    """What a run that must be refused says."""
    assert train_ncp.main(arguments(world, world / "out", **changes)) == 2
    assert not ray.is_initialized()
    assert not (world / "out").exists()
    return capsys.readouterr().err


def change_line(path: Path, number: int, change: Any) -> None:
    lines = path.read_text().splitlines()
    row = json.loads(lines[number - 1])
    lines[number - 1] = change if isinstance(change, str) else json.dumps({**row, **change})
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ('{"prompt": [', "train.jsonl:2: not valid JSON"),
        ({"prompt": None}, "train.jsonl:2: field 'prompt' is missing"),
        ({"prompt": [{"role": "user", "content": 3}]}, "train.jsonl:2: field 'prompt' must hold messages"),
        ({"datapoint_id": "row-unknown"}, "train.jsonl:2: datapoint 'row-unknown' is not in"),
        ({"datapoint_id": None}, "train.jsonl:2: a prompt without datapoint_id"),
    ],
)
def test_a_bad_prompt_row(world, capsys, change, expected):
    change_line(world / "rl_data" / "train.jsonl", 2, change)
    assert expected in refusal(world, capsys)


def test_bad_rows_of_the_evaluation_split_are_found_too(world, capsys):
    change_line(world / "rl_data" / "val.jsonl", 1, {"datapoint_id": "row-unknown"})
    assert "val.jsonl:1: datapoint 'row-unknown'" in refusal(world, capsys)


def test_a_prompt_that_is_too_long(world, capsys):
    message = refusal(world, capsys, prompt_max_len=100)
    assert "train.jsonl:1: the prompt has" in message
    assert "more than --prompt_max_len 100" in message


def test_a_chapter_and_plan_beyond_the_model(world, capsys):
    assert "the reference model has 1024 positions" in refusal(world, capsys, generate_max_len=1000, max_len=1024)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train_batch_size": 64}, "--train_batch_size"),
        ({"n_samples_per_prompt": 1}, "--n_samples_per_prompt"),
        ({"vllm_num_engines": None}, "--vllm_num_engines"),
        ({"vllm_sync_backend": "nccl"}, "--vllm_sync_backend"),
        ({"vllm_tensor_parallel_size": 2}, "--vllm_tensor_parallel_size"),
        ({"ref_num_gpus_per_node": 2}, "--colocate_actor_ref"),
        ({"flash_attn": True}, "--flash_attn"),
        ({"advantage_estimator": "gae"}, "group_norm"),
        ({"eval_split": "validaton"}, "validaton"),
        ({"baseline_ppl_path": "nowhere.pkl"}, "nowhere.pkl"),
    ],
)
def test_impossible_settings(world, capsys, changes, expected):
    assert expected in refusal(world, capsys, **changes)


def test_vr_cli_needs_its_baseline_and_takes_no_reward_file(world, capsys):
    assert "the reward needs a baseline map" in refusal(world, capsys, baseline_ppl_path=None)
    (world / "reward.py").write_text("def reward_func(queries, prompts, labels):\n    return [0.0] * len(queries)\n")
    changes = {"baseline_ppl_path": None, "reward_shape": None, "remote_rm_url": world / "reward.py"}
    assert "run openrlhf.cli.train_ppo_ray" in refusal(world, capsys, **changes)


def test_a_best_metric_that_does_not_exist(world, capsys):
    refused = refusal(world, capsys, save_best="improvement")
    assert "--save_best improvement: evaluations have no such metric; choose from " in refused
    assert "improvement_pct," in refused


def test_the_general_command_needs_a_reward(world, capsys):
    assert train_ppo_ray.main(arguments(world, world / "out", baseline_ppl_path=None, reward_shape=None)) == 2
    assert "pass --remote_rm_url FILE.py" in capsys.readouterr().err


def test_the_general_command_does_not_read_the_flags_of_vr_cli(world, capsys):
    assert train_ppo_ray.main(arguments(world, world / "out")) == 2
    report = capsys.readouterr().err
    for flag in ("--baseline_ppl_path", "--reward_shape nll_delta"):
        assert flag in report
    assert report.count("RewardFileExperienceMaker does not read it; drop it, or run train_ncp.py") == 2


def test_a_baseline_of_another_precision(world, capsys):
    assert "(--reference_dtype): fp32, here bf16" in refusal(world, capsys, reference_dtype="bf16")
