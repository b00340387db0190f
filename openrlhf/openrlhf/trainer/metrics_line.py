"""The numbers to watch of a step, on one line; columns of successive lines stand below each other.

step 4/24      reward  -0.1002  improvement  -12.17 %  length   16.0  KL 0.175   2.2 s, 0:45 left
eval 4         ...
"""

from __future__ import annotations

from collections.abc import Mapping

from openrlhf.trainer.ppo_utils.rollout_metrics import EQUAL_REWARDS
from openrlhf.utils.durations import duration

LABEL_WIDTH = 13
"""Of `step 100/2400`."""


def label(text: str) -> str:
    """What begins a step's or an evaluation's line."""
    return f"{text:<{LABEL_WIDTH}}"


def metrics_line(begin: str, metrics: Mapping[str, float], *, left_s: float | None = None) -> str:
    """`metrics`: as in metrics.jsonl; what is not among them is left out.

    Args:
        left_s: seconds until the end of the run, as far as that can be told.
    """
    columns = [label(begin)]
    if "reward" in metrics:
        columns.append(f"reward {_number(metrics['reward']):>8}")
    if "improvement_pct" in metrics:
        columns.append(f"improvement {metrics['improvement_pct']:7.2f} %")
    if "response_length" in metrics:
        columns.append(f"length {metrics['response_length']:6.1f}")
    if "kl" in metrics:
        columns.append(f"KL {metrics['kl']:<7.3g}")
    times = [duration(metrics["time/step_s"])] if "time/step_s" in metrics else []
    times += [f"{duration(left_s)} left"] if left_s is not None else []
    columns += [", ".join(times)] if times else []
    if metrics.get(EQUAL_REWARDS) == 1.0:
        columns.append("(all rewards equal)")
    return "  ".join(columns)


def _number(value: float) -> str:
    """Four decimals as long as they fit into the column."""
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.5g}"


def seconds_left(elapsed_s: float, *, done: int, remaining: int) -> float:
    """Of `remaining` steps, if they take as long as the `done` ones have on average, evaluations and saves included."""
    return elapsed_s / done * remaining
