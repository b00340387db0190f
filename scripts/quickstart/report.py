"""The table at the end of quickstart.sh: what the run measured, and where its files are.

python scripts/quickstart/report.py --run runs/quickstart --baseline_ppl_path MAP.pkl
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openrlhf.cli.command import run_command
from openrlhf.errors import UserError
from openrlhf.trainer.tracking import read_metrics
from openrlhf.vr_cli.baseline_map import BaselineMap, baseline_likelihood
from openrlhf.vr_cli.perplexity import Likelihood

Rows = Sequence[dict[str, Any]]

TRAIN_COLUMNS = (("reward", "reward"), ("KL", "kl"), ("tokens", "response_length"))
EVAL_COLUMNS = (
    ("reward", "reward"),
    ("improvement %", "improvement_pct"),
    ("95 % from", "improvement_pct_ci_low"),
    ("to", "improvement_pct_ci_high"),
    ("tokens", "response_length"),
)
WIDTH = 14


def corpus_perplexity(baseline: BaselineMap) -> float:
    """Perplexity of all gold texts together, without a plan: exp(sum of NLL / number of tokens)."""
    likelihoods = [baseline_likelihood(datapoint) for datapoint in baseline.by_key.values()]
    return Likelihood(
        nll_sum=sum(likelihood.nll_sum for likelihood in likelihoods),
        num_tokens=sum(likelihood.num_tokens for likelihood in likelihoods),
    ).perplexity


def of_phase(rows: Rows, phase: str) -> list[dict[str, Any]]:
    return sorted((row for row in rows if row["phase"] == phase), key=lambda row: row["step"])


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Right-aligned columns; numbers with four significant digits, `-` where there is none."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *cells]]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def report(rows: Rows, baseline: BaselineMap | None) -> list[str]:
    """The lines of the report."""
    train, evaluations = of_phase(rows, "train"), of_phase(rows, "eval")
    lines = []
    if baseline is not None:
        lines += [
            f"baseline perplexity of {len(baseline)} gold chapters, no plan: {corpus_perplexity(baseline):.2f}",
            "",
        ]
    if evaluations:
        lines += ["held-out split, before and after training"]
        header = ["step", *(title for title, _ in EVAL_COLUMNS)]
        ends = [evaluations[0], evaluations[-1]] if len(evaluations) > 1 else evaluations
        lines += table(header, [[row["step"], *(row.get(name) for _, name in EVAL_COLUMNS)] for row in ends]) + [""]
    if train:
        phases = [name for name in train[0] if name.startswith("time/")]
        header = ["step", *(title for title, _ in TRAIN_COLUMNS)]
        header += [name.removeprefix("time/").removesuffix("_s") + " s" for name in phases]
        names = [name for _, name in TRAIN_COLUMNS] + phases
        lines += ["training rollouts, with seconds by phase"]
        lines += table(header, [[row["step"], *(row.get(name) for name in names)] for row in train]) + [""]
    return lines


def places(run: Path) -> list[str]:
    """Where the run's files are; those that are not there are left out."""
    completions = sorted((run / "eval_completions").glob("step_*.jsonl"), key=lambda p: int(p.stem.split("_")[1]))
    candidates = {
        "plot": run / "metrics.png",
        "metrics": run / "metrics.jsonl",
        "plans": completions[-1] if completions else run / "eval_completions",
        "checkpoint": run / "checkpoints" / "_actor",
        "fp32 weights": run / "fp32_weights",
        "model": max(run.glob("model-global_step*"), key=lambda path: path.stat().st_mtime, default=run / "model"),
    }
    return [f"{name + ':':<{WIDTH}}{path}" for name, path in candidates.items() if path.exists()]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print what a quickstart run measured.")
    parser.add_argument("--run", type=Path, required=True, help="the run's --save_path")
    parser.add_argument("--baseline_ppl_path", type=Path, help="its baseline map")
    args = parser.parse_args(argv)
    return run_command(lambda: print_report(args.run, args.baseline_ppl_path))


def print_report(run: Path, baseline_ppl_path: Path | None) -> None:
    """Raises UserError where the run has no metrics, or the baseline map cannot be read."""
    metrics = run / "metrics.jsonl"
    if not metrics.is_file():
        raise UserError(f"{metrics} is not there: has the training run?")
    baseline = BaselineMap.load(baseline_ppl_path) if baseline_ppl_path else None
    print("\n".join([*report(read_metrics(metrics), baseline), *places(run)]))


if __name__ == "__main__":
    sys.exit(main())
