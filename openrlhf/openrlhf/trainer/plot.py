"""Draws a run: reward and improvement over the steps, in training and on the held-out split, there with its interval
and with what plans earn that nobody had to learn.

python -m openrlhf.trainer.plot ckpt/metrics.jsonl ckpt/metrics.png
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrlhf.trainer.tracking import read_metrics
from openrlhf.utils.atomic_io import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = (
    # metric, title, axis label
    ("reward", "Reward", "mean reward"),
    ("improvement_pct", "Likelihood improvement of the gold text", "perplexity reduction (%)"),
)
PHASES = (
    # phase, label, style
    ("train", "training rollouts", {"color": "#4c72b0", "marker": ".", "linewidth": 1.2}),
    ("eval", "held-out split", {"color": "#c44e52", "marker": "o", "linewidth": 1.8}),
)


CONTROL_STYLES = (
    # control, label, style
    ("empty", "no plan", "--"),
    ("synopsis", "the synopsis as plan", "-."),
    ("other", "another story's synopsis", ":"),
)


def series(rows: Sequence[dict[str, Any]], phase: str, metric: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric; rows without it, or with null, are left out."""
    points = [(row["step"], row[metric]) for row in rows if row["phase"] == phase and row.get(metric) is not None]
    return [step for step, _ in points], [value for _, value in points]


def plot_metrics(metrics_path: str | Path, out_png: str | Path) -> None:
    """Draw `metrics.jsonl` as a PNG with a panel for each of `PANELS`. A series that is missing is left out."""
    from matplotlib.figure import Figure  # drawn without pyplot: no window system, no global state
    from matplotlib.ticker import MaxNLocator

    rows = read_metrics(metrics_path)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axes, (metric, title, label) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for phase, name, style in PHASES:
            steps, values = series(rows, phase, metric)
            if steps:
                axes.plot(steps, values, label=name, **style)
                draw_interval(axes, rows, phase, metric, color=style["color"])
        draw_controls(axes, rows, metric)
        if axes.lines:
            axes.legend(frameon=False)
        else:
            axes.text(0.5, 0.5, "not recorded", ha="center", va="center", transform=axes.transAxes, color="gray")
        axes.set(title=title, xlabel="step", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_write(out_png, "wb") as file:
        figure.savefig(file, format="png", dpi=150)


def draw_interval(axes: Axes, rows: Sequence[dict[str, Any]], phase: str, metric: str, *, color: Any) -> None:
    """A band from low to high, where the rows have them."""
    ends = [series(rows, phase, f"{metric}_ci_{end}") for end in ("low", "high")]
    if ends[0][0]:
        (steps, low), (_, high) = ends
        axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0, label="95 % interval")


def draw_controls(axes: Axes, rows: Sequence[dict[str, Any]], metric: str) -> None:
    """A level for each control."""
    for control, name, style in CONTROL_STYLES:
        _, values = series(rows, "eval", f"control_{control}/{metric}")
        if values:
            axes.axhline(values[-1], color="gray", linestyle=style, linewidth=1.0, label=name)


if __name__ == "__main__":
    plot_metrics(*sys.argv[1:])
