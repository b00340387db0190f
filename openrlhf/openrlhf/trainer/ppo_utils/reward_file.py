"""Rewards from a user's Python file: `--remote_rm_url FILE.py` with a function `reward_func` in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from openrlhf.trainer.ppo_utils.samples import Rewards, Samples
from openrlhf.utils.load_function import load_function


class RewardFileFunction:
    """Calls `reward_func(queries, prompts, labels)` once a group.

    queries: prompt text + response text, (G,); prompts: prompt text, (G,); labels: the row's `--label_key` value, (G,).
    It returns G numbers (a list or a tensor).
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._function: Callable[..., Sequence[Any]] = load_function(f"{path}:reward_func", num_arguments=3)

    def __call__(self, samples: Samples) -> Rewards:
        num_samples = len(samples.responses)
        text, label = samples.prompt.text, samples.prompt.datapoint.get("label")
        queries = [text + response for response in samples.responses]
        rewards = [float(r) for r in self._function(queries, [text] * num_samples, [label] * num_samples)]
        if len(rewards) != num_samples:
            raise ValueError(f"{self._path}: reward_func returned {len(rewards)} rewards for {num_samples} queries")
        return Rewards(rewards=rewards)
