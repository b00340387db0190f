"""What one rank runs for test_finite.py: updates with a non-finite number in them, at every stage and precision."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch

from openrlhf.cli.flags import parse_args, to_config
from openrlhf.config import TrainConfig
from openrlhf.models.actor import Actor, load_causal_lm
from openrlhf.trainer.ppo_utils.metrics import MeanMetrics
from openrlhf.trainer.ppo_utils.policy_update import PolicyUpdate
from openrlhf.trainer.ppo_utils.samples import Completion, Experience, Prompt, Rewards, Samples
from openrlhf.utils.deepspeed.parameters import full_state_dict
from openrlhf.utils.deepspeed.strategy import get_strategy
from support.tiny_run import arguments

CONFIGS = {f"zero{stage}{suffix}": (stage, suffix == "_bf16") for stage in (0, 1, 2, 3) for suffix in ("", "_bf16")}


def run_rank(rank: int, world_size: int, port: int, world: str) -> None:
    """Entry point of a spawned process: per configuration what was raised, and whether the weights stayed."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK="0"
    )
    torch.set_num_threads(1)
    strategy = get_strategy(seed=7, timeout=timedelta(seconds=60))
    results: dict[str, Any] = {}
    for name, (stage, bf16) in CONFIGS.items():
        argv = arguments(
            Path(world), Path(world) / "out", zero_stage=stage, bf16=bf16, init_kl_coef=0, use_kl_loss=None
        )
        results[name] = poisoned_updates(to_config(parse_args(argv)), strategy)
    torch.save(results, Path(world) / f"finite_{rank}.pt")


def poisoned_updates(config: TrainConfig, strategy: Any) -> dict[str, Any]:
    """A sound update, then an infinite advantage on rank 0 only. On a new engine a finite loss of infinite slope."""
    result: dict[str, Any] = {"raised": {}, "unchanged": {}}
    policy_update = new_policy_update(config, strategy)
    update(policy_update, "sound", result, advantage=1.0)
    update(policy_update, "loss", result, advantage=float("inf") if strategy.rank == 0 else 1.0)
    policy_update.actor.model.destroy()
    policy_update = new_policy_update(
        config, strategy
    )  # DeepSpeed's buffers still hold the gradients that were never applied
    policy_update.loss = partial(steep_loss, policy_update.loss)
    update(policy_update, "gradient", result, advantage=1.0)
    policy_update.actor.model.destroy()
    return result


def new_policy_update(config: TrainConfig, strategy: Any) -> Any:
    model = strategy.load_model(partial(load_causal_lm, config.policy), config.actor_deepspeed)
    engine = strategy.prepare_train(
        model, deepspeed=config.actor_deepspeed, optimizer=config.optimizer, num_optimizer_steps=4
    )
    return PolicyUpdate(config=config, strategy=strategy, actor=Actor(engine))


def update(policy_update: Any, case: str, result: dict[str, Any], *, advantage: float) -> None:
    """One rollout's updates: what they raise, and whether the weights stayed."""
    module = policy_update.actor.model.module
    before = full_state_dict(module, keep=True)
    result["raised"][case] = raised_by(policy_update, experience(policy_update.strategy.rank, advantage))
    after = full_state_dict(module, keep=True)
    result["unchanged"][case] = all(torch.equal(before[key], after[key]) for key in before)


def steep_loss(loss: Any, *args: Any, **kwargs: Any) -> Any:
    """The same value, with the infinite slope of a square root at 0."""
    output = loss(*args, **kwargs)
    return replace(output, loss_sum=output.loss_sum + (output.loss_sum - output.loss_sum.detach()).sqrt())


def raised_by(policy_update: Any, own: Experience) -> str | None:
    try:
        policy_update.run([own], step=4, num_updates=1, kl_coef=0.0, metrics=MeanMetrics())
    except FloatingPointError as error:
        return f"{type(error).__name__}: {error}"
    return None


def experience(rank: int, advantage: float) -> Experience:
    """One group of four responses; the first sample's advantage is `advantage`, the others' 0.5."""
    completions = [Completion(token_ids=[5 + i, 6, 7], logprobs=[-1.0] * 3, finish_reason="stop") for i in range(4)]
    prompt = Prompt(index=rank, text="", token_ids=[1, 2, 3], datapoint_id=f"point{rank}")
    return Experience(
        samples=Samples(prompt=prompt, completions=completions, responses=[""] * 4),
        rewards=Rewards(rewards=[0.0] * 4),
        old_logprobs=[torch.full((3,), -6.0)] * 4,
        ref_logprobs=None,
        advantages=[torch.full((3,), advantage), *[torch.full((3,), 0.5)] * 3],
    )
