"""What a run's numbers say of silence and copying, in lines for people. Nothing here changes the run.

Where plans hurt, a policy first learns to write none; where the prompt's own words help, to repeat them. Both raise the
reward. So plan length, unseen trigrams and entropy are compared with the run's beginning, and improvements with what
plans earn that nobody had to learn (`vr_cli/controls.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NO_PLAN, COPIED, FOREIGN = "no plan at all", "their synopsis, copied", "another story's synopsis"
CONTROL_WORDS = {"empty": NO_PLAN, "synopsis": COPIED, "other": FOREIGN}


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A metric that must not fall below a share of what it was when the run began."""

    name: str
    share: float
    says: str
    """What it means, and what to do; with {now} and {first}."""


WATCHED = (
    Watched(
        name="plan_length",
        share=0.25,
        says="plans have {now:.3g} tokens, {first:.3g} at the start: the policy falls silent; --min_plan_tokens makes "
        "short plans cost something, a higher --init_kl_coef holds it nearer to its start",
    ),
    Watched(
        name="unseen_trigram_share",
        share=0.25,
        says="{now:.0%} of the plans' trigrams are not in their prompts, {first:.0%} at the start: the policy copies",
    ),
    Watched(
        name="entropy",
        share=0.1,
        says="entropy {now:.2g} nats, {first:.2g} at the start: responses of a prompt hardly differ any more; a lower "
        "--actor_learning_rate or a higher --init_kl_coef keeps them apart",
    ),
)


class Guard:
    """Says once that a metric has fallen, and again only if it had recovered."""

    def __init__(self) -> None:
        self._fallen: set[str] = set()

    def lines(self, metrics: Mapping[str, float], first: Mapping[str, float]) -> list[str]:
        """What is new in `metrics`; `first` are those of the run's first step or evaluation."""
        fallen = {watched.name for watched in WATCHED if _has_fallen(watched, metrics, first)}
        if "plan_length" in fallen:
            fallen.discard("unseen_trigram_share")  # next to nothing has next to no trigrams
        before, self._fallen = self._fallen, fallen
        return [
            watched.says.format(now=metrics[watched.name], first=first[watched.name])
            for watched in WATCHED
            if watched.name in self._fallen - before
        ]


def _has_fallen(watched: Watched, metrics: Mapping[str, float], first: Mapping[str, float]) -> bool:
    now, then = metrics.get(watched.name), first.get(watched.name)
    return now is not None and then is not None and now < watched.share * then


def control_line(metrics: Mapping[str, float], name: str = "improvement_pct") -> str | None:
    """Which controls the policy's plans do not beat: those where the interval of the difference is not above 0.

    None where they beat all, or there are no controls or no intervals.
    """
    beaten_by = [
        f"{words} ({metrics[f'over_{control}/{name}']:+.2g}, 95 % interval {low:+.2g} to "
        f"{metrics[f'over_{control}/{name}_ci_high']:+.2g})"
        for control, words in CONTROL_WORDS.items()
        if (low := metrics.get(f"over_{control}/{name}_ci_low")) is not None and low <= 0
    ]
    return f"the policy's plans do no better than {', '.join(beaten_by)}, in {name}" if beaten_by else None
