"""The command line: upstream's names, types and defaults, and the paper's launch scripts."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from openrlhf.cli import machine
from openrlhf.cli.flag_rows import Flag
from openrlhf.cli.flag_table import COMMAND_FLAGS, FLAGS
from openrlhf.cli.flags import build_parser, parse_args, to_config
from openrlhf.cli.validate import checked_config
from openrlhf.config import TrainConfig
from openrlhf.errors import UserError

ROOT = Path(__file__).parents[3]

# OpenRLHF 0.6.1.post1: name, type (None: a switch), default.
UPSTREAM: tuple[tuple[str, Any, Any], ...] = (
    # Placement and vLLM
    ("ref_num_nodes", int, 1),
    ("ref_num_gpus_per_node", int, 8),
    ("reward_num_nodes", int, 1),
    ("reward_num_gpus_per_node", int, 8),
    ("colocate_actor_ref", None, False),
    ("actor_num_nodes", int, 1),
    ("actor_num_gpus_per_node", int, 8),
    ("critic_num_nodes", int, 1),
    ("critic_num_gpus_per_node", int, 8),
    ("colocate_critic_reward", None, False),
    ("colocate_all_models", None, False),
    ("vllm_num_engines", int, None),
    ("vllm_tensor_parallel_size", int, 1),
    ("vllm_sync_backend", str, "nccl"),
    ("vllm_sync_with_ray", None, False),
    ("enable_prefix_caching", None, False),
    ("enforce_eager", None, False),
    ("vllm_enable_sleep", None, False),
    ("vllm_gpu_memory_utilization", float, 0.9),
    # Checkpoints and cadence
    ("eval_steps", int, -1),
    ("save_steps", int, -1),
    ("logging_steps", int, 1),
    ("ckpt_path", str, "./ckpt/checkpoints_ppo_ray"),
    ("save_hf_ckpt", None, False),
    ("disable_ds_ckpt", None, False),
    ("max_ckpt_num", int, 3),
    ("max_ckpt_mem", int, 100_000_000),
    ("load_checkpoint", None, False),
    # DeepSpeed, precision, kernels
    ("local_rank", int, -1),
    ("zero_stage", int, 2),
    ("gradient_checkpointing", None, False),
    ("torch_compile", None, False),
    ("bf16", None, False),
    ("enable_ema", None, False),
    ("zpg", int, 1),
    ("adam_offload", None, False),
    ("actor_init_on_gpu", None, False),
    ("flash_attn", None, False),
    ("use_liger_kernel", None, False),
    ("grad_accum_dtype", str, None),
    ("overlap_comm", None, False),
    ("gradient_checkpointing_use_reentrant", None, False),
    ("disable_fast_tokenizer", None, False),
    ("deepspeed_enable_sleep", None, False),
    ("packing_samples", None, False),
    # LoRA, quantisation
    ("load_in_4bit", None, False),
    ("lora_rank", int, 0),
    ("lora_alpha", int, 16),
    ("target_modules", str, "all-linear"),
    ("lora_dropout", float, 0),
    # RL
    ("save_path", str, "./ckpt"),
    ("num_episodes", int, 1),
    ("rollout_batch_size", int, 1024),
    ("micro_rollout_batch_size", int, 8),
    ("max_epochs", int, 1),
    ("prompt_max_len", int, 1024),
    ("generate_max_len", int, 1024),
    ("max_len", int, None),
    ("max_samples", int, 100_000_000),
    ("max_norm", float, 1.0),
    ("l2", float, 0.0),
    ("ptx_coef", float, 0.05),
    ("eps_clip", float, 0.2),
    ("value_clip", float, 0.2),
    ("lambd", float, 0.95),
    ("gamma", float, 1),
    ("micro_train_batch_size", int, 4),
    ("train_batch_size", int, 128),
    ("normalize_reward", None, False),
    ("top_p", float, 1.0),
    ("temperature", float, 1.0),
    ("seed", int, 42),
    ("freezing_actor_steps", int, -1),
    ("n_samples_per_prompt", int, 1),
    ("save_value_network", None, False),
    ("actor_learning_rate", float, 1e-06),
    ("critic_learning_rate", float, 9e-06),
    ("lr_warmup_ratio", float, 0.03),
    ("kl_target", float, None),
    ("init_kl_coef", float, 0.01),
    ("kl_estimator", str, "k1"),
    ("aux_loss_coef", float, 0),
    ("adam_betas", float, (0.9, 0.95)),
    ("reward_clip_range", float, (-10, 10)),
    ("advantage_estimator", str, "gae"),
    ("use_kl_loss", None, False),
    # Context parallelism
    ("ring_attn_size", int, 1),
    ("ring_head_stride", int, 1),
    # Models and data
    ("pretrain", str, None),
    ("reward_pretrain", str, None),
    ("remote_rm_url", str, None),
    ("critic_pretrain", str, None),
    ("value_head_prefix", str, "score"),
    ("ref_reward_offload", None, False),
    ("prompt_data", str, None),
    ("prompt_data_probs", str, "1.0"),
    ("prompt_split", str, "train"),
    ("pretrain_data", str, None),
    ("pretrain_data_probs", str, "1.0"),
    ("pretrain_split", str, "train"),
    ("eval_split", str, "test"),
    ("input_key", str, "input"),
    ("label_key", str, None),
    ("input_template", str, None),
    ("apply_chat_template", None, False),
    # Tracking, misc
    ("use_wandb", str, None),
    ("wandb_org", str, None),
    ("wandb_group", str, None),
    ("wandb_project", str, "openrlhf_train_ppo"),
    ("use_tensorboard", str, None),
    ("perf", None, False),
    ("use_ms", None, False),
)

NEW = {
    "baseline_ppl_path": None,
    "reward_shape": "tiers",
    "reward_tiers": None,
    "reward_function": None,
    "min_plan_tokens": None,
    "short_plan_penalty": None,
    "eval_temperature": 0.7,
    "eval_top_p": 0.8,
    "eval_top_k": 20,
    "reference_dtype": "fp32",  # tf32 where there is a GPU
    "advantage_eps": None,
    "eval_n_samples": 1,
    "eval_controls": "empty,synopsis,other",
    "keep_train_completions": 100,
    "save_best": None,
    "stop_on_failed_save": False,
    "no_system_role": False,
    "pack_tokens": "micro",  # auto where there is a GPU
    "trust_remote_code": False,
}

# What the paper's scripts pass for 7B, in its order; {dir} and {name} are the user's.
PAPER_7B = """
--zero_stage 3 --adam_offload --gradient_checkpointing --ref_num_nodes 1 --ref_num_gpus_per_node 4
--reward_num_nodes 0 --reward_num_gpus_per_node 0 --actor_num_nodes 1 --actor_num_gpus_per_node 4
--pretrain Qwen/Qwen2.5-7B-Instruct-1M --micro_train_batch_size 1 --train_batch_size 64
--micro_rollout_batch_size 1 --rollout_batch_size 64 --n_samples_per_prompt 8 --max_epochs 1
--prompt_max_len 12000 --max_samples 100000 --generate_max_len 2048 --advantage_estimator group_norm
--bf16 --actor_learning_rate 5e-7 --init_kl_coef 1e-6 --prompt_data json@{dir}/rl_data --input_key prompt
--apply_chat_template --save_steps 16 --eval_steps 8 --eval_split validation
--ckpt_path {dir}/checkpoint/{name} --save_path {dir} --num_episodes 20 --flash_attn --enable_prefix_caching
--vllm_num_engines 2 --vllm_tensor_parallel_size 2 --vllm_gpu_memory_utilization 0.9 --use_kl_loss
--colocate_actor_ref --kl_estimator k3 --torch_compile --use_liger_kernel --ref_reward_offload --load_checkpoint
"""
SCRIPT_CHANGES = {
    "train_7b.sh": {},
    "train_3b.sh": {"--pretrain": "Qwen/Qwen2.5-3B-Instruct", "--n_samples_per_prompt": "16"},
}


def paper_arguments(script: str, folder: Path, name: str = "run") -> list[str]:
    arguments = PAPER_7B.format(dir=folder, name=name).split()
    for flag, value in SCRIPT_CHANGES[script].items():
        arguments[arguments.index(flag) + 1] = value
    return arguments


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """A folder with the files that the launch scripts name."""
    (tmp_path / "rl_data").mkdir()
    for split in ("train", "val", "test"):
        (tmp_path / "rl_data" / f"{split}.jsonl").write_text('{"prompt": []}\n')
    (tmp_path / "baseline.pkl").write_bytes(b"")
    return tmp_path


def actions() -> dict[str, argparse.Action]:
    return {action.dest: action for action in build_parser()._actions if not action.dest.startswith("help")}


@pytest.mark.parametrize(("name", "kind", "default"), UPSTREAM)
def test_upstream_flag(name: str, kind: type | None, default: Any) -> None:
    action = actions()[name]
    assert action.default == default
    assert action.option_strings == [f"--{name}"]
    if kind is None:
        assert (action.nargs, action.const) == ("?", True)  # a switch that may say true or false
    else:
        assert action.type in (kind, None if kind is str else kind)  # argparse: no type means str


def test_the_flags_are_upstreams_and_the_new_ones_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BASELINE_PPL_PATH", raising=False)
    assert set(actions()) == {name for name, _, _ in UPSTREAM} | set(NEW) | {"wandb_run_name", "config", "check_only"}
    args = vars(parse_args([]))
    assert {name: args[name] for name in NEW} == NEW
    assert re.fullmatch(r"ppo_\d{4}T\d\d:\d\d", args["wandb_run_name"])


@pytest.mark.parametrize(
    ("argv", "budgets"),
    # prompt and response of 100 + 28 tokens; three samples of a prompt fill 100 + 3 x 28, or 3 x 128 unshared
    [
        ([], (8 * 128, 4 * 128)),
        (["--micro_train_batch_size", "1"], (8 * 128, 128)),
        (["--pack_tokens", "5000"], (5000, 5000)),
        (["--pack_tokens", "micro", "--micro_train_batch_size", "1"], (8 * 128, 128)),
        (["--pack_tokens", "auto"], (3 * 128, 3 * 128)),
    ],
)
def test_the_token_budgets_of_packs(argv: list[str], budgets: tuple[int, int]) -> None:
    sizes = ["--prompt_max_len", "100", "--generate_max_len", "28", "--n_samples_per_prompt", "3"]
    batch = to_config(parse_args([*sizes, *argv])).batch
    assert (batch.rollout_pack_tokens, batch.train_pack_tokens) == budgets
    assert batch.group_tokens == 184


def test_packs_are_tried_on_a_gpu_unless_a_micro_batch_size_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "driver_num_gpus", lambda: 1)
    assert parse_args([]).pack_tokens == "auto"
    # also where it is the default's value
    assert parse_args(["--micro_train_batch_size", "4"]).pack_tokens == "micro"
    assert parse_args(["--pack_tokens", "7"]).pack_tokens == "7"


@pytest.mark.parametrize("size", ["micro_train_batch_size", "micro_rollout_batch_size"])
@pytest.mark.parametrize("tokens", ["auto", "5000"])
def test_of_the_flags_that_say_how_much_a_pack_holds_the_last_counts(size: str, tokens: str) -> None:
    """So a launch script may pass the paper's micro-batch sizes, and its user something else."""
    assert parse_args(["--pack_tokens", tokens, f"--{size}", "4"]).pack_tokens == "micro"
    assert parse_args([f"--{size}=4", f"--pack_tokens={tokens}"]).pack_tokens == tokens


