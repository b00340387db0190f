"""What one rank runs for test_deepspeed.py: every ZeRO stage in turn. Results go to files, for the test process."""

from __future__ import annotations

import os
import random
import resource
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from openrlhf.config import DeepspeedConfig, ModelConfig, OptimizerConfig
from openrlhf.errors import UserError
from openrlhf.models.actor import load_causal_lm
from openrlhf.models.pack_check import check_packs
from openrlhf.models.shared_prefix import LabeledSequence, pack_shared_prefix
from openrlhf.trainer.ray.launcher import ReferenceModelRayActor
from openrlhf.utils.deepspeed import checkpointing, collectives, parameters
from openrlhf.utils.deepspeed.parameters import full_state_dict
from openrlhf.utils.deepspeed.strategy import DeepspeedStrategy, get_strategy
from support.activation_meter import measure_training_pass

MAX_NORM = 0.5
CONFIGS = {f"zero{stage}": DeepspeedConfig(zero_stage=stage, max_norm=MAX_NORM) for stage in (0, 1, 2, 3)}
CONFIGS["zero3_offload"] = DeepspeedConfig(zero_stage=3, max_norm=MAX_NORM, adam_offload=True)
NUM_STEPS = 4
STEPS_BEFORE_SAVE = 2
OPTIMIZER = OptimizerConfig(learning_rate=1e-3, weight_decay=0.1, lr_warmup_ratio=0.3)
# Sequences per micro-batch: MICRO_BATCHES[step][rank]. Uneven on purpose; rank 1 has nothing in the last step.
MICRO_BATCHES = [[[2, 1, 3], [2]], [[1], [2, 2]], [[1, 1], [3, 1]], [[2], []]]
VOCAB_SIZE = 2048


def step_batches(step: int) -> list[list[Tensor]]:
    """Token ids of one optimizer step: per rank, per micro-batch, (B, length)."""
    generator = torch.Generator().manual_seed(step)
    return [
        [torch.randint(VOCAB_SIZE, (size, 8 + size), generator=generator) for size in sizes]
        for sizes in MICRO_BATCHES[step]
    ]


def nll_sum(model: Callable[..., Any], token_ids: Tensor) -> Tensor:
    """(B, length) -> sum of the negative log-likelihoods of all tokens but the first of each sequence."""
    logits = model(input_ids=token_ids).logits[:, :-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1), token_ids[:, 1:].flatten(), reduction="sum")


def num_labels(token_ids: Tensor) -> int:
    return token_ids[:, 1:].numel()


def run_rank(rank: int, world_size: int, port: int, folder: str) -> None:
    """Entry point of a spawned process."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(rank)
    )
    torch.set_num_threads(1)
    strategy = get_strategy(seed=7, timeout=timedelta(seconds=60))
    results: dict[Any, Any] = {"collectives": check_collectives(strategy)}
    for name in CONFIGS:
        results[name] = train_save_resume(strategy, name, Path(folder))
    results["failed_save"] = failed_save(strategy, Path(folder))
    results["rotary"] = bf16_partitioned_load(strategy, folder)
    results["eval"] = eval_logits(strategy, folder)
    results["refusal"] = refusal_of_the_reference_worker(strategy, folder)
    results["checkpointing"] = checkpointing_use(strategy, folder)
    torch.save(results, Path(folder) / f"results_{world_size}_{rank}.pt")
    die_before_marker(strategy, Path(folder))


def check_collectives(strategy: DeepspeedStrategy) -> dict[str, Any]:
    rank = strategy.rank
    results = {
        "mean": collectives.all_reduce(float(rank)),
        "sum": collectives.all_reduce({"b": 1.0, "a": 10.0 * rank}, "sum"),
        "max": collectives.all_reduce(rank, "max"),
        "gathered": collectives.all_gather_object({"rank": rank}),
        "broadcast": collectives.broadcast_object(f"from {rank}"),
        "draw": random.random(),
    }
    collectives.barrier()
    return results


def load(strategy: DeepspeedStrategy, folder: Path | str, config: DeepspeedConfig) -> PreTrainedModel:
    dtype = torch.bfloat16 if config.bf16 else torch.float32
    return strategy.load_model(
        lambda: AutoModelForCausalLM.from_pretrained(Path(folder) / "model", dtype=dtype), config
    )


def new_engine(strategy: DeepspeedStrategy, name: str, folder: Path, optimizer: OptimizerConfig = OPTIMIZER) -> Any:
    model = load(strategy, folder, CONFIGS[name])
    return strategy.prepare_train(model, deepspeed=CONFIGS[name], optimizer=optimizer, num_optimizer_steps=NUM_STEPS)


def settings_of(engine: Any) -> dict[str, Any]:
    """Learning rate of the next step, and the parameter groups' decay, largest first."""
    decays = [group["weight_decay"] for group in engine.optimizer.param_groups]
    return {"lr": engine.get_lr()[0], "weight_decay": sorted(decays, reverse=True)}


