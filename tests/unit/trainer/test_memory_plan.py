"""Estimates of memory: by hand for round sizes, and beside what was measured (docs/experiments.md, 7 and 8)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openrlhf.config import DeepspeedConfig, EngineConfig, ModelConfig
from openrlhf.trainer.memory_plan import (
    ENGINE_OVERHEAD,
    GIB,
    ModelShape,
    engine_plan,
    layer_bytes,
    policy_host,
    policy_parts,
    reference_host,
    reference_parts,
    scoring_activations,
    training_activations,
)

B = 10**9
SHAPE = ModelShape(
    parameters=4 * B, embedding=100_000, layers=10, hidden=100, intermediate=400, query=100, key_value=20
)
QWEN_1_5B = ModelShape(
    parameters=1_543_714_304,
    embedding=151_936 * 1536,
    layers=28,
    hidden=1536,
    intermediate=8960,
    query=1536,
    key_value=256,
)


@pytest.mark.parametrize(
    ("stage", "bf16", "ranks", "weights", "gradients", "optimizer"),
    # billions of bytes for 4 billion parameters; the bucket in which gradients are reduced: 0.5 billion elements
    [
        (0, False, 1, 16, 16, 32),  # fp32: Adam steps the weights themselves: 8 a parameter
        (0, True, 4, 8, 8 + 16, 48),  # bf16 gradients, accumulated in fp32; optimizer 12 a parameter
        (1, True, 4, 8, 8 + 1, 12),  # a quarter of the optimizer each
        (2, True, 4, 8, 2 + 1, 12),
        (3, True, 4, 2 + 2, 2 + 1, 12),  # a quarter of the weights, and 1 billion parameters gathered
        (3, True, 1, 8, 8 + 1, 48),  # nothing to gather
        (3, False, 4, 4 + 4, 4 + 2, 12),
    ],
)
def test_a_policy_rank(stage, bf16, ranks, weights, gradients, optimizer):
    parts = policy_parts(SHAPE, DeepspeedConfig(zero_stage=stage, bf16=bf16), ranks=ranks)
    assert parts == {"weights": weights * B, "gradients": gradients * B, "optimizer": optimizer * B}


def test_an_optimizer_on_the_host():
    deepspeed = DeepspeedConfig(zero_stage=3, bf16=True, adam_offload=True)
    # on the GPU weights and the bucket; on the host moments 8, masters 4, fp32 gradients 4, accumulated bf16 2
    assert policy_parts(SHAPE, deepspeed, ranks=1) == {"weights": 8 * B, "gradients": B, "optimizer": 0}
    assert policy_host(SHAPE, deepspeed, share=1.0) == {"optimizer and gradients": 4 * 18 * B}
    assert policy_host(SHAPE, deepspeed, share=0.5) == {"optimizer and gradients": 2 * 18 * B}
    assert policy_host(SHAPE, replace(deepspeed, adam_offload=False), share=1.0) == {}


def test_a_reference_rank():
    tf32, bf16 = ModelConfig(pretrain="m", tf32=True), ModelConfig(pretrain="m", bf16=True)
    whole, parted = DeepspeedConfig(zero_stage=2), DeepspeedConfig(zero_stage=3)
    offloaded = replace(parted, param_offload=True)
    assert reference_parts(SHAPE, tf32, whole, ranks=4) == {"reference model": 16 * B}
    assert reference_parts(SHAPE, bf16, whole, ranks=4) == {"reference model": 8 * B}
    assert reference_parts(SHAPE, tf32, parted, ranks=4) == {"reference model": (4 + 4) * B}
    assert reference_parts(SHAPE, tf32, offloaded, ranks=1) == {"reference model": 4 * B}
    assert reference_host(SHAPE, tf32, offloaded, share=1.0) == {"reference model": 2 * 16 * B}
    assert reference_host(SHAPE, tf32, parted, share=1.0) == {}


def test_activations_by_hand():
    # a layer keeps of a token, bf16: MLP 4 x 400 x 2, attention 3 x (100 + 20) x 2, norms 2 x 100 x (8 + 4)
    assert layer_bytes(SHAPE, 2) == 3200 + 720 + 2400
    with_checkpointing = ModelConfig(pretrain="m", bf16=True, gradient_checkpointing=True)
    without = replace(with_checkpointing, gradient_checkpointing=False)
    # Ten layers' inputs of 200 bytes and one and a half layers, or ten layers; the rest is the head's, for both.
    saved = training_activations(SHAPE, 1000, without) - training_activations(SHAPE, 1000, with_checkpointing)
    assert saved == 1000 * (10 * 6320 - 10 * 200 - 6320 - 3160)
    # embedding and head gradients 2 x 100,000 x 2; 2^26 logits x 2 x (2 + 4); the last norm in fp32 3 x 100 x 4
    assert training_activations(SHAPE, 1000, without) == 1000 * 63_200 + 400_000 + 2**26 * 12 + 1000 * 1200


def test_an_engine():
    engine = EngineConfig(bf16=True, tensor_parallel_size=2, gpu_memory_utilization=0.5, max_model_len=1000)
    # half of 40 GiB, less 4 B x 2 / 2 of weights and vLLM's own; a token's keys and values 2 x 10 x 20 x 2 / 2 = 400
    plan = engine_plan(SHAPE, engine, card=40 * GIB)
    assert (plan.share, plan.weights, plan.token) == (20 * GIB, 4 * B, 400)
    assert plan.sequences == (20 * GIB - 4 * B - ENGINE_OVERHEAD) // 400_000


@pytest.mark.parametrize(("gradient_checkpointing", "measured_gib"), [(True, 18.48), (False, 54.15)])
def test_estimates_beside_a_measured_training_pack(gradient_checkpointing: bool, measured_gib: float):
    """1.5B, ZeRO 2, 14,000 tokens, one H100; before the first optimizer step, so without Adam's moments."""
    parts = policy_parts(QWEN_1_5B, DeepspeedConfig(zero_stage=2, bf16=True), ranks=1)
    moments = 8 * QWEN_1_5B.parameters
    assert (parts["weights"] + parts["optimizer"] - moments) / GIB == pytest.approx(8.63, abs=0.01)
    model = ModelConfig(pretrain="m", bf16=True, gradient_checkpointing=gradient_checkpointing)
    estimate = sum(parts.values()) - moments + training_activations(QWEN_1_5B, 14_000, model)
    assert estimate / GIB == pytest.approx(measured_gib, rel=0.1)


@pytest.mark.parametrize(("bf16", "measured_gib"), [(True, 3.7), (False, 7.4)])
def test_estimates_beside_measured_scoring(bf16: bool, measured_gib: float):
    """1.5B, packs of up to 8,192 + 8 x 1,024 tokens."""
    model = ModelConfig(pretrain="m", bf16=bf16, tf32=not bf16)
    weights = reference_parts(QWEN_1_5B, model, DeepspeedConfig(zero_stage=2), ranks=1)["reference model"]
    assert (weights + scoring_activations(QWEN_1_5B, 16_384, model)) / GIB == pytest.approx(measured_gib, rel=0.1)
