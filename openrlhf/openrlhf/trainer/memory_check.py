"""What a run will need of its GPUs and of the host, said before anything starts; what cannot fit is refused."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from openrlhf.config import BatchConfig, ModelConfig, TrainConfig
from openrlhf.errors import UserError
from openrlhf.trainer.memory_plan import (
    GIB,
    EnginePlan,
    ModelShape,
    Parts,
    engine_plan,
    memory_plan,
    training_activations,
)
from openrlhf.utils.logging import init_logger

logger = init_logger(__name__)

MAX_TRIED_GPUS = 64
"""On a node, as a remedy."""
TOLERANCE = 1.05
"""Estimates are off by some percent (docs/experiments.md): what is as little too large may yet fit, and is let go."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What there is."""

    card: int | None = None
    """Bytes of the smallest GPU; None: there is none, or it is elsewhere in the cluster."""
    host: int | None = None
    """Bytes of a node's memory; None: the workers run on nodes that are not known."""


def check_memory(config: TrainConfig, shape: ModelShape, machine: Machine) -> None:
    """Logs what lies where.

    Raises:
        UserError: a GPU's or the host's memory cannot hold it, however packs are cut; it says what would fit.
    """
    for line in describe(config, shape, machine):
        logger.info("%s", line)
    if problems := list(memory_problems(config, shape, machine)):
        raise UserError("\n".join(problems))


def memory_problems(config: TrainConfig, shape: ModelShape, machine: Machine) -> Iterator[str]:
    """One line for each device that is too small even for packs of one sequence."""
    if machine.card is not None:
        plan = memory_plan(config, shape, **smallest_packs(config.batch))
        for name, parts in (("policy", plan.training), ("reference", plan.scoring)):
            if sum(parts.values()) > machine.card * TOLERANCE:
                yield (
                    f"a {name} worker's GPU has {gib(machine.card)} and would need {gib(sum(parts.values()))} "
                    f"({listed(parts)}); {what_fits(config, shape, machine)}"
                )
        engine = engine_plan(shape, config.engine, card=machine.card)
        if engine.sequences < 1:
            yield engine_problem(config, engine)
    if machine.host is not None:
        host = memory_plan(config, shape, **smallest_packs(config.batch)).host
        if sum(host.values()) > machine.host * TOLERANCE:
            yield (
                f"the host has {gib(machine.host)} of memory and would need {gib(sum(host.values()))} "
                f"({listed(host)}); {what_fits(config, shape, machine)}"
            )


def engine_problem(config: TrainConfig, engine: EnginePlan) -> str:
    return (
        f"--vllm_gpu_memory_utilization {config.engine.gpu_memory_utilization:g}: an engine's {gib(engine.share)} hold "
        f"{gib(engine.weights)} of weights and no sequence of {config.engine.max_model_len:,} tokens "
        f"({gib(engine.token * config.engine.max_model_len)}); raise it, pass a larger --vllm_tensor_parallel_size, "
        "or lower --prompt_max_len or --generate_max_len"
    )


def what_fits(config: TrainConfig, shape: ModelShape, machine: Machine) -> str:
    """The fewest changes that make the run fit, or what is left to do where none do."""
    for words, changed in remedies(config):
        if fits(changed, shape, machine):
            return f"it would fit with {words}"
    return "take a smaller model, a larger GPU or host, or shorter --prompt_max_len and --generate_max_len"


def fits(config: TrainConfig, shape: ModelShape, machine: Machine) -> bool:
    """Policy and reference model; with packs of one sequence."""
    plan = memory_plan(config, shape, **smallest_packs(config.batch))
    on_cards = max(sum(plan.training.values()), sum(plan.scoring.values()))
    return on_cards <= (machine.card or on_cards) and sum(plan.host.values()) <= (
        machine.host or sum(plan.host.values())
    )