def test_the_budget_of_an_earlier_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "driver_num_gpus", lambda: 1)
    saved = tmp_path / "config.json"
    saved.write_text(json.dumps({"pack_tokens": "5000", "micro_train_batch_size": 4}))
    again = ["--config", str(saved)]
    assert parse_args(again).pack_tokens == "5000"
    assert parse_args([*again, "--micro_train_batch_size", "2"]).pack_tokens == "micro"
    assert parse_args([*again, "--pack_tokens", "auto"]).pack_tokens == "auto"
    saved.write_text(json.dumps({"micro_train_batch_size": 4}))  # of a run before there was --pack_tokens
    assert parse_args(again).pack_tokens == "micro"


def test_the_baseline_map_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASELINE_PPL_PATH", "from_environment.pkl")
    assert parse_args([]).baseline_ppl_path == "from_environment.pkl"
    assert parse_args(["--baseline_ppl_path", "given.pkl"]).baseline_ppl_path == "given.pkl"


@pytest.mark.parametrize(
    "argv",
    [
        ["--no_such_flag"],
        ["--eval_step", "8"],  # an abbreviation: a typing error would otherwise pass silently
        ["--zero_stage", "two"],
        ["--bf16", "yes"],
        ["--adam_betas", "0.9"],
    ],
)
def test_unknown_flags_and_wrong_types_are_one_line(argv: list[str]) -> None:
    with pytest.raises(UserError) as refusal:
        parse_args(argv)
    assert argv[0] in str(refusal.value)
    assert "\n" not in str(refusal.value)


