"""What a run has in common with the one that it continues, what may differ, and what is said about it.

A checkpoint's marker holds a `TrainState`. On resume the settings that give a step its meaning (data, batches, seed,
reward) must be the same; every other setting is applied as it is given now, and each that differs is logged. The
learning-rate schedule keeps the length that it started with: a run of more episodes ends at the schedule's minimum
instead of jumping back up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from openrlhf.config import TrainConfig
from openrlhf.datasets import PromptDataset
from openrlhf.errors import UserError
from openrlhf.utils.checkpoints import ACTOR_FOLDER, Checkpoint
from openrlhf.utils.deepspeed.strategy import DeepspeedStrategy
from openrlhf.utils.logging import init_logger

logger = init_logger(__name__)

# What a step number, the optimizer's count of updates and the rows of metrics.jsonl mean depends on these.
FIXED = (
    "seed",
    "batch.rollout_batch_size",
    "batch.train_batch_size",
    "batch.n_samples_per_prompt",
    "algorithm.max_epochs",
    "algorithm.advantage_estimator",
    "algorithm.reward_clip_range",
    "reward.reward_shape",
    "reward.reward_tiers",
    "reward.reward_function",
    "reward.min_plan_tokens",
    "reward.short_plan_penalty",
    "reward.remote_rm_url",
    "prompts_sha256",
)
# Where a run writes, runs and reports is no part of what it computes (and the W&B key does not belong in checkpoints).
LEFT_OUT = ("checkpoint", "tracking", "placement", "engine")


@dataclass(frozen=True, kw_only=True)
class TrainState:
    """What a checkpoint holds beside weights, optimizer, learning rate and random states."""

    step: int
    """Rollout steps done."""
    kl_coef: float
    num_updates: int
    """Length of the learning-rate schedule, in optimizer steps."""
    settings: dict[str, Any]
    """The run's settings, as `run_settings` returns them."""
    best: dict[str, Any] | None = None
    """The best evaluation so far, as a `BestEvaluation`; None without `--save_best`."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_state(checkpoint: Checkpoint) -> TrainState:
    """Raises UserError where another version made the checkpoint."""
    names = {field.name for field in fields(TrainState)}
    needed = {field.name for field in fields(TrainState) if field.default is MISSING}
    if not needed <= set(checkpoint.state) <= names:
        raise UserError(
            f"{checkpoint.path} was made by another version (it holds {', '.join(checkpoint.state) or 'nothing'}, not "
            f"{', '.join(sorted(names))}): start anew with another --ckpt_path, or from its weights (--pretrain)"
        )
    return TrainState(**checkpoint.state)


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """A checkpoint that this run may continue, and its state."""

    checkpoint: Checkpoint
    state: TrainState


def find_resume_point(strategy: DeepspeedStrategy, config: TrainConfig, prompts: PromptDataset) -> ResumePoint | None:
    """The newest whole checkpoint of the run, if it is to continue one and there is one. Collective.

    Call it before any model loads and before the run's record is touched.

    Raises:
        UserError: all checkpoints are damaged, or the newest was made with settings under which its steps mean
            something else.
    """
    if not config.checkpoint.load_checkpoint:
        return None
    directory = Path(config.checkpoint.ckpt_path) / ACTOR_FOLDER
    checkpoint = strategy.find_checkpoint(directory, zero_stage=config.actor_deepspeed.zero_stage)
    if checkpoint is None:
        return None
    state = read_state(checkpoint)
    check_same_settings(state.settings, run_settings(config, prompts))
    return ResumePoint(checkpoint=checkpoint, state=state)


def run_settings(config: TrainConfig, prompts: PromptDataset) -> dict[str, Any]:
    """Every setting that the run's numbers depend on, flat and plain: `optimizer.learning_rate` -> 5e-7."""
    content = json.loads(json.dumps(asdict(config)))  # tuples become the lists that a checkpoint gives back
    settings = dict(_flat({name: value for name, value in content.items() if name not in LEFT_OUT}))
    digest = hashlib.sha256(repr([prompt.token_ids for prompt in prompts]).encode())
    return {**settings, "num_prompts": len(prompts), "prompts_sha256": digest.hexdigest()}


def check_same_settings(saved: Mapping[str, Any], current: Mapping[str, Any], names: Iterable[str] = FIXED) -> None:
    """Raises UserError where a step number would mean something else than in the checkpoint; every change is named."""
    changed = [
        f"{name} {saved.get(name)} (now {current.get(name)})" for name in names if saved.get(name) != current.get(name)
    ]
    if changed:
        raise UserError(
            f"the checkpoint was made with {', '.join(changed)}: resume with the same data, batch and reward settings, "
            "or start anew with another --ckpt_path and --save_path"
        )


def log_changes(saved: TrainState, current: Mapping[str, Any], *, num_updates: int) -> None:
    """One line for each setting that goes on with another value, and for a schedule of another length."""
    for name in sorted(set(saved.settings) | set(current)):
        before, now = saved.settings.get(name), current.get(name)
        if name not in FIXED and before != now:
            logger.warning("resumed with another %s: %s from here on, %s before", name, now, before)
    if saved.num_updates != num_updates:
        logger.warning(
            "the learning-rate schedule keeps its length of %d optimizer steps (this run has %d in all)",
            saved.num_updates,
            num_updates,
        )


def resumed_kl_coef(saved: TrainState, current: Mapping[str, Any]) -> float:
    """Where the KL controller stood, unless another coefficient is asked for now."""
    name = "algorithm.init_kl_coef"
    return saved.kl_coef if saved.settings.get(name) == current[name] else float(current[name])


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
