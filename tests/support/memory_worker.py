"""What one rank runs for test_out_of_memory.py: updates and forwards in which memory runs out, and the same without."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from openrlhf.cli.flags import parse_args, to_config
from openrlhf.errors import UserError
from openrlhf.models.actor import Actor, load_causal_lm
from openrlhf.models.shared_prefix import pack_shared_prefix
from openrlhf.trainer.ppo_utils import pack_trial
from openrlhf.trainer.ppo_utils.metrics import MeanMetrics
from openrlhf.trainer.ppo_utils.pack_budget import PackBudget
from openrlhf.trainer.ppo_utils.pack_forwards import PackForwards
from openrlhf.trainer.ppo_utils.pack_trial import pending_optimizer_bytes
from openrlhf.trainer.ppo_utils.policy_update import PolicyUpdate
from openrlhf.trainer.ppo_utils.samples import Completion, Experience, Prompt, Rewards, Samples
from openrlhf.utils.deepspeed.parameters import full_state_dict
from openrlhf.utils.deepspeed.strategy import DeepspeedStrategy, get_strategy
from support.tiny_run import arguments

CONFIGS = {
    "zero0": (0, False),
    "zero0_bf16": (0, True),
    "zero1": (1, False),
    "zero2": (2, False),
    "zero3": (3, False),
    "zero3_bf16": (3, True),
}
"""ZeRO stage, and whether in bf16."""
PLACES = ("forward", "backward")
FIRST_FAILURES = (0, 1)
"""The step in which memory runs out: ZeRO-3 traces the first passes and goes by its trace afterwards."""
WHOLE, HALF = 100, 36
"""Budgets: the long group's pack has 60 tokens, half of it 36."""
LIMIT = 40
"""Tokens for which there is memory."""
NUM_STEPS = 2
ON_ONE_RANK = ("zero0_bf16", "zero2", "zero3")


