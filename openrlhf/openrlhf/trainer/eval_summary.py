"""From the rows of an evaluation's completions to its numbers, and to the line that says them. Nothing else is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from openrlhf.trainer.ppo_utils.samples import ControlScore
from openrlhf.vr_cli.statistics import paired_differences, summarize

BREAKDOWN_FIELDS = ("story_id", "genre")
"""Fields of a datapoint by which an evaluation is broken down."""

Row = Mapping[str, Any]


def split_metrics(
    rows: Sequence[Row], controls: Sequence[ControlScore], *, names: Sequence[str], seed: int
) -> dict[str, float]:
    """The split's metrics beyond means: the reward and `names` summarised, the first of `names` against the controls.

    Args:
        rows: `completion_rows` of every prompt of the split.
    """
    metrics = {"num_datapoints": float(len(_by_prompt(rows, "reward")))}
    for name in ("reward", *names):
        metrics |= summarize(list(_by_prompt(rows, name).values()), seed=seed).metrics(name)
    return metrics | (_against_controls(rows, controls, names[0], seed=seed) if names else {})


def _against_controls(
    rows: Sequence[Row], controls: Sequence[ControlScore], name: str, *, seed: int
) -> dict[str, float]:
    """For each control its mean, and the mean of the policy's values less the control's on the same datapoint.

    The interval is of that difference: datapoints differ by more than plans do, and the difference leaves that out.
    """
    worth: dict[str, dict[int, float]] = defaultdict(dict)
    for score in controls:
        worth[score.control][score.prompt_index] = score.metrics[name]
    metrics: dict[str, float] = {}
    for control, values in worth.items():
        difference = summarize(paired_differences(_by_prompt(rows, name), values), seed=seed)
        metrics[f"control_{control}/{name}"] = sum(values.values()) / len(values)
        metrics |= difference.metrics(f"over_{control}/{name}")
    return metrics


def metric_names(
    task_metrics: Collection[str], *, summarised: Sequence[str], controls: Sequence[str], num_datapoints: int
) -> set[str]:
    """The names of an evaluation's metrics, but for times: those of datapoints that score 0 in everything."""
    prompts = range(min(num_datapoints, 2))
    zeros = {**dict.fromkeys(task_metrics, 0.0), "reward": 0.0, "response_length": 0.0, "truncated_frac": 0.0}
    scores = [
        ControlScore(prompt_index=i, datapoint_id=None, control=control, plan="", reward=0.0, metrics=zeros)
        for control in controls
        for i in prompts
    ]
    rows = [{"prompt_index": i, **zeros} for i in prompts]
    return {*zeros, *split_metrics(rows, scores, names=summarised, seed=0)}


def breakdown(rows: Sequence[Row], *, names: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """One row for each story and each genre of the split: the reward and `names`, summarised over its datapoints."""
    parts = []
    for field in BREAKDOWN_FIELDS:
        having = [row for row in rows if row.get(field) not in (None, "")]
        for value in dict.fromkeys(row[field] for row in having):
            of_part = [row for row in having if row[field] == value]
            parts.append({"by": field, "value": value, **split_metrics(of_part, [], names=names, seed=seed)})
    return parts


def evaluation_line(metrics: Mapping[str, float], *, noise_pct: float | None) -> str:
    """The numbers to watch, on one line. `noise_pct`: of scoring, as it was measured when the run began."""
    name = "improvement_pct" if "improvement_pct" in metrics else "reward"
    parts = [f"{name} {metrics[name]:.4g}"]
    if f"{name}_ci_low" in metrics:
        low, high = metrics[f"{name}_ci_low"], metrics[f"{name}_ci_high"]
        parts[0] += f" (95 % interval {low:.4g} to {high:.4g}, {metrics['num_datapoints']:.0f} datapoints)"
    if name != "reward":
        parts.append(f"above 0 in {100 * metrics[f'{name}_positive_frac']:.0f} %, reward {metrics['reward']:.4g}")
    if noise_pct is not None:
        parts.append(f"scoring noise {noise_pct:.2g} %")
    shown = ("plan_length", "response_length", "time/eval_s")
    return ", ".join([*parts, *(f"{n.removeprefix('time/')} {metrics[n]:.4g}" for n in shown if n in metrics)])


def _by_prompt(rows: Sequence[Row], name: str) -> dict[int, list[float]]:
    """A metric's values by prompt, in the order of the rows."""
    groups: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        groups[row["prompt_index"]].append(row[name])
    return dict(groups)
