"""What of a run will lie where, in bytes: pure functions of the configuration and of the model's shape.

Estimates: docs/experiments.md compares them with what was measured. What they leave out (fragments, workspaces of
kernels, NCCL) is in `OTHER`. T is the number of tokens of a pack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from openrlhf.config import DeepspeedConfig, EngineConfig, ModelConfig, TrainConfig
from openrlhf.models.logprobs import MAX_LOGITS

FP32, BF16 = 4, 2
GIB = 2**30
OTHER = GIB
"""A process's CUDA context, kernels and buffers."""
LIVE_PARAMETERS = 10**9
"""Parameters that ZeRO-3 keeps gathered at most (DeepSpeed's max_live_parameters)."""
REDUCE_BUCKET = 5 * 10**8
"""Elements of the buffer in which DeepSpeed reduces gradients (reduce_bucket_size)."""
PAGE_LOCKED = 2
"""How often their size offloaded weights take of the host: torch allocates page-locked memory in powers of two.
Measured with a 7B model: 56.0 GiB for 28.4."""
ENGINE_OVERHEAD = 2 * GIB
"""What vLLM takes beside weights, keys and values: activations of its largest batch, CUDA graphs."""

Parts = Mapping[str, int]
"""Bytes by what they are for."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The sizes that memory depends on."""

    parameters: int
    embedding: int
    """Elements of the token embedding: the LM head's too."""
    layers: int
    hidden: int
    intermediate: int
    query: int
    """Query heads times head dimension."""
    key_value: int
    """Key-value heads times head dimension."""


@dataclass(frozen=True, kw_only=True)
class EnginePlan:
    """One GPU of a vLLM engine."""

    share: int
    """Bytes that the engine takes."""
    weights: int
    token: int
    """Bytes of one token's keys and values on this GPU."""
    sequences: int
    """Whole sequences (prompt and response) that keys and values have room for at a time."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """A run's memory; of each kind of device the fullest one."""

    training: Parts
    """A GPU of the policy, the reference model's share included where they share it."""
    scoring: Parts
    """A GPU of the reference model that has it for itself; empty where it shares the policy's."""
    host: Parts
    """A node's memory, as far as it depends on the model."""


def memory_plan(config: TrainConfig, shape: ModelShape, *, train_tokens: int, score_tokens: int) -> MemoryPlan:
    """With packs of so many tokens."""
    placement = config.placement
    ranks = placement.actor_num_nodes * placement.actor_num_gpus_per_node
    ref_ranks = placement.ref_num_nodes * placement.ref_num_gpus_per_node
    reference = reference_parts(shape, config.reference, config.ref_deepspeed, ranks=ref_ranks)
    scoring = {**reference, "a scoring pack": scoring_activations(shape, score_tokens, config.reference)}
    training = {
        **policy_parts(shape, config.actor_deepspeed, ranks=ranks),
        "a training pack": training_activations(shape, train_tokens, config.policy),
        "other": OTHER,
    }
    if placement.colocate_actor_ref:  # two processes: neither gets what the other has cached of its packs
        training = {**training, **scoring, "other": 2 * OTHER}
    return MemoryPlan(
        training=training,
        scoring={} if placement.colocate_actor_ref else {**scoring, "other": OTHER},
        host={
            **policy_host(shape, config.actor_deepspeed, share=1 / placement.actor_num_nodes),
            **reference_host(shape, config.reference, config.ref_deepspeed, share=1 / placement.ref_num_nodes),
        },
    )


def policy_parts(shape: ModelShape, deepspeed: DeepspeedConfig, *, ranks: int) -> dict[str, int]:
    """Weights, gradients and optimizer of one rank, on its GPU."""
    stage, width, parameters = deepspeed.zero_stage, weight_bytes(deepspeed.bf16), shape.parameters
    optimizer = parameters * optimizer_bytes(deepspeed) // (ranks if stage else 1)
    kept = FP32 if deepspeed.grad_accum_dtype == "fp32" or (deepspeed.bf16 and stage == 0) else width
    gradients = parameters * kept // (ranks if stage > 1 else 1)
    if kept != width and stage < 2:
        gradients += parameters * width
    bucket = min(REDUCE_BUCKET, parameters) * width if stage else 0
    return {
        "weights": weights_on_gpu(shape, stage=stage, width=width, ranks=ranks, offloaded=False),
        "gradients": (0 if deepspeed.adam_offload else gradients) + bucket * (2 if deepspeed.overlap_comm else 1),
        "optimizer": 0 if deepspeed.adam_offload else optimizer,
    }