def run_rank(rank: int, world_size: int, port: int, world: str) -> None:
    """Entry point of a spawned process."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK="0"
    )
    torch.set_num_threads(1)
    strategy = get_strategy(seed=7, timeout=timedelta(seconds=60))
    results: dict[str, Any] = {}
    for name in CONFIGS if world_size > 1 else ON_ONE_RANK:
        results[name] = {
            "whole": trained(strategy, world, name),
            **{first: trained(strategy, world, name, small_from=first) for first in FIRST_FAILURES},
            **{
                (place, first): trained(strategy, world, name, place=place, breaks_from=first)
                for place, first in itertools.product(PLACES, FIRST_FAILURES)
            },
        }
        if name in ON_ONE_RANK:  # right here: after a ZeRO-3 engine bf16 rounds otherwise in the whole process
            results[name]["after trials"] = trained(strategy, world, name, small_from=0, trial=True)
    results["single"] = {place: refusal_of_a_single_sequence(strategy, world, place) for place in PLACES}
    results["scores"] = {stage: scores(strategy, world, stage) for stage in (2, 3)}
    torch.save(results, Path(world) / f"memory_{rank}_of_{world_size}.pt")


def trained(
    strategy: DeepspeedStrategy,
    world: str,
    name: str,
    *,
    small_from: int = NUM_STEPS,
    trial: bool = False,
    place: str = "",
    breaks_from: int = NUM_STEPS,
) -> dict[str, Any]:
    """Updates; from a step on packs are small, or passes of rank 0 over more than LIMIT tokens break in `place`."""
    update = new_policy_update(strategy, world, name)
    update.budget.tokens = WHOLE
    found = found_by_trial(update) if trial else []
    pending = [pending_optimizer_bytes(update.actor.model)]
    rows = []
    for step in range(NUM_STEPS):
        metrics = MeanMetrics()
        limit = LIMIT if step >= breaks_from and strategy.rank == 0 else None
        if step >= small_from:
            update.budget.tokens = HALF
        with memory_for(update.actor.model.module, limit, place):
            update.run(experiences(strategy.rank, step), step=step, num_updates=1, kl_coef=0.0, metrics=metrics)
        rows.append(metrics.reduce())
    pending.append(pending_optimizer_bytes(update.actor.model))
    weights = full_state_dict(update.actor.model.module, keep=True)
    update.actor.model.destroy()
    return {
        "rows": rows,
        "weights": weights,
        "budget": update.budget.tokens,
        "found": found,
        "pending": pending,
    }


def found_by_trial(update: PolicyUpdate) -> list[int]:
    """Budgets where Adam leaves room for 40 tokens on rank 0 and more on the others: as measured, and where passes over
    20 tokens break."""
    seen = [0]  # tokens of the largest pass since the last reset; a token takes 1,000 bytes

    def note(_: Any, inputs: Any) -> None:
        seen[0] = max(seen[0], inputs[0].numel())

    module = update.actor.model.module
    hook = module.model.embed_tokens.register_forward_pre_hook(note)
    rank = update.strategy.rank
    for_adam = pending_optimizer_bytes(update.actor.model)
    stand_ins: dict[str, Any] = {
        "FIRST_TOKENS": 8,
        "device_memory": lambda: (for_adam + 40_000 * (1 + rank), 0),
        "peak_memory_bytes": lambda: 1000 * seen[0],
        "reset_peak_memory": lambda: seen.__setitem__(0, 0),
    }
    with patch.multiple(pack_trial, **stand_ins):
        found = [update.find_pack_tokens()]
        for place in PLACES:
            with memory_for(module, 20 if rank == 0 else None, place):
                found.append(update.find_pack_tokens())
    hook.remove()
    return found


def new_policy_update(strategy: DeepspeedStrategy, world: str, name: str) -> PolicyUpdate:
    stage, bf16 = CONFIGS[name]
    changes = {"zero_stage": stage, "bf16": bf16, "gradient_checkpointing": True}
    argv = arguments(Path(world), Path(world) / "out", **changes, init_kl_coef=0, use_kl_loss=None)
    config = to_config(parse_args(argv))
    model = strategy.load_model(partial(load_causal_lm, config.policy), config.actor_deepspeed)
    engine = strategy.prepare_train(
        model, deepspeed=config.actor_deepspeed, optimizer=config.optimizer, num_optimizer_steps=4
    )
    return PolicyUpdate(config=config, strategy=strategy, actor=Actor(engine))


def experiences(rank: int, step: int) -> list[Experience]:
    """A group of 4 responses of 4 tokens and one of 12; the second rank has the short one alone."""
    return [group(rank, step, length) for length in ((4, 12) if rank == 0 else (4,))]


def group(rank: int, step: int, length: int) -> Experience:
    prompt = Prompt(index=2 * rank + length // 12, text="", token_ids=[*range(1, 13)], datapoint_id="point")
    ids = [[20 + i + j + step for j in range(length)] for i in range(4)]
    completions = [Completion(token_ids=row, logprobs=[-1.0] * length, finish_reason="stop") for row in ids]
    return Experience(
        samples=Samples(prompt=prompt, completions=completions, responses=[""] * 4),
        rewards=Rewards(rewards=[0.0] * 4),
        old_logprobs=[torch.full((length,), -6.0)] * 4,
        ref_logprobs=None,
        advantages=[torch.full((length,), (-1.0) ** i * (1 + step)) for i in range(4)],
    )


@contextmanager
def memory_for(model: Any, limit: int | None, place: str) -> Iterator[None]:
    """Within: torch reports that memory is out in the middle of a pass over more than `limit` tokens."""

    def check(tensor: Tensor) -> None:
        if limit is not None and tensor.shape[1] > limit:
            raise torch.OutOfMemoryError(f"{tensor.shape[1]} tokens")

    def before(_: Any, inputs: Any) -> None:
        if place == "forward":
            check(inputs[0])

    def after(_: Any, __: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        if place == "backward" and hidden.requires_grad:
            hidden.register_hook(check)

    hooks = [
        model.model.layers[1].register_forward_pre_hook(before),
        model.model.layers[0].register_forward_hook(after),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def refusal_of_a_single_sequence(strategy: DeepspeedStrategy, world: str, place: str) -> str:
    """What is said where no pack of the long group fits."""
    update = new_policy_update(strategy, world, "zero3")
    try:
        with memory_for(update.actor.model.module, 20 if strategy.rank == 0 else None, place):
            update.run(experiences(strategy.rank, 0), step=0, num_updates=1, kl_coef=0.0, metrics=MeanMetrics())
    except UserError as error:
        return str(error)
    return "none"


def scores(strategy: DeepspeedStrategy, world: str, stage: int) -> dict[str, Any]:
    """Log-probs of both groups, without trouble and where rank 0 has memory for LIMIT tokens only."""
    config = to_config(parse_args(arguments(Path(world), Path(world) / "out", zero_stage=stage)))
    model = strategy.load_model(partial(load_causal_lm, config.reference), config.ref_deepspeed)
    actor = Actor(strategy.prepare_eval(model, deepspeed=config.ref_deepspeed))
    sequences = [experience.samples.labeled_sequences() for experience in experiences(strategy.rank, 0)]
    batches = [batch for group in sequences for batch in pack_shared_prefix(group, max_tokens=WHOLE)]
    found: dict[str, Any] = {}
    for name, limit in {"plenty": None, "little": LIMIT}.items():
        forwards = PackForwards(
            actor,
            engine=actor.model,
            budget=PackBudget(WHOLE, kind="scoring", remedy=""),
            in_step_with_others=stage == 3,
        )
        module = getattr(actor.model, "module", actor.model)
        with memory_for(module, limit if strategy.rank == 0 else None, "forward"):
            found[name] = [forwards.run(batches), forwards.run(batches)]
        found[f"{name}_budget"] = forwards.budget.tokens
    return found
