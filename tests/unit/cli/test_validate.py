"""Every refusal names the flag and what to do; what is supported passes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openrlhf.cli import flags as flags_module
from openrlhf.cli.flag_rows import Flag
from openrlhf.cli.flag_table import FLAGS
from openrlhf.cli.flags import parse_args, to_config
from openrlhf.cli.validate import ConfigError, checked_config, reward_flag_problems
from support.command_line import Problems


def test_a_good_command_line_passes(problems: Problems) -> None:
    assert problems() == []
    assert problems("--vllm_sync_backend nccl", num_gpus=2) == []
    assert problems(num_gpus=None) == []


def test_upstreams_defaults_of_refused_features_pass() -> None:
    for flag in FLAGS:
        refused = flag.refused is not None and flag.refused.applies(flag.default, flag.default)
        assert refused == (flag.name == "advantage_estimator"), flag.name


REFUSED_VALUES = {
    "advantage_estimator": "gae",
    "critic_pretrain": "some/critic",
    "reward_pretrain": "some/reward-model",
    "value_head_prefix": "value",
    "target_modules": "q_proj v_proj",
    "pretrain_data": "json@corpus",
    "pretrain_data_probs": "0.5,0.5",
    "pretrain_split": "test",
}


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.refused], ids=lambda flag: flag.name)
def test_an_unsupported_flag_is_refused_by_name_with_an_alternative(flag: Flag, problems: Problems) -> None:
    value = "" if flag.kind is bool else REFUSED_VALUES.get(flag.name, "0.5" if flag.kind is float else "3")
    (line,) = problems(f"--{flag.name} {value}")
    assert line.startswith(f"--{flag.name} {value}".rstrip() + ":")
    assert flag.refused is not None
    assert flag.refused.why in line
    assert line.endswith(flag.refused.instead)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        # numbers
        ("--rollout_batch_size 0", "must be positive"),
        ("--micro_train_batch_size -1", "must be positive"),
        ("--micro_rollout_batch_size 0", "must be positive"),
        ("--pack_tokens 0", "must be auto, micro or a positive number of tokens"),
        ("--pack_tokens many", "must be auto, micro or a positive number of tokens"),
        ("--num_episodes 0", "must be positive"),
        ("--temperature 0", "0.01 to 100"),
        ("--actor_learning_rate nan", "a finite number"),
        ("--eps_clip 1", "between 0 and 1"),
        ("--eps_clip 0", "between 0 and 1"),
        ("--top_p 0", "at most 1"),
        ("--eval_top_p 1.1", "at most 1"),
        ("--eval_top_k 0", "-1 (all) or positive"),
        ("--eval_steps 0", "-1 (never) or positive"),
        ("--save_steps -2", "-1 (never) or positive"),
        ("--vllm_gpu_memory_utilization 1.5", "at most 1"),
        ("--reward_clip_range 10 -10", "the lower bound first"),
        ("--adam_betas 0.9 1", "below 1"),
        ("--kl_estimator k4", "must be k1, k2 or k3"),
        # sizes that do not fit together
        ("--n_samples_per_prompt 1", "group_norm compares the samples of a prompt"),
        ("--advantage_estimator rloo --n_samples_per_prompt 1", "rloo compares"),
        ("--train_batch_size 33", "more than the 32 samples of a rollout"),
        ("--eval_n_samples 2 --eval_temperature 0", "greedy"),
        ("--max_len 1024", "no room for a response"),
        ("--eval_controls empty,shuffled", "unknown control 'shuffled'; choose from empty, synopsis, other, or none"),
        ("--save_best improvement_pct --eval_steps -1", "there are no evaluations"),
        ("--save_best reward --eval_steps 1 --disable_ds_ckpt", "a DeepSpeed checkpoint"),
        ("--min_plan_tokens 2000", "no response has more"),
        ("--min_plan_tokens 0", "must be positive"),
        (
            "--min_plan_tokens 4 --reward_shape improvement",
            "loses 12, more than --reward_clip_range -10 10 lets through",
        ),
        ("--min_plan_tokens 9 --short_plan_penalty 2", "pass --reward_clip_range -28 10"),
        ("--short_plan_penalty 0.1", "does nothing without --min_plan_tokens"),
        ("--prompt_max_len 4000", "the model has 4096 positions"),
        ("--vllm_tensor_parallel_size 2", "does not divide the model's 9 attention heads"),
        # placement and DeepSpeed
        ("--ref_num_gpus_per_node 2", "pass --ref_num_gpus_per_node 1"),
        ("--zero_stage 4", "0, 1, 2 or 3"),
        ("--zpg 2", "--zpg 2"),
        ("--ref_reward_offload", "--zero_stage 3"),
        ("--grad_accum_dtype fp8", "fp32 or bf16"),
        # flags that would do nothing
        ("--gradient_checkpointing_use_reentrant", "does nothing without --gradient_checkpointing"),
        ("--wandb_group g", "does nothing without --use_wandb"),
        ("--kl_target 6 --init_kl_coef 0", "does nothing without --init_kl_coef"),
        ("--input_template Q:{}", "drop one of the two"),
        # places
        ("--pretrain ./nowhere/model", "no such folder"),
        ("--pretrain rl_data", "no config.json"),
        ("--prompt_data json@nowhere", "setup_rl_data.py"),
        ("--prompt_data parquet@rl_data", "pass json@DIR"),
        ("--eval_split dev", "rl_data holds no dev.jsonl"),
        ("--prompt_split dev", "rl_data holds no dev.jsonl"),
        ("--prompt_data json@rl_data,json@rl_data", "one share for each"),
        ("--prompt_data json@rl_data,json@rl_data --prompt_data_probs 0.5,0.6", "sum to 1"),
        ("--prompt_data_probs half", "not numbers"),
        ("--baseline_ppl_path nowhere.pkl", "compute_baseline_perplexity.py"),
        # reward
        ("--reward_tiers 1-2", "threshold:reward"),
        ("--reward_shape binary --reward_tiers 1:2", "tiers"),
        ("--reward_function nowhere.py:reward", "nowhere.py"),
        ("--remote_rm_url http://localhost:5000/get_reward", "reward servers are not supported"),
    ],
)
def test_a_bad_value_is_refused(extra: str, words: str, problems: Problems) -> None:
    lines = problems(extra)
    flag = extra.split()[0].removeprefix("--")
    assert any(words in line and f"--{flag}" in line for line in lines), lines


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--pretrain", "Hugging Face folder"),
        ("--prompt_data", "json@DIR"),
        ("--vllm_num_engines", "at least 1"),
        ("--advantage_estimator", "pass --advantage_estimator group_norm"),
    ],
)
def test_a_missing_flag_is_asked_for(flag: str, words: str, problems: Problems) -> None:
    (line,) = problems(drop=flag)
    assert line.startswith(flag)
    assert words in line


def test_a_split_that_is_never_evaluated_need_not_exist(problems: Problems) -> None:
    assert problems("--eval_split dev --eval_steps -1") == []


@pytest.mark.parametrize("name", ["validation.jsonl", "val.jsonl"])
def test_validation_is_val_or_validation(name: str, folder: Path, problems: Problems) -> None:
    (folder / "rl_data" / "val.jsonl").rename(folder / "rl_data" / name)
    assert problems("--eval_split validation") == []
    assert problems("--eval_split val") == []


@pytest.mark.parametrize(
    "flag", ["flash_attn", "adam_offload", "use_liger_kernel", "ref_reward_offload --zero_stage 3"]
)
def test_gpu_features_are_refused_on_a_cpu_machine_only(flag: str, problems: Problems, monkeypatch) -> None:
    (line,) = problems(f"--{flag}", num_gpus=0)
    name = flag.split()[0]
    assert line.startswith(f"--{name}: this machine has no GPU")
    assert f"drop --{name}" in line
    monkeypatch.setattr(flags_module.importlib.util, "find_spec", lambda package: object())
    assert problems(f"--{flag} --vllm_sync_backend nccl", num_gpus=2) == []


def test_each_machine_has_its_weight_transfer(problems: Problems) -> None:
    (line,) = problems("--vllm_sync_backend nccl", num_gpus=0)
    assert line.startswith("--vllm_sync_backend nccl")
    assert line.endswith("use gloo")
    (line,) = problems("--vllm_sync_backend gloo", num_gpus=2)
    assert line.startswith("--vllm_sync_backend gloo")
    assert line.endswith("use nccl")


def test_one_engine_cannot_be_spread_over_a_cpu(problems: Problems) -> None:
    (line,) = problems("--vllm_tensor_parallel_size 3", num_gpus=0)
    assert line.startswith("--vllm_tensor_parallel_size 3")


def test_gpus_are_counted(problems: Problems) -> None:
    # 4 for policy and reference together, 2 engines of 3: 10
    asked = "--actor_num_gpus_per_node 4 --ref_num_gpus_per_node 4 --vllm_num_engines 2 --vllm_tensor_parallel_size 3"
    asked += " --vllm_sync_backend nccl"
    assert problems(asked, num_gpus=10) == []
    (line,) = problems(asked, num_gpus=9)
    assert "needs 10 GPUs (4 for the policy + 6 for the engines) and 9 are there" in line
    # apart: 4 + 4 + 6
    assert problems(asked, num_gpus=14, drop="--colocate_actor_ref") == []
    (line,) = problems(asked, num_gpus=13, drop="--colocate_actor_ref")
    assert "14 GPUs" in line
    assert "or pass --colocate_actor_ref" in line
    assert problems(asked, num_gpus=None) == []


def test_packages_must_be_there_when_asked_for(problems: Problems, monkeypatch) -> None:
    monkeypatch.setattr(flags_module.importlib.util, "find_spec", lambda package: None)
    (line,) = problems("--use_tensorboard logs")
    assert line.startswith("--use_tensorboard")
    assert "pip install tensorboard" in line
    (line,) = problems("--use_wandb a-secret-key")
    assert "pip install wandb" in line
    assert "a-secret-key" not in line
    (line,) = problems("--use_liger_kernel --vllm_sync_backend nccl", num_gpus=2)
    assert "pip install liger-kernel" in line


def test_a_reward_file_takes_the_place_of_vr_cli(folder: Path, problems: Problems) -> None:
    (folder / "reward.py").write_text("def reward_func(queries, prompts, labels):\n    return [0.0] * len(queries)\n")
    assert problems("--remote_rm_url reward.py", drop="--baseline_ppl_path") == []
    assert problems("--remote_rm_url reward.py --label_key answer", drop="--baseline_ppl_path") == []
    (line,) = problems("--remote_rm_url reward.py")
    assert line.startswith("--baseline_ppl_path baseline.pkl")
    (line,) = problems("--remote_rm_url reward.py --reward_shape binary", drop="--baseline_ppl_path")
    assert line.startswith("--reward_shape binary")
    (folder / "empty.py").write_text("")
    (line,) = problems("--remote_rm_url empty.py", drop="--baseline_ppl_path")
    assert "reward_func" in line


def test_a_hub_id_is_left_to_the_hub_and_a_scaled_rotary_embedding_is_not(folder: Path, problems: Problems) -> None:
    assert problems("--pretrain Qwen/Qwen2.5-7B-Instruct-1M --prompt_max_len 100000") == []
    config = {"max_position_embeddings": 512, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}
    (folder / "model" / "config.json").write_text(json.dumps(config))
    (line,) = problems()  # with YaRN it names the length after scaling, as vLLM has it
    assert "the model has 512 positions" in line
    config = {"max_position_embeddings": 512, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}
    (folder / "model" / "config.json").write_text(json.dumps(config))
    assert problems() == []
    (folder / "model" / "config.json").write_text("{")
    (line,) = problems()
    assert "config.json is not JSON" in line


def test_all_problems_come_in_one_report(problems: Problems) -> None:
    lines = problems("--lora_rank 8 --eps_clip 2 --flash_attn --prompt_data json@nowhere")
    assert [line.split()[0].rstrip(":") for line in lines] == [
        "--eps_clip", "--flash_attn", "--lora_rank", "--prompt_data",
    ]  # fmt: skip
    report = str(ConfigError(lines))
    assert report.startswith("4 problems with the arguments:\n  --eps_clip 2.0: ")
    assert len(report.splitlines()) == 5


@pytest.mark.parametrize(("num_gpus", "device"), [(0, "cpu"), (8, "cuda"), (None, "cuda")])
def test_the_engines_device_is_the_machines(num_gpus: int | None, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openrlhf.cli.validate.flag_problems", lambda *_, **__: [])
    monkeypatch.setattr("openrlhf.cli.validate.validate", lambda *_, **__: [])
    assert checked_config(flags_module.parse_args([]), num_gpus=num_gpus).engine.device == device


@pytest.mark.parametrize(
    "given",
    [
        "--reward_shape binary",
        "--reward_tiers 1:1",
        "--reward_function file.py:name",
        "--baseline_ppl_path x.pkl",
        "--min_plan_tokens 8",
        "--short_plan_penalty 0.5",
    ],
)
def test_a_task_of_another_reward_refuses_the_flags_that_it_does_not_read(given: str) -> None:
    config = to_config(parse_args(given.split()))
    (problem,) = reward_flag_problems(config, {"label_key"}, "TwentyTokensMaker")
    assert problem.startswith(f"{given}: TwentyTokensMaker does not read it; drop it, or run train_ncp.py")


def test_a_task_says_which_reward_flags_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASELINE_PPL_PATH", "x.pkl")
    config = to_config(parse_args(["--remote_rm_url", "reward.py", "--label_key", "answer"]))
    read = {"remote_rm_url", "label_key", "baseline_ppl_path"}
    assert list(reward_flag_problems(config, read, "Maker")) == []
    assert [problem.split()[0] for problem in reward_flag_problems(config, {"remote_rm_url"}, "Maker")] == [
        "--baseline_ppl_path",
        "--label_key",
    ]
