"""How fast a step was, with --perf."""

from __future__ import annotations

from collections.abc import Sequence

from openrlhf.trainer.ppo_utils.metrics import PhaseTimer
from openrlhf.trainer.ppo_utils.samples import Experience
from openrlhf.utils.deepspeed.collectives import all_reduce
from openrlhf.utils.devices import peak_memory_gib


def performance_metrics(experiences: Sequence[Experience], timer: PhaseTimer) -> dict[str, float]:
    """Sampled tokens per second of the whole step and of sampling, and the highest peak memory. Collective."""
    num_tokens = all_reduce(sum(len(c.token_ids) for e in experiences for c in e.samples.completions), op="sum")
    return {
        "perf/tokens_per_s": num_tokens / timer.seconds["step"],
        "perf/generated_tokens_per_s": num_tokens / timer.seconds["generate"],
        "perf/actor_peak_memory_gib": all_reduce(peak_memory_gib(), op="max"),
    }
