"""`--config RUN/config.json` repeats a run; what is given beside it wins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openrlhf.cli.flag_rows import Flag
from openrlhf.cli.flag_table import FLAGS
from openrlhf.cli.flags import flag_problems, parse_args, run_settings, to_config
from openrlhf.config import HIDDEN
from openrlhf.errors import UserError
from openrlhf.trainer.tracking import MetricsLogger
from support.command_line import GOOD


def saved(folder: Path, argv: list[str]) -> str:
    """The config.json that a run of these arguments leaves behind."""
    args = parse_args(argv)
    MetricsLogger(to_config(args).tracking, folder, run_settings(args)).close()
    return str(folder / "config.json")


def write(folder: Path, content: object) -> str:
    path = folder / "settings.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def example(flag: Flag) -> list[str]:
    """The flag with values of its type, as a command line gives it."""
    if flag.kind is bool:
        return [f"--{flag.name}"]
    value = {int: "7", float: "0.25", str: "text"}[flag.kind]
    return [f"--{flag.name}", *[value] * (flag.count if isinstance(flag.count, int) else 1)]


def test_a_run_comes_back_flag_by_flag(tmp_path: Path) -> None:
    argv = [part for flag in FLAGS for part in example(flag)] + ["--use_wandb", "offline"]
    first = parse_args(argv)
    again = parse_args(["--config", saved(tmp_path, argv)])
    assert run_settings(again) == run_settings(first)
    assert to_config(again) == to_config(first)


def test_defaults_come_back_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASELINE_PPL_PATH", "then.pkl")
    first = to_config(parse_args(GOOD[:-2]))
    path = saved(tmp_path, GOOD[:-2])
    monkeypatch.setenv("BASELINE_PPL_PATH", "now.pkl")  # the run's own value counts
    assert to_config(parse_args(["--config", path])) == first


def test_a_flag_beside_the_file_wins_also_to_turn_off_a_switch(tmp_path: Path) -> None:
    path = saved(tmp_path, [*GOOD, "--bf16", "--enforce_eager"])
    argv = ["--bf16", "false", "--config", path, "--seed", "7", "--adam_betas", "0.8", "0.9"]
    config = to_config(parse_args(argv))
    assert not config.policy.bf16
    assert config.engine.enforce_eager
    assert config.seed == 7
    assert config.optimizer.adam_betas == (0.8, 0.9)
    assert config.batch.rollout_batch_size == 8  # from the file


def test_a_file_of_the_first_version(tmp_path: Path) -> None:
    """It was flat too, with all flags of the parser in it, and numbers as JSON writes them."""
    old = {"pretrain": "m", "adam_betas": [0.9, 0.95], "reward_clip_range": [-10, 10], "max_ckpt_mem": 1e8, "gamma": 1,
           "target_modules": "all-linear", "use_wandb": None, "kl_target": None, "bf16": False}  # fmt: skip
    config = to_config(parse_args(["--config", write(tmp_path, old)]))
    assert config.algorithm.reward_clip_range == (-10.0, 10.0)
    assert config.checkpoint.max_ckpt_mem_gb == 100_000_000
    assert config.policy.pretrain == "m"


def test_the_hidden_key_of_wandb_comes_from_a_flag_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    path = write(tmp_path, {"use_wandb": HIDDEN})
    with pytest.raises(UserError, match=r"the key of --use_wandb is not kept there; set WANDB_API_KEY, or pass"):
        parse_args(["--config", path])
    assert parse_args(["--config", path, "--use_wandb", "offline"]).use_wandb == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "key-of-the-environment")
    assert parse_args(["--config", path]).use_wandb == "key-of-the-environment"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ([], "must hold a JSON object"),
        ({"sed": 1}, "'sed' is no flag; seed is meant?"),
        ({"qqqqqqqqq": 1}, "'qqqqqqqqq' is no flag; remove it"),
        ({"seed": "1"}, "'seed' must be an integer, not \"1\""),
        ({"seed": 1.5}, "'seed' must be an integer, not 1.5"),
        ({"seed": True}, "'seed' must be an integer, not true"),
        ({"seed": None}, "'seed' must be an integer, not null"),
        ({"bf16": 1}, "'bf16' must be true or false, not 1"),
        ({"top_p": False}, "'top_p' must be a number, not false"),
        ({"pretrain": ["m"]}, "'pretrain' must be a string"),
        ({"adam_betas": 0.9}, "'adam_betas' must be a list of 2"),
        ({"adam_betas": [0.9]}, "'adam_betas' must be a list of 2"),
        ({"adam_betas": [0.9, "x"]}, "'adam_betas' must be a number, not \"x\""),
        ({"target_modules": {}}, "'target_modules' must be a list"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(content: Any, words: str, tmp_path: Path) -> None:
    path = write(tmp_path, content)
    with pytest.raises(UserError) as refusal:
        parse_args(["--config", path])
    assert str(refusal.value).startswith(f"--config {path}: ")
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("path", ["nowhere.json", ".", "/dev/null", "x" * 300])
def test_a_file_that_is_none(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"--config {path}: "):
        parse_args(["--config", path])


def test_values_of_the_file_are_checked_like_flags(tmp_path: Path) -> None:
    """JSON as Python reads it has NaN and infinity."""
    args = parse_args([*GOOD, "--config", write(tmp_path, '{"top_p": NaN, "l2": Infinity, "kl_estimator": "k9"}')])
    lines = flag_problems(args, num_gpus=0)
    assert {"--top_p", "--l2", "--kl_estimator"} <= {line.split()[0] for line in lines}
