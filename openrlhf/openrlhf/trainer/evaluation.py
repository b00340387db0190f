"""One evaluation: samples and scores the evaluation split, and keeps every completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openrlhf.config import TrainConfig
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.metrics import MeanMetrics, PhaseTimer
from openrlhf.trainer.ppo_utils.rollout import ScoredSamples
from openrlhf.trainer.ppo_utils.rollout_metrics import add_reward_metrics, summary
from openrlhf.trainer.ppo_utils.samples import Prompt
from openrlhf.trainer.tracking import MetricsLogger
from openrlhf.utils.deepspeed.collectives import all_gather_object
from openrlhf.utils.logging import init_logger

logger = init_logger(__name__)


def evaluate(
    experience_maker: RemoteExperienceMaker,
    prompts: Sequence[Prompt],
    *,
    config: TrainConfig,
    step: int,
    tracker: MetricsLogger | None,
) -> dict[str, float]:
    """Evaluates after `step` steps on this rank's `prompts`; returns the means over all ranks. Collective.

    `tracker`, rank 0's, gets the means and all ranks' completions.
    """
    timer, metrics = PhaseTimer(), MeanMetrics()
    with timer.phase("eval"):
        scored = experience_maker.evaluate(prompts, config.evaluation.sampling, step=step, timer=timer)
    add_reward_metrics(metrics, scored, config.algorithm.reward_clip_range)
    reduced = {**metrics.reduce(), **timer.metrics()}
    shares = all_gather_object([row for group in scored for row in completion_rows(group)])
    if tracker is not None:
        rows = sorted((row for share in shares for row in share), key=lambda row: (row["prompt_index"], row["sample"]))
        tracker.log(step, "eval", reduced)
        tracker.log_completions(step, rows)
        logger.info("evaluation at step %d: %s", step, summary(reduced))
    return reduced


def completion_rows(group: ScoredSamples) -> list[dict[str, Any]]:
    """One JSON-ready row for each completion of an evaluation."""
    prompt, rewards = group.samples.prompt, group.rewards
    return [
        {
            "prompt_index": prompt.index,
            "datapoint_id": prompt.datapoint_id,
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
