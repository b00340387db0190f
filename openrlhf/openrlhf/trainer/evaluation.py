"""Evaluations of one split: sampled and scored before training and every `eval_steps`, on all ranks, all in step.

    <save_path>/eval_completions/step_8.jsonl   every completion of the evaluation after step 8, always
    <save_path>/eval_breakdown.jsonl            the same numbers by story and genre, where datapoints have them
    <save_path>/eval_controls.jsonl             what plans that nobody learned are worth on the split

The controls do not change while the reference model does not, so they are scored once a run and repeated beside every
evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openrlhf.config import TrainConfig
from openrlhf.trainer.eval_summary import BREAKDOWN_FIELDS, breakdown, evaluation_line, split_metrics
from openrlhf.trainer.guard import Guard, control_line
from openrlhf.trainer.metrics_line import label
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.metrics import MeanMetrics, PhaseTimer
from openrlhf.trainer.ppo_utils.rollout import ScoredSamples
from openrlhf.trainer.ppo_utils.rollout_metrics import add_reward_metrics
from openrlhf.trainer.ppo_utils.samples import ControlScore, Prompt
from openrlhf.trainer.tracking import MetricsLogger
from openrlhf.utils.deepspeed.collectives import all_gather_object, broadcast_object
from openrlhf.utils.logging import init_logger
from openrlhf.utils.seeds import Stream, derive_seed

logger = init_logger(__name__)


class Evaluator:
    """Evaluates one split again and again. One on every actor rank; all its methods are collective."""

    def __init__(
        self,
        experience_maker: RemoteExperienceMaker,
        split: Sequence[Prompt],
        *,
        share: Sequence[Prompt],
        config: TrainConfig,
        tracker: MetricsLogger | None,
    ) -> None:
        """`share`: this rank's prompts of the split. `tracker`, rank 0's, gets all ranks' numbers and completions."""
        self._experience_maker = experience_maker
        self._split = split
        self._share = share
        self._config = config
        self._tracker = tracker
        self._guard = Guard()
        self._controls: list[ControlScore] | None = None
        """Of the whole split, once they are scored."""

    def run(self, step: int) -> dict[str, float]:
        """Evaluates after `step` steps; returns the metrics over all ranks, the same on each of them."""
        timer, means = PhaseTimer(), MeanMetrics()
        controls = self._scored_controls(timer)
        with timer.phase("eval"):
            sampling = self._config.evaluation.sampling
            scored = self._experience_maker.evaluate(self._share, sampling, step=step, timer=timer)
        add_reward_metrics(means, scored, self._config.algorithm.reward_clip_range)
        reduced = {**means.reduce(), **timer.metrics()}
        rows = _gathered([row for group in scored for row in completion_rows(group)])
        names, seed = self._experience_maker.summarised, derive_seed(self._config.seed, Stream.BOOTSTRAP)
        # One rank's numbers for all: what they decide must not depend on the last bit of another machine's.
        metrics = broadcast_object({**reduced, **split_metrics(rows, controls, names=names, seed=seed)})
        if self._tracker is not None:
            self._record(self._tracker, step, metrics, rows, breakdown(rows, names=names, seed=seed))
        return metrics

    def _scored_controls(self, timer: PhaseTimer) -> list[ControlScore]:
        if self._controls is None:
            with timer.phase("controls"):
                mine = self._experience_maker.score_controls(self._share, self._split)
            shares = all_gather_object(mine)
            self._controls = sorted((score for share in shares for score in share), key=lambda s: s.prompt_index)
            if self._tracker is not None:
                self._tracker.log_controls([score.row() for score in self._controls])
        return self._controls

    def _record(
        self,
        tracker: MetricsLogger,
        step: int,
        metrics: dict[str, float],
        rows: Sequence[dict[str, Any]],
        parts: Sequence[dict[str, Any]],
    ) -> None:
        tracker.log(step, "eval", metrics)
        tracker.log_completions(step, rows)
        tracker.log_breakdown(step, parts)
        noise_pct = (tracker.first_row("start") or {}).get("scoring_noise_pct")
        logger.info("%s  %s", label(f"eval {step}"), evaluation_line(metrics, noise_pct=noise_pct))
        if (line := control_line(metrics)) is not None:
            # An untrained policy is expected to do no better.
            (logger.warning if step > 0 else logger.info)("evaluation after step %d: %s", step, line)
        for line in self._guard.lines(metrics, tracker.first_row("eval") or metrics):
            logger.warning("evaluation after step %d: %s", step, line)


def _gathered(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All ranks' rows, in the order of prompts and samples."""
    shares = all_gather_object(list(rows))
    return sorted((row for share in shares for row in share), key=lambda row: (row["prompt_index"], row["sample"]))


def completion_rows(group: ScoredSamples) -> list[dict[str, Any]]:
    """One JSON-ready row for each completion of a group."""
    prompt, rewards = group.samples.prompt, group.rewards
    fields = {name: prompt.datapoint[name] for name in BREAKDOWN_FIELDS if name in prompt.datapoint}
    return [
        {
            "prompt_index": prompt.index,
            "datapoint_id": prompt.datapoint_id,
            **fields,
            "sample": i,
            "prompt": prompt.text,
            "completion": response,
            "finish_reason": completion.finish_reason,
            "response_length": len(completion.token_ids),
            "reward": rewards.rewards[i],
            **{name: values[i] for name, values in rewards.metrics.items()},
        }
        for i, (response, completion) in enumerate(zip(group.samples.responses, group.samples.completions, strict=True))
    ]