def config_value(config: TrainConfig, path: str) -> Any:
    return functools.reduce(getattr, path.split("."), config)


BASE = ["--pretrain", "m", "--prompt_data", "d", "--vllm_num_engines", "1"]


def test_no_flag_is_accepted_and_ignored() -> None:
    """Each flag has its fields in the configuration or is refused, and no field has two flags."""
    without_effect = {flag.name for flag in FLAGS if not flag.paths and flag.refused is None}
    assert without_effect == {"packing_samples"}  # always on
    paths = [path for flag in FLAGS for path in flag.paths]
    assert len(paths) == len(set(paths))
    assert not {flag.name for flag in COMMAND_FLAGS if flag.paths}


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.paths], ids=lambda flag: flag.name)
def test_a_value_lands_in_the_fields_that_its_row_names(flag: Flag) -> None:
    value = {bool: "true", int: "7", float: "0.25", str: "text"}[flag.kind]
    config = to_config(parse_args([*BASE, f"--{flag.name}", *[value] * int(flag.count or 1)]))
    expected: Any = {bool: True, int: 7, float: 0.25, str: "text"}[flag.kind]
    for path in flag.paths:
        assert config_value(config, path) == ((expected,) * int(flag.count) if flag.count else expected)


def test_the_configuration_without_flags_is_that_of_its_own_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two places say a default, the row and the dataclass: they say the same."""
    monkeypatch.delenv("BASELINE_PPL_PATH", raising=False)
    config = to_config(parse_args([]))
    differing = set()
    for flag in FLAGS:
        for path in flag.paths:
            part, _, name = path.rpartition(".")
            field = next(
                f for f in dataclasses.fields(config_value(config, part) if part else config) if f.name == name
            )
            if field.default not in (dataclasses.MISSING, config_value(config, path)):
                differing.add(path)
    assert differing == {
        "algorithm.advantage_estimator",  # upstream's gae is refused
        "engine.num_engines",  # has to be given
        "tracking.wandb_run_name",  # the time
        *(
            f"evaluation.sampling.{name}" for name in ("temperature", "top_p", "top_k")
        ),  # SamplingConfig serves rollouts too
    }


@pytest.mark.parametrize("dtype", ["bf16", "tf32", "fp32"])
def test_the_reference_model_has_a_precision_of_its_own(dtype: str) -> None:
    for policy in ([], ["--bf16"]):
        config = to_config(parse_args([*BASE, *policy, "--reference_dtype", dtype]))
        assert (config.reference.bf16, config.reference.tf32) == (dtype == "bf16", dtype == "tf32")
        assert config.ref_deepspeed.bf16 == (dtype == "bf16")
        assert (config.policy.bf16, config.policy.tf32, config.actor_deepspeed.bf16) == (
            bool(policy),
            False,
            bool(policy),
        )


def test_scoring_is_in_tf32_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_args(["--bf16"]).reference_dtype == "fp32"
    monkeypatch.setattr(machine, "driver_num_gpus", lambda: 8)
    assert parse_args(["--bf16"]).reference_dtype == "tf32"


@pytest.mark.parametrize(
    ("argv", "eps"),
    [
        ([], 1e-3),  # tiers
        (["--reward_shape", "nll_delta"], 1e-3),  # nats
        (["--reward_shape", "improvement"], 0.1),  # percent
        (["--reward_shape", "negative"], 0.1),
        (["--reward_shape", "improvement", "--advantage_eps", "1e-9"], 1e-9),
        (["--remote_rm_url", "reward.py"], 1e-3),
    ],
)
def test_the_advantages_epsilon_is_in_the_rewards_unit(argv: list[str], eps: float) -> None:
    assert to_config(parse_args([*BASE, *argv])).algorithm.advantage_eps == eps


@pytest.mark.parametrize("script", SCRIPT_CHANGES)
def test_the_papers_arguments_land_in_the_configuration(script: str, data_folder: Path) -> None:
    argv = [*paper_arguments(script, data_folder), "--baseline_ppl_path", str(data_folder / "baseline.pkl")]
    args = parse_args(argv)
    args.use_liger_kernel = False  # its package is for GPU machines only; checked in test_validate.py
    checked_config(args, num_gpus=8)
    config = to_config(parse_args(argv))

    assert (
        config.policy.pretrain
        == config.reference.pretrain
        == SCRIPT_CHANGES[script].get("--pretrain", "Qwen/Qwen2.5-7B-Instruct-1M")
    )
    for model in (config.policy, config.reference):
        assert (model.flash_attn, model.torch_compile, model.use_liger_kernel) == (True, True, True)
    assert (config.policy.bf16, config.actor_deepspeed.bf16) == (True, True)
    assert (config.policy.gradient_checkpointing, config.reference.gradient_checkpointing) == (True, False)
    assert (config.actor_deepspeed.zero_stage, config.ref_deepspeed.zero_stage) == (3, 3)
    assert (config.actor_deepspeed.adam_offload, config.ref_deepspeed.adam_offload) == (True, False)
    assert (config.actor_deepspeed.param_offload, config.ref_deepspeed.param_offload) == (False, True)
    assert config.actor_deepspeed.max_norm == 1.0

    assert config.optimizer.learning_rate == 5e-7
    assert (config.optimizer.adam_betas, config.optimizer.weight_decay) == ((0.9, 0.95), 0.0)
    assert (config.optimizer.lr_warmup_ratio, config.optimizer.min_lr_ratio) == (0.03, 0.1)
    algorithm = config.algorithm
    assert (algorithm.advantage_estimator, algorithm.init_kl_coef, algorithm.kl_estimator) == ("group_norm", 1e-6, "k3")
    assert (algorithm.use_kl_loss, algorithm.eps_clip, algorithm.max_epochs) == (True, 0.2, 1)
    assert (algorithm.gamma, algorithm.reward_clip_range, algorithm.kl_target) == (1.0, (-10.0, 10.0), None)

    num_samples = 16 if script == "train_3b.sh" else 8
    assert (config.batch.n_samples_per_prompt, config.rollout_sampling.n) == (num_samples, num_samples)
    assert (config.batch.rollout_batch_size, config.batch.train_batch_size) == (64, 64)
    assert (config.batch.micro_rollout_batch_size, config.batch.micro_train_batch_size) == (1, 1)
    assert (config.batch.prompt_max_len, config.batch.generate_max_len) == (12_000, 2_048)
    assert (config.rollout_sampling.temperature, config.rollout_sampling.top_p) == (1.0, 1.0)
    assert config.rollout_sampling.max_tokens == 2_048
    assert (config.num_episodes, config.data.max_samples, config.seed) == (20, 100_000, 42)

    assert (config.placement.actor_num_nodes, config.placement.actor_num_gpus_per_node) == (1, 4)
    assert (config.placement.ref_num_nodes, config.placement.ref_num_gpus_per_node) == (1, 4)
    assert config.placement.colocate_actor_ref
    engine = config.engine
    assert (engine.num_engines, engine.tensor_parallel_size, engine.sync_backend) == (2, 2, "nccl")
    assert (engine.max_model_len, engine.gpu_memory_utilization, engine.bf16) == (14_048, 0.9, True)
    assert engine.enable_prefix_caching

    assert (config.checkpoint.save_steps, config.evaluation.eval_steps) == (16, 8)
    assert config.checkpoint.load_checkpoint
    assert config.checkpoint.save_path == str(data_folder)
    assert config.checkpoint.ckpt_path == f"{data_folder}/checkpoint/run"
    sampling = config.evaluation.sampling
    assert (sampling.n, sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_tokens) == (
        1, 0.7, 0.8, 20, 2_048,
    )  # fmt: skip
    assert (config.data.eval_split, config.data.input_key, config.data.apply_chat_template) == (
        "validation", "prompt", True,
    )  # fmt: skip
    assert (config.reward.reward_shape, config.reward.reward_tiers) == ("tiers", None)
    assert config.reward.baseline_ppl_path == str(data_folder / "baseline.pkl")


def test_max_len_caps_prompt_and_response_together() -> None:
    assert to_config(parse_args(BASE)).engine.max_model_len == 2048
    assert to_config(parse_args([*BASE, "--max_len", "1500"])).engine.max_model_len == 1500
    assert to_config(parse_args([*BASE, "--max_len", "9999"])).engine.max_model_len == 2048


def as_pairs(argv: list[str]) -> dict[str, list[str]]:
    """`--flag` -> its values; the order of flags does not matter."""
    pairs: dict[str, list[str]] = {}
    for argument in argv:
        if argument.startswith("--"):
            assert argument not in pairs, f"{argument} twice"
            pairs[argument] = []
        else:
            pairs[list(pairs)[-1]].append(argument)
    return pairs


@pytest.mark.parametrize("script", SCRIPT_CHANGES)
def test_the_launch_scripts_pass_the_papers_arguments(script: str, data_folder: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "DRY_RUN": "1",
        "DATA_DIR": str(data_folder),
        "NAME": "run",
        "BASELINE_PPL_PATH": str(data_folder / "baseline.pkl"),
    }
    command = [str(ROOT / script), "--eps_clip", "0.3"]
    result = subprocess.run(command, env=environment, cwd=data_folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    argv = result.stdout.splitlines()
    assert argv[:2] == ["python3", str(ROOT / "train_ncp.py")]
    passed = as_pairs(argv[2:])
    assert passed.pop("--baseline_ppl_path") == [str(data_folder / "baseline.pkl")]
    assert passed.pop("--pack_tokens") == ["auto"], "after the paper's micro-batch sizes, so that it counts"
    assert passed.pop("--eps_clip") == ["0.3"], "the script's own arguments are passed through"
    expected = as_pairs(paper_arguments(script, data_folder))
    # One folder a run: in the paper's `--save_path DIR` two runs of one DIR would write over each other.
    assert passed.pop("--save_path") == expected["--ckpt_path"] == [f"{data_folder}/checkpoint/run"]
    assert expected.pop("--save_path") == [str(data_folder)]
    assert passed == expected