def remedies(config: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
    """Flags that save memory: one by itself, two, ...; then the same with more and more GPUs."""
    flags = list(_single_remedies(config))
    gpus = config.placement.actor_num_gpus_per_node
    for factor in (2**power for power in range(MAX_TRIED_GPUS.bit_length())):
        if factor > 1 and gpus * factor > MAX_TRIED_GPUS:
            return
        more = {"actor_num_gpus_per_node": gpus * factor, "ref_num_gpus_per_node": gpus * factor}
        placed = config if factor == 1 else _with(config, {"placement": more})
        words = [] if factor == 1 else [f"--{flag} {count}" for flag, count in more.items()]
        for number in range(len(flags) + 1):
            for chosen in itertools.combinations(flags, number):
                changed = placed
                for _, fields in chosen:
                    changed = _with(changed, fields)
                yield ", ".join([*(flag for flag, _ in chosen), *words]), changed


def _single_remedies(config: TrainConfig) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Flag, and what it changes in the configuration; those that are on already are left out."""
    stage_3 = {"actor_deepspeed": {"zero_stage": 3}, "ref_deepspeed": {"zero_stage": 3}}
    if not config.policy.gradient_checkpointing:
        yield "--gradient_checkpointing", {"policy": {"gradient_checkpointing": True}}
    if not config.policy.bf16:
        yield "--bf16", {"policy": {"bf16": True}, "actor_deepspeed": {"bf16": True}}
    if config.actor_deepspeed.zero_stage < 3:
        yield "--zero_stage 3", stage_3
    if not config.ref_deepspeed.param_offload:
        fields = {**stage_3, "ref_deepspeed": {"zero_stage": 3, "param_offload": True}}
        yield (
            "--zero_stage 3 --ref_reward_offload" if config.ref_deepspeed.zero_stage < 3 else "--ref_reward_offload",
            fields,
        )
    if not config.actor_deepspeed.adam_offload and config.actor_deepspeed.zero_stage:
        yield "--adam_offload", {"actor_deepspeed": {"adam_offload": True}}
    if not config.reference.bf16:
        yield (
            "--reference_dtype bf16 (here and for the baseline)",
            {"reference": {"bf16": True}, "ref_deepspeed": {"bf16": True}},
        )
    if config.actor_deepspeed.adam_offload:
        yield "--adam_offload false", {"actor_deepspeed": {"adam_offload": False}}
    if config.ref_deepspeed.param_offload:
        yield "--ref_reward_offload false", {"ref_deepspeed": {"param_offload": False}}


def _with(config: TrainConfig, fields: dict[str, dict[str, Any]]) -> TrainConfig:
    parts = {part: dataclasses.replace(getattr(config, part), **values) for part, values in fields.items()}
    return dataclasses.replace(config, **parts)


def describe(config: TrainConfig, shape: ModelShape, machine: Machine) -> Iterator[str]:
    """Lines that say what will lie where."""
    packs = largest_packs(config.batch)
    plan = memory_plan(config, shape, **packs)
    yield f"memory, estimated for {shape.parameters / 1e9:.2f}B parameters:"
    yield f"  a policy worker{_gpu(machine)}: {gib(sum(plan.training.values()))} ({listed(plan.training)})"
    yield (
        f"  a training pack of {packs['train_tokens']:,} tokens: "
        + " --gradient_checkpointing, ".join(
            f"{gib(training_activations(shape, packs['train_tokens'], model))} {words}"
            for words, model in _by_checkpointing(config.policy).items()
        )
        + " --gradient_checkpointing"
    )
    if plan.scoring:
        yield f"  a reference worker{_gpu(machine)}: {gib(sum(plan.scoring.values()))} ({listed(plan.scoring)})"
    yield f"  {describe_engine(config, shape, machine)}"
    if plan.host:
        size = "" if machine.host is None else f" ({gib(machine.host)})"
        yield f"  a node's host memory{size}: {gib(sum(plan.host.values()))} ({listed(plan.host)})"


def _by_checkpointing(model: ModelConfig) -> dict[str, ModelConfig]:
    return {
        words: dataclasses.replace(model, gradient_checkpointing=on)
        for words, on in {"with": True, "without": False}.items()
    }


def describe_engine(config: TrainConfig, shape: ModelShape, machine: Machine) -> str:
    length = config.engine.max_model_len
    engine = engine_plan(shape, config.engine, card=machine.card or 0)
    common = f"weights {gib(engine.weights)}, {engine.token:,} bytes a token for keys and values"
    if machine.card is None:
        return f"an engine's worker: {common}, {gib(engine.token * length)} for a sequence of {length:,} tokens"
    return (
        f"an engine's worker{_gpu(machine)}: {gib(engine.share)} ({common}: room for {engine.sequences:,} sequences of "
        f"{length:,} tokens)"
    )


def smallest_packs(batch: BatchConfig) -> dict[str, int]:
    """Packs of one sequence: the least that a run can do with."""
    return {"train_tokens": batch.max_total_tokens, "score_tokens": batch.max_total_tokens}


def largest_packs(batch: BatchConfig) -> dict[str, int]:
    """What the token budgets allow, and the samples of one prompt can fill."""
    if batch.pack_tokens == "auto":  # a trial on the GPU says how large they get
        return smallest_packs(batch)
    return {
        "train_tokens": min(batch.train_pack_tokens, batch.group_tokens),
        "score_tokens": min(batch.rollout_pack_tokens, batch.group_tokens),
    }


def listed(parts: Parts) -> str:
    return ", ".join(f"{name} {gib(size)}" for name, size in parts.items() if size)


def gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def _gpu(machine: Machine) -> str:
    return "" if machine.card is None else f" (GPU of {gib(machine.card)})"
