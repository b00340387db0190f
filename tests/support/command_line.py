"""Command lines for tests: a good one for one CPU machine, and what the checks say of it with a change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from openrlhf.cli.flags import parse_args
from openrlhf.cli.validate import ConfigError, checked_config

Problems = Callable[..., list[str]]

GOOD = [
    *("--pretrain", "model", "--prompt_data", "json@rl_data", "--baseline_ppl_path", "baseline.pkl"),
    *("--input_key", "prompt", "--apply_chat_template", "--eval_split", "validation", "--eval_steps", "2"),
    *("--advantage_estimator", "group_norm", "--n_samples_per_prompt", "4", "--rollout_batch_size", "8"),
    *("--train_batch_size", "16", "--actor_num_gpus_per_node", "1", "--ref_num_gpus_per_node", "1"),
    *("--colocate_actor_ref", "--vllm_num_engines", "1", "--vllm_sync_backend", "gloo"),
]


def make_folder(folder: Path) -> None:
    """What GOOD names: a model's config, prompts, a baseline map."""
    (folder / "model").mkdir()
    (folder / "rl_data").mkdir()
    config = {"max_position_embeddings": 4096, "num_attention_heads": 9}
    (folder / "model" / "config.json").write_text(json.dumps(config))
    for split in ("train", "val", "test"):
        (folder / "rl_data" / f"{split}.jsonl").write_text('{"prompt": []}\n')
    (folder / "baseline.pkl").write_bytes(b"")


def find_problems(extra: str | list[str] = "", *, num_gpus: int | None = 0, drop: str = "") -> list[str]:
    """The problems of GOOD, without one of its flags or with others added; of two, the later wins."""
    argv = list(GOOD)
    if drop:
        at = argv.index(drop)
        del argv[at : at + (2 if at + 1 < len(argv) and not argv[at + 1].startswith("--") else 1)]
    try:
        checked_config(parse_args(argv + (extra.split() if isinstance(extra, str) else extra)), num_gpus=num_gpus)
    except ConfigError as error:
        return error.problems
    return []