def optimizer_bytes(deepspeed: DeepspeedConfig) -> int:
    """A parameter's: Adam's moments, and the fp32 weights that it steps where the model's own are others."""
    masters = FP32 if deepspeed.bf16 or deepspeed.zero_stage else 0
    return masters + 2 * FP32


def policy_host(shape: ModelShape, deepspeed: DeepspeedConfig, *, share: float) -> dict[str, int]:
    """With --adam_offload: the optimizer, its fp32 gradients, and the gradients that accumulate."""
    if not deepspeed.adam_offload:
        return {}
    per_parameter = optimizer_bytes(deepspeed) + FP32 + weight_bytes(deepspeed.bf16)
    return {"optimizer and gradients": int(shape.parameters * per_parameter * share)}


def reference_parts(shape: ModelShape, model: ModelConfig, deepspeed: DeepspeedConfig, *, ranks: int) -> dict[str, int]:
    """The reference model's weights on one of its ranks' GPU."""
    width = weight_bytes(model.bf16)
    stage, offloaded = deepspeed.zero_stage, deepspeed.param_offload
    return {"reference model": weights_on_gpu(shape, stage=stage, width=width, ranks=ranks, offloaded=offloaded)}


def reference_host(
    shape: ModelShape, model: ModelConfig, deepspeed: DeepspeedConfig, *, share: float
) -> dict[str, int]:
    """With --ref_reward_offload: its weights."""
    if not deepspeed.param_offload:
        return {}
    return {"reference model": int(shape.parameters * weight_bytes(model.bf16) * share * PAGE_LOCKED)}


def weights_on_gpu(shape: ModelShape, *, stage: int, width: int, ranks: int, offloaded: bool) -> int:
    """Whole below stage 3; there this rank's part, and what is gathered of the others' at a time."""
    if stage < 3:
        return shape.parameters * width
    own = 0 if offloaded else shape.parameters * width // ranks
    gathered = min(LIVE_PARAMETERS, shape.parameters) * width if ranks > 1 or offloaded else 0
    return min(own + gathered, shape.parameters * width) if not offloaded else gathered


def weight_bytes(bf16: bool) -> int:
    return BF16 if bf16 else FP32


def training_activations(shape: ModelShape, tokens: int, model: ModelConfig) -> int:
    """What a forward and backward pass over T tokens needs at its peak.

    Without checkpointing all layers' activations; with it every layer's input, one layer's activations and their
    gradients. At the end the LM head has one chunk of logits, and a gradient of its own weight beside the embedding's.
    """
    width = weight_bytes(model.bf16)
    layer = tokens * layer_bytes(shape, width)
    if model.gradient_checkpointing:
        layers = shape.layers * tokens * shape.hidden * width + layer + layer // 2
    else:
        layers = shape.layers * layer
    return layers + 2 * shape.embedding * width + head_bytes(shape, tokens, width)


def layer_bytes(shape: ModelShape, width: int) -> int:
    """A token's, in one layer, that are kept for the backward pass: gated MLP (gate, up, activation, product), queries,
    keys and values before and after the rotation, attention's output, and both norms in fp32."""
    mlp = 4 * shape.intermediate * width
    attention = (3 * shape.query + 3 * shape.key_value) * width
    norms = 2 * shape.hidden * (2 * FP32 + 2 * width)
    return mlp + attention + norms


def head_bytes(shape: ModelShape, tokens: int, width: int) -> int:
    """One chunk of logits in the model's type and in fp32 and the gradients of both, the last norm in fp32."""
    return MAX_LOGITS * 2 * (width + FP32) + 3 * tokens * shape.hidden * FP32


def scoring_activations(shape: ModelShape, tokens: int, model: ModelConfig) -> int:
    """A forward pass without gradient: one layer at a time, and one chunk of logits."""
    width = weight_bytes(model.bf16)
    return tokens * (2 * shape.intermediate + 5 * shape.hidden) * width + MAX_LOGITS * (width + FP32)


def engine_plan(shape: ModelShape, engine: EngineConfig, *, card: int) -> EnginePlan:
    """Of a GPU of `card` bytes."""
    width, parallel = weight_bytes(engine.bf16), engine.tensor_parallel_size
    share = int(card * engine.gpu_memory_utilization)
    weights = shape.parameters * width // parallel
    token = 2 * shape.layers * shape.key_value * width // parallel
    room = max(0, share - weights - ENGINE_OVERHEAD)
    return EnginePlan(
        share=share, weights=weights, token=token, sequences=room // (max(1, token) * engine.max_model_len)
    )