def failed_save(strategy: DeepspeedStrategy, folder: Path) -> dict[str, Any]:
    """The last rank may write no file above 100 kB: its disk is full, so to speak. Then it may again."""
    engine = new_engine(strategy, "zero2", folder)
    directory = folder / f"ckpt_{strategy.world_size}_full"
    strategy.save_checkpoint(engine, directory, "global_step1", {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if strategy.rank == strategy.world_size - 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    raised = ""
    try:
        strategy.save_checkpoint(engine, directory, "global_step2", {"step": 2})
    except OSError as error:
        raised = f"{type(error).__name__}: {error}"
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    left = sorted(path.name for path in directory.glob("global_step*"))
    collectives.barrier()
    strategy.save_checkpoint(engine, directory, "global_step3", {"step": 3})
    engine.destroy()
    newest = strategy.find_checkpoint(directory, zero_stage=2)
    assert newest is not None
    return {"raised": raised, "left": left, "newest": newest.tag}


def train_step(strategy: DeepspeedStrategy, engine: Any, step: int) -> dict[str, Any]:
    """One optimizer step, as the trainer does it: the count of forwards is agreed, short ranks run empty ones."""
    batches = step_batches(step)
    if strategy.world_size == 1:
        batches = [[token_ids for own in batches for token_ids in own]]
    total = sum(num_labels(token_ids) for own in batches for token_ids in own)
    own = batches[strategy.rank]
    num_forwards = int(collectives.all_reduce(len(own), "max"))
    loss_sum = 0.0
    for index in range(num_forwards):
        if index < len(own):
            loss = nll_sum(engine, own[index]) * strategy.world_size / total
        else:
            loss = 0 * engine(input_ids=torch.zeros(1, 2, dtype=torch.long)).logits.sum()
        strategy.backward(engine, loss, is_last=index == num_forwards - 1)
        loss_sum += loss.item()
    gradients = full_gradients(engine)
    learning_rate = engine.get_lr()[0]
    norm = strategy.step(engine)
    return {
        "loss": collectives.all_reduce(loss_sum),
        "gradients": gradients,
        "norm": norm,
        "lr": learning_rate,
        "weights": full_state_dict(engine.module, keep=True),
        "draws": (random.random(), np.random.rand(), torch.rand(()).item()),
    }


def full_gradients(engine: Any) -> dict[str, Tensor]:
    """Whole gradients by parameter name, through DeepSpeed's own reader of them."""
    from deepspeed.utils import safe_get_full_grad

    return {name: safe_get_full_grad(parameter).clone() for name, parameter in engine.module.named_parameters()}


def train_save_resume(strategy: DeepspeedStrategy, name: str, folder: Path) -> dict[str, Any]:
    """An uninterrupted run with a checkpoint in its middle, then a fresh engine that continues from the checkpoint."""
    checkpoints = folder / f"ckpt_{strategy.world_size}_{name}"
    engine = new_engine(strategy, name, folder)
    steps = [train_step(strategy, engine, step) for step in range(STEPS_BEFORE_SAVE)]
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    state = {"step": 2, "kl": {"coef": 0.5}}
    strategy.save_checkpoint(engine, checkpoints, "global_step2", state, tokenizer=tokenizer, max_num=2)
    steps += [train_step(strategy, engine, step) for step in range(STEPS_BEFORE_SAVE, NUM_STEPS)]
    strategy.save_hf_model(engine, tokenizer, folder / f"hf_{strategy.world_size}_{name}")
    buckets = [bucket_shapes(strategy, bucket) for bucket in parameters.named_parameter_buckets(engine.module, 600_000)]
    engine.destroy()

    resumed = new_engine(strategy, name, folder)
    stage = CONFIGS[name].zero_stage
    nothing = strategy.find_checkpoint(folder / "nowhere", zero_stage=stage)
    checkpoint = strategy.find_checkpoint(checkpoints, zero_stage=stage)
    assert checkpoint is not None
    strategy.load_checkpoint(resumed, checkpoint)
    steps_again = [train_step(strategy, resumed, step) for step in range(STEPS_BEFORE_SAVE, NUM_STEPS)]
    resumed.destroy()

    changed = new_engine(strategy, name, folder, replace(OPTIMIZER, learning_rate=3e-3, weight_decay=0.2))
    strategy.load_checkpoint(changed, checkpoint)
    changed_settings = settings_of(changed)
    changed.destroy()
    return {
        "steps": steps,
        "steps_again": steps_again,
        "client_state": checkpoint.state,
        "changed_settings": changed_settings,
        "nothing": nothing,
        "buckets": buckets,
    }


def bucket_shapes(strategy: DeepspeedStrategy, bucket: list[tuple[str, nn.Parameter]]) -> dict[str, tuple[int, ...]]:
    with parameters.gather_params(parameter for _, parameter in bucket):
        return {name: tuple(parameter.shape) for name, parameter in bucket}


def bf16_partitioned_load(strategy: DeepspeedStrategy, folder: str) -> dict[str, Any]:
    """A bf16 reference model, partitioned from the start: its rotary frequencies and its loss."""
    config = DeepspeedConfig(zero_stage=3, bf16=True)
    model = load(strategy, folder, config)
    engine = strategy.prepare_eval(model, deepspeed=config)
    with torch.no_grad():
        loss = nll_sum(engine, step_batches(0)[0][2]).item()
    later = AutoModelForCausalLM.from_pretrained(Path(folder) / "model")
    unwrapped: Any = getattr(engine, "module", engine)
    return {
        "inv_freq": unwrapped.model.rotary_emb.inv_freq.clone(),
        "partitioned": all(hasattr(parameter, "ds_id") for parameter in model.parameters()),
        "later_partitioned": any(hasattr(parameter, "ds_id") for parameter in later.parameters()),
        "loss": loss,
    }


def eval_logits(strategy: DeepspeedStrategy, folder: str) -> dict[str, Tensor]:
    """Logits of the reference model: plain, ZeRO-3, and ZeRO-3 with its parameters offloaded."""
    configs = {
        "plain": DeepspeedConfig(zero_stage=0),
        "zero3": DeepspeedConfig(zero_stage=3),
        "offloaded": DeepspeedConfig(zero_stage=3, param_offload=True),
    }
    token_ids = step_batches(0)[0][0]
    logits = {}
    for name, config in configs.items():
        model = strategy.prepare_eval(load(strategy, folder, config), deepspeed=config)
        with torch.no_grad():
            logits[name] = model(input_ids=token_ids).logits
    return logits


def refusal_of_the_reference_worker(strategy: DeepspeedStrategy, folder: str) -> str:
    """What a reference worker says of a model whose packs are not its own, partitioned over the ranks."""
    worker = ReferenceModelRayActor(rank=strategy.rank, world_size=strategy.world_size)
    worker.strategy = strategy
    config: Any = SimpleNamespace(reference=ModelConfig(pretrain=f"{folder}/doge"), ref_deepspeed=CONFIGS["zero3"])
    try:
        worker.init_model(config)
    except UserError as error:
        return str(error)
    return "none"


def checkpointing_use(strategy: DeepspeedStrategy, folder: str) -> dict[tuple[str, str], dict[str, Any]]:
    """By ZeRO stage and kind of gradient checkpointing: what one training pass recomputes and keeps, its gradients."""
    prefix = list(range(1, 9))
    sequences = [LabeledSequence(token_ids=[*prefix, *range(20, 30)], label_start=8 + start) for start in (0, 2)]
    (batch,) = pack_shared_prefix(sequences, max_tokens=100)
    kinds = {
        "off": ModelConfig(pretrain=f"{folder}/model"),
        "on": ModelConfig(pretrain=f"{folder}/model", gradient_checkpointing=True),
        "reentrant": ModelConfig(
            pretrain=f"{folder}/model", gradient_checkpointing=True, gradient_checkpointing_use_reentrant=True
        ),
    }
    uses: dict[tuple[str, str], dict[str, Any]] = {}
    for stage in ("zero0", "zero2", "zero3"):
        for kind, config in kinds.items():
            model = strategy.load_model(partial(load_causal_lm, config), CONFIGS[stage])
            engine = strategy.prepare_train(
                model, deepspeed=CONFIGS[stage], optimizer=OPTIMIZER, num_optimizer_steps=NUM_STEPS
            )
            check_packs(engine, name=kind)  # as the policy's worker does
            use = measure_training_pass(strategy, engine, batch)
            uses[stage, kind] = {**asdict(use), "gradients": full_gradients(engine)}
            engine.destroy()
    return uses


def die_before_marker(strategy: DeepspeedStrategy, folder: Path) -> None:
    """Rank 0 dies after everything of a second checkpoint is written, before its marker is. Does not return."""
    engine = new_engine(strategy, "zero2", folder)
    checkpointing.finish_checkpoint = lambda *_, **__: os._exit(0)
    directory = folder / f"ckpt_{strategy.world_size}_zero2"
    try:
        strategy.save_checkpoint(engine, directory, "global_step3", {"step": 3}, max_num=2)
    except RuntimeError:  # the other rank, in the last barrier: its peer is gone
        os._exit(0)
    raise AssertionError("rank 0 was to die")
