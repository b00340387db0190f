"""The check of memory before a run: what it prints, what it refuses, and what it says would fit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from openrlhf.cli.flags import parse_args, to_config
from openrlhf.config import ModelConfig, TrainConfig
from openrlhf.errors import UserError
from openrlhf.trainer.memory_check import Machine, check_memory, largest_packs, memory_problems
from openrlhf.trainer.memory_plan import GIB, ModelShape
from openrlhf.trainer.preflight import model_shape
from support.tiny_models import random_model
from support.tiny_run import arguments

QWEN_7B = ModelShape(
    parameters=7_615_616_512,
    embedding=152_064 * 3584,
    layers=28,
    hidden=3584,
    intermediate=18_944,
    query=3584,
    key_value=512,
)
CARD, HOST = 80 * GIB, 512 * GIB
PAPER = {
    "bf16": True,
    "zero_stage": 3,
    "adam_offload": True,
    "ref_reward_offload": True,
    "gradient_checkpointing": True,
    "reference_dtype": "tf32",
    "micro_train_batch_size": 1,
    "micro_rollout_batch_size": 1,
    "n_samples_per_prompt": 8,
    "prompt_max_len": 12_000,
    "generate_max_len": 2048,
    "actor_num_gpus_per_node": 4,
    "ref_num_gpus_per_node": 4,
    "vllm_num_engines": 2,
    "vllm_tensor_parallel_size": 2,
}


def config(**changes: Any) -> TrainConfig:
    return to_config(parse_args(arguments(Path("world"), Path("out"), **{**PAPER, **changes})))


def problems(machine: Machine, **changes: Any) -> list[str]:
    return list(memory_problems(config(**changes), QWEN_7B, machine))


def test_the_papers_settings_fit_on_80_gb():
    assert problems(Machine(card=CARD, host=HOST)) == []


def test_7b_on_one_card_with_its_optimizer_is_refused_with_the_flag_that_helps():
    # bf16 weights 15.2 GB, gradients 15.2 and a bucket, optimizer 91.4
    (problem,) = problems(
        Machine(card=CARD, host=HOST), adam_offload=None, actor_num_gpus_per_node=1, ref_num_gpus_per_node=1
    )
    assert problem.startswith("a policy worker's GPU has 80.0 GiB and would need")
    assert "optimizer 85.1 GiB" in problem
    assert problem.endswith("it would fit with --adam_offload")


def test_7b_whose_optimizer_does_not_fit_on_the_host():
    # 18 bytes a parameter are 127.7 GiB, the reference model in fp32 twice 28.4: a machine of 128 GiB is too small
    (problem,) = problems(Machine(card=CARD, host=128 * GIB))
    assert problem.startswith(
        "the host has 128.0 GiB of memory and would need 184.4 GiB (optimizer and gradients 127.7 GiB"
    )
    assert problem.endswith("it would fit with --adam_offload false")


@pytest.mark.parametrize(("host_gib", "refused"), [(184, False), (176, False), (175, True)])
def test_an_estimate_that_is_hardly_too_large_is_let_go(host_gib: int, refused: bool):
    # 184.4 GiB are needed: 175.6 x 1.05
    assert bool(problems(Machine(card=CARD, host=host_gib * GIB))) == refused


def test_several_flags_at_once():
    # A host of 64 GiB holds no optimizer (127.7 GiB), and half of it fills a card of 40.
    flags = {"zero_stage": 2, "adam_offload": None, "ref_reward_offload": None}
    gpus = {"actor_num_gpus_per_node": 2, "ref_num_gpus_per_node": 2}
    (problem,) = problems(Machine(card=40 * GIB, host=64 * GIB), **flags, **gpus)
    assert problem.endswith(
        "it would fit with --zero_stage 3 --ref_reward_offload, --actor_num_gpus_per_node 8, --ref_num_gpus_per_node 8"
    )


def test_what_nothing_helps():
    problem, *_ = problems(Machine(card=2 * GIB, host=HOST))
    assert problem.endswith(
        "take a smaller model, a larger GPU or host, or shorter --prompt_max_len and --generate_max_len"
    )


def test_an_engine_without_room_for_a_sequence():
    # a half of 16 GiB, weights 7.1, 2 of vLLM's own
    (problem,) = problems(Machine(card=16 * GIB, host=HOST), vllm_gpu_memory_utilization=0.5)[-1:]
    assert problem.startswith(
        "--vllm_gpu_memory_utilization 0.5: an engine's 8.0 GiB hold 7.1 GiB of weights and no sequence"
    )


def test_without_a_gpu_here_estimates_are_printed_and_nothing_is_refused(caplog):
    with caplog.at_level(logging.INFO):
        check_memory(config(adam_offload=None, zero_stage=0, ref_reward_offload=None), QWEN_7B, Machine())
    assert "memory, estimated for 7.62B parameters:" in caplog.text
    assert "  a policy worker: " in caplog.text
    assert "28,672 bytes a token for keys and values" in caplog.text  # 2 x 28 x 512 x 2 / 2 GPUs


def test_what_is_printed_with_a_gpu(caplog):
    with caplog.at_level(logging.INFO):
        check_memory(config(), QWEN_7B, Machine(card=CARD, host=HOST))
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0].split(" (")[0] for line in lines] == [
        "memory, estimated for 7.62B parameters",
        "  a policy worker",
        "  a training pack of 14,048 tokens",
        "  an engine's worker",
        "  a node's host memory",
    ]
    assert "room for" in lines[3]


def test_refusals_come_together():
    with pytest.raises(UserError) as refusal:
        check_memory(config(vllm_gpu_memory_utilization=0.1), QWEN_7B, Machine(card=10 * GIB, host=GIB))
    assert len(str(refusal.value).splitlines()) == 3


def test_the_largest_pack_is_what_a_group_can_fill():
    # budget 4 x 14,048, a group of 8: 12,000 + 8 x 2,048 = 28,384
    batch = config(micro_train_batch_size=4).batch
    assert largest_packs(batch) == {"train_tokens": 28_384, "score_tokens": 14_048}


def test_a_models_shape_is_read_without_weights(tmp_path: Path):
    model = random_model("qwen2", vocab_size=100, num_attention_heads=4, head_dim=8)
    model.config.save_pretrained(tmp_path)
    assert model_shape(ModelConfig(pretrain=str(tmp_path))) == ModelShape(
        parameters=model.num_parameters(),
        embedding=100 * 32,
        layers=2,
        hidden=32,
        intermediate=64,
        query=32,
        key_value=16,
    )
