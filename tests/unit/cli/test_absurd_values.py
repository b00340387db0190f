"""Every flag of the table with values that nobody means: each is refused in one line that names the flag."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openrlhf.cli.flag_rows import Flag
from openrlhf.cli.flag_table import FLAGS
from openrlhf.errors import UserError
from support.command_line import Problems

NUMBERS = [flag for flag in FLAGS if flag.kind in (int, float)]

# What 0 and -1 mean where they mean something.
MAY_BE_ZERO = {
    "seed", "l2", "max_norm", "init_kl_coef", "lr_warmup_ratio", "eval_temperature", "zero_stage", "adam_betas",
    "keep_train_completions",
    "reward_num_nodes", "reward_num_gpus_per_node", "critic_num_nodes", "critic_num_gpus_per_node",  # no such worker
    "lora_rank", "lora_dropout", "ptx_coef", "aux_loss_coef",  # no such feature
}  # fmt: skip
MAY_BE_MINUS_ONE = {"save_steps", "eval_steps", "eval_top_k", "local_rank", "freezing_actor_steps"}


def lines_for(problems: Problems, flag: Flag, value: str) -> list[str]:
    """The lines that name the flag, of a command line that gives it this value (twice, if it takes two)."""
    try:
        lines = problems([f"--{flag.name}", *[value] * (flag.count if isinstance(flag.count, int) else 1)])
    except UserError as error:  # no number of this type: the parser says so, and stops there
        lines = [str(error)]
    assert all("\n" not in line for line in lines)
    return [line for line in lines if f"--{flag.name}" in line]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e30", "1" + "0" * 30, "-1" + "0" * 30])
@pytest.mark.parametrize("flag", NUMBERS, ids=lambda flag: flag.name)
def test_no_flag_takes_nan_infinity_or_a_huge_number(flag: Flag, value: str, problems: Problems) -> None:
    assert lines_for(problems, flag, value)


@pytest.mark.parametrize("flag", NUMBERS, ids=lambda flag: flag.name)
def test_0_and_minus_1_pass_only_where_they_mean_something(flag: Flag, problems: Problems) -> None:
    assert bool(lines_for(problems, flag, "0")) == (flag.name not in MAY_BE_ZERO)
    assert bool(lines_for(problems, flag, "-1")) == (flag.name not in MAY_BE_MINUS_ONE)


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.choices], ids=lambda flag: flag.name)
def test_a_choice_is_one_of_those_listed(flag: Flag, problems: Problems) -> None:
    value = "9" if flag.kind is int else "nothing-of-the-kind"
    (line,) = lines_for(problems, flag, value)
    assert all(str(choice) in line for choice in flag.choices)


# flag -> how a path stands in its value
READ = {
    "pretrain": "{}",
    "prompt_data": "json@{}",
    "baseline_ppl_path": "{}",
    "reward_function": "{}:reward",
    "remote_rm_url": "{}",
}
WRITTEN = ("save_path", "ckpt_path", "use_tensorboard")


def line_about(problems: Problems, flag: str, path: str) -> str:
    """The one line about a path."""
    found = [
        line for line in problems([f"--{flag}", READ.get(flag, "{}").format(path)]) if line.startswith(f"--{flag} ")
    ]
    assert len(found) == 1, found
    assert "\n" not in found[0]
    return found[0]


@pytest.mark.parametrize("flag", READ)
@pytest.mark.parametrize(
    "path", ["./nowhere/at.all", "model/config.json/below.py", f"/{'x' * 5000}.py", f"./{'y' * 300}.py", ""]
)
def test_a_path_that_is_not_there(flag: str, path: str, problems: Problems) -> None:
    line_about(problems, flag, path)


@pytest.mark.parametrize("flag", ["baseline_ppl_path", "reward_function", "remote_rm_url"])
def test_a_folder_where_a_file_is_read(flag: str, folder: Path, problems: Problems) -> None:
    (folder / "folder.py").mkdir()
    line_about(problems, flag, "folder.py")


def test_a_file_where_a_folder_is_read(problems: Problems) -> None:
    assert "pass the folder" in line_about(problems, "pretrain", "model/config.json")


@pytest.mark.parametrize("flag", WRITTEN)
def test_a_folder_that_cannot_be_made(flag: str, problems: Problems) -> None:
    assert "is a file" in line_about(problems, flag, "baseline.pkl")
    assert "not a directory" in line_about(problems, flag, "baseline.pkl/below")
    line_about(problems, flag, "")
    line_about(problems, flag, "./" + "z" * 300)


@pytest.mark.parametrize("flag", [*WRITTEN, "baseline_ppl_path", "prompt_data"])
def test_a_place_without_permission(flag: str, problems: Problems, monkeypatch: pytest.MonkeyPatch) -> None:
    """`os.access` is asked, because root, as which tests may run, has every permission."""
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    path = {"baseline_ppl_path": "baseline.pkl", "prompt_data": "rl_data"}.get(flag, "out")
    lines = problems([f"--{flag}", READ.get(flag, "{}").format(path)])
    assert [line for line in lines if "no permission" in line and path.removeprefix("out") in line]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x.json", "only JSON lines are read"),
        ("rl_data/train.json", "only JSON lines are read"),
        ("rl_data", "pass json@rl_data"),
        ("./elsewhere", "no such folder"),
        ("a/b/c", "no such folder"),
        ("model/nothing", "no such folder"),
        ("json@", "is empty"),
        ("json@rl_data,", "is empty"),
        ("not a hub id", "no hub id"),
        ("x.jsonl", "no such file"),
    ],
)
def test_prompts_that_cannot_be_read(source: str, words: str, problems: Problems) -> None:
    assert any(words in line for line in problems(["--prompt_data", source]))


def test_a_comma_in_a_path(folder: Path, problems: Problems) -> None:
    (folder / "rl_data").rename(folder / "first, second")
    assert problems(["--prompt_data", "json@first, second"]) == []


@pytest.mark.parametrize(
    "name", ["model/Typo", "rl_data/model", "/model", "~/model", "a/b/c", "model/", "x--y/z", "a b"]
)
def test_a_model_that_looks_like_a_path_is_not_asked_of_the_hub(name: str, folder: Path, problems: Problems) -> None:
    if name == "model/":
        (folder / "model").rename(folder / "moved")
    (line,) = problems(["--pretrain", name])
    assert line.startswith(f"--pretrain {name}: ")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("Answer: ", "holds no {}"),
        ("{q}", "only {}"),
        ("{} and {}", "only {}"),
        ("{0.real}", "only {}"),
        ('{"task": {}}', "only {}"),
        ("{", "only {}"),
        ("", "holds no {}"),
        ("{{}}", "holds no {}"),
    ],
)
def test_a_template_without_place_for_the_prompt(template: str, words: str, problems: Problems) -> None:
    lines = problems(["--input_template", template], drop="--apply_chat_template")
    assert any(words in line for line in lines), lines


@pytest.mark.parametrize("template", ["Q: {}\nA:", '{{"task": {}}}', "{}"])
def test_a_template_with_a_place(template: str, problems: Problems) -> None:
    assert problems(["--input_template", template], drop="--apply_chat_template") == []
