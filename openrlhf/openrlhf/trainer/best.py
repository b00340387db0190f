"""The best evaluation of a run so far: which one it is, and whether the next one beats it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from openrlhf.errors import UserError


@dataclass(frozen=True, kw_only=True)
class BestEvaluation:
    """The highest value of a metric, and the evaluation that gave it. A checkpoint's state holds it as a plain dict."""

    metric: str
    value: float
    step: int


def better_evaluation(
    best: BestEvaluation | None, metrics: Mapping[str, float], *, metric: str, step: int
) -> BestEvaluation | None:
    """The evaluation after `step`, if its `metric` is higher than the best one's; None if not.

    Raises:
        UserError: the evaluation has no such metric; the message lists those that it has.
    """
    check_metric(metric, (name for name in metrics if not name.startswith("time/")))
    value = metrics[metric]
    if not math.isfinite(value) or (best is not None and value <= best.value):
        return None
    return BestEvaluation(metric=metric, value=value, step=step)


def check_metric(metric: str, names: Iterable[str]) -> None:
    """Raises UserError where `--save_best` names none of an evaluation's metrics."""
    known = sorted(names)
    if metric not in known:
        raise UserError(f"--save_best {metric}: evaluations have no such metric; choose from {', '.join(known)}")


def resumed_best(saved: Mapping[str, object] | None, *, metric: str | None) -> BestEvaluation | None:
    """What a checkpoint says of the best evaluation, if it is of this metric."""
    if saved is None or saved["metric"] != metric:
        return None
    return BestEvaluation(**saved)  # type: ignore[arg-type]
