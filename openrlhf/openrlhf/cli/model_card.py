"""The README of an exported model, from the checkpoint's settings and the record of its run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from openrlhf.cli.flag_table import BY_NAME
from openrlhf.cli.run_folder import RunRecord
from openrlhf.config import HIDDEN
from openrlhf.utils.checkpoints import Checkpoint

METRICS = (
    "reward",
    "improvement_pct",
    "improvement_pct_ci_low",
    "improvement_pct_ci_high",
    "nll_delta",
    "plan_length",
    "response_length",
    "kl",
    "entropy",
)
LEFT_OUT = {"use_wandb", "wandb_org", "wandb_group", "wandb_project", "wandb_run_name", "use_tensorboard"}


def render_card(checkpoint: Checkpoint, run: RunRecord | None, *, name: str, dtype: str) -> str:
    """The card, as Markdown. Of paths of the training machine only the last part is told."""
    settings = checkpoint.state.get("settings", {})
    base = str(settings.get("policy.pretrain", "unknown"))
    step = checkpoint.state.get("step")
    parts = [
        _front_matter(base),
        f"# {name}\n",
        f"{_public(base)}, trained with reinforcement learning; the weights after step {step}, in {dtype}.\n",
        "## Training\n",
        _list(_facts(settings, run)),
    ]
    if run is not None:
        rows = [row for row in run.metrics if step is None or row["step"] <= step]
        parts += [_metrics(rows), f"## Command\n\n```\n{command_line(run.config)}\n```\n"]
    return "\n".join(part for part in parts if part)


def command_line(config: Mapping[str, Any]) -> str:
    """The command of a run, without what is at its default, without secrets and without what only reports."""
    words = ["python train_ncp.py"]
    for name, value in config.items():
        flag = BY_NAME.get(name)
        if flag is None or name in LEFT_OUT or value in (None, HIDDEN) or value == flag.default:
            continue
        values = value if isinstance(value, list) else [value]
        words.append(f"--{name}" if value is True else shlex.join([f"--{name}", *(_public(str(v)) for v in values)]))
    return " \\\n  ".join(words)


def _front_matter(base: str) -> str:
    """What the hub reads."""
    lines = [
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags:",
        "- openrlhf",
        "- reinforcement-learning",
    ]
    if is_hub_id(base):
        lines.insert(0, f"base_model: {base}")
    return "\n".join(["---", *lines, "---", ""])


def is_hub_id(name: str) -> bool:
    """Whether a model's name is one of the hub's, not a folder here."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()


def _facts(settings: Mapping[str, Any], run: RunRecord | None) -> Iterable[tuple[str, Any]]:
    config = run.config if run is not None else {}
    yield "base model", _public(str(settings.get("policy.pretrain", "unknown")))
    yield "data", _public(str(config.get("prompt_data") or settings.get("data.prompt_data")))
    yield "prompts", settings.get("num_prompts")
    yield "reward", _reward(settings)
    yield "advantages", settings.get("algorithm.advantage_estimator")
    yield "samples per prompt", settings.get("batch.n_samples_per_prompt")
    yield "learning rate", settings.get("optimizer.learning_rate")
    yield "KL coefficient", settings.get("algorithm.init_kl_coef")
    yield "seed", settings.get("seed")


def _reward(settings: Mapping[str, Any]) -> str | None:
    """Which reward, in words."""
    for name in ("reward.remote_rm_url", "reward.reward_function"):
        if settings.get(name):
            return f"a function of the project's own ({_public(str(settings[name]))})"
    if settings.get("reward.reward_shape"):
        return (
            "how much the response lowers the base model's perplexity on the gold text (VR-CLI), shape "
            f"`{settings['reward.reward_shape']}`"
        )
    return None


def _list(facts: Iterable[tuple[str, Any]]) -> str:
    return "".join(f"* {name}: {value}\n" for name, value in facts if value not in (None, "None"))


def _metrics(rows: list[dict[str, Any]]) -> str:
    """A table of the first and the last evaluation; nothing where there was none."""
    evaluations = [row for row in rows if row["phase"] == "eval"]
    if not evaluations:
        return ""
    first, last = evaluations[0], evaluations[-1]
    lines = [f"| metric | step {first['step']} | step {last['step']} |", "|---|---|---|"]
    lines += [f"| {name} | {_number(first[name])} | {_number(last.get(name))} |" for name in METRICS if name in first]
    return "## Evaluation\n\n" + "\n".join(lines) + "\n"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else json.dumps(value)


def _public(value: str) -> str:
    """A path without the folders above it: they are nobody's affair."""
    kind, at, path = value.rpartition("@")
    return kind + at + Path(path).name if path.startswith(("/", "~")) else value
