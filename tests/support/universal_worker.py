"""What one rank runs for test_universal_checkpoints.py: checkpoints of all ZeRO stages, and what goes on from them."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from openrlhf.errors import UserError
from openrlhf.utils.deepspeed.strategy import DeepspeedStrategy, get_strategy
from support.deepspeed_worker import CONFIGS, NUM_STEPS, STEPS_BEFORE_SAVE, new_engine, train_step

SAVED = ("zero0", "zero1", "zero2", "zero3")
PAIRS = (
    ("zero0", "zero0"),
    ("zero1", "zero2"),
    ("zero2", "zero1"),
    ("zero2", "zero2"),
    ("zero3", "zero3"),
    ("zero3", "zero3_offload"),
)
"""What went before -> what goes on."""
IMPOSSIBLE = (("zero2", "zero3"), ("zero3", "zero2"), ("zero0", "zero2"), ("zero2", "zero0"))


def run_rank(rank: int, world_size: int, port: int, folder: str, saves: bool, source: int | None) -> None:
    """Entry point of a spawned process: saves, and goes on from the checkpoints that `source` ranks saved."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(rank)
    )
    torch.set_num_threads(1)
    strategy = get_strategy(seed=7, timeout=timedelta(seconds=60))
    results: dict[Any, Any] = {}
    for name in SAVED if saves else ():
        results[name] = train_and_save(strategy, name, Path(folder))
    for pair in PAIRS if source is not None else ():
        results[pair] = go_on(strategy, *pair, Path(folder), source=source)
    for pair in IMPOSSIBLE if source is not None else ():
        results[pair] = refusal(strategy, *pair, Path(folder), source=source)
    torch.save(results, Path(folder) / f"results_{source}_{world_size}_{rank}.pt")


def train_and_save(strategy: DeepspeedStrategy, name: str, folder: Path) -> list[dict[str, Any]]:
    """The steps after the checkpoint, in the run that is not interrupted."""
    engine = new_engine(strategy, name, folder)
    for step in range(STEPS_BEFORE_SAVE):
        train_step(strategy, engine, step)
    strategy.save_checkpoint(engine, checkpoints(folder, name, strategy.world_size), "global_step2", {"step": 2})
    steps = [train_step(strategy, engine, step) for step in range(STEPS_BEFORE_SAVE, NUM_STEPS)]
    engine.destroy()
    return steps


def go_on(
    strategy: DeepspeedStrategy, saved: str, name: str, folder: Path, *, source: int | None
) -> list[dict[str, Any]]:
    checkpoint = strategy.find_checkpoint(checkpoints(folder, saved, source), zero_stage=CONFIGS[name].zero_stage)
    assert checkpoint is not None
    engine = new_engine(strategy, name, folder)
    strategy.load_checkpoint(engine, checkpoint)
    steps = [train_step(strategy, engine, step) for step in range(STEPS_BEFORE_SAVE, NUM_STEPS)]
    engine.destroy()
    return steps


def refusal(strategy: DeepspeedStrategy, saved: str, name: str, folder: Path, *, source: int | None) -> str:
    try:
        strategy.find_checkpoint(checkpoints(folder, saved, source), zero_stage=CONFIGS[name].zero_stage)
    except UserError as error:
        return str(error)
    return "none"


def checkpoints(folder: Path, name: str, world_size: int | None) -> Path:
    return folder / f"ckpt_{world_size}" / name
