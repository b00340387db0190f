"""A checkpoint as its folder looks, without weights, and an export of it, for tests of what surrounds the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openrlhf.cli.export_hf import STAMP, make_stamp
from openrlhf.utils.checkpoints import Checkpoint, begin_checkpoint, finish_checkpoint

SETTINGS = {
    "policy.pretrain": "ines/tiny-chat",
    "num_prompts": 3,
    "reward.reward_shape": "nll_delta",
    "algorithm.advantage_estimator": "group_norm",
    "optimizer.learning_rate": 1e-3,
    "seed": 42,
}


def make_checkpoint(directory: Path, step: int = 2) -> Checkpoint:
    """`directory/global_stepN`, complete."""
    tag = f"global_step{step}"
    begin_checkpoint(directory, tag)
    (directory / tag / "mp_rank_00_model_states.pt").write_bytes(b"weights")
    return finish_checkpoint(directory, tag, world_size=1, zero_stage=0, state={"step": step, "settings": SETTINGS})


def make_run(folder: Path, **config: Any) -> Checkpoint:
    """A run's --save_path with its record, and a checkpoint in it."""
    folder.mkdir(parents=True, exist_ok=True)
    flags = {
        "pretrain": "ines/tiny-chat",
        "prompt_data": "json@/home/ines/secret_project/rl_data",
        "ckpt_path": str(folder / "checkpoints"),
        "rollout_batch_size": 2,
        "use_kl_loss": True,
        "use_wandb": "(hidden)",
        **config,
    }
    (folder / "config.json").write_text(json.dumps(flags))
    rows = [
        {"step": 0, "phase": "eval", "reward": 0.25, "response_length": 16.0},
        {"step": 1, "phase": "train", "reward": 0.5},
        {"step": 2, "phase": "eval", "reward": 0.75, "response_length": 12.0},
        {"step": 4, "phase": "eval", "reward": 9.0, "response_length": 12.0},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return make_checkpoint(folder / "checkpoints" / "_actor")


def make_export(checkpoint: Checkpoint, out: Path, *, num_shards: int = 3) -> None:
    """What `export_hf` would have made of it, in bf16."""
    out.mkdir()
    (out / "README.md").write_text("---\nlibrary_name: transformers\n---\n# Model\n")
    (out / STAMP).write_text(json.dumps(make_stamp(checkpoint, "bf16")))
    (out / "config.json").write_text("{}")
    for shard in range(num_shards):
        (out / f"model-{shard}.safetensors").write_bytes(bytes([shard]) * 1000)
