"""What each step of a run does: a pure function of the run's settings, so that a resumed run continues it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import ceil

from openrlhf.utils.seeds import Stream, derive_seed


@dataclass(frozen=True, kw_only=True)
class RolloutSchedule:
    """Every episode shuffles all prompts and goes through them once, `rollout_batch_size` at a time.

    Nothing is dropped: the last batch of an episode may be smaller, and ranks may get uneven shares of it.
    """

    num_prompts: int
    rollout_batch_size: int
    num_episodes: int
    seed: int
    samples_per_prompt: int = 1
    train_batch_size: int = 1
    """Samples of one optimizer step, over all ranks."""
    max_epochs: int = 1
    """Passes over one rollout's samples."""

    @property
    def steps_per_episode(self) -> int:
        return ceil(self.num_prompts / self.rollout_batch_size)

    @property
    def num_steps(self) -> int:
        return self.num_episodes * self.steps_per_episode

    def batch_size(self, step: int) -> int:
        """How many prompts step 0, 1, ... takes over all ranks."""
        first = (step % self.steps_per_episode) * self.rollout_batch_size
        return min(self.rollout_batch_size, self.num_prompts - first)

    def batch(self, step: int) -> list[int]:
        """The prompt indices of step 0, 1, ... over all ranks."""
        episode, position = divmod(step, self.steps_per_episode)
        order = list(range(self.num_prompts))
        random.Random(derive_seed(self.seed, Stream.DATA_ORDER, episode)).shuffle(order)
        first = position * self.rollout_batch_size
        return order[first : first + self.rollout_batch_size]

    def num_samples(self, step: int) -> int:
        """How many responses step 0, 1, ... samples over all ranks."""
        return self.batch_size(step) * self.samples_per_prompt

    def updates_per_epoch(self, step: int) -> int:
        """Optimizer steps of one pass over the samples of step 0, 1, ..."""
        return ceil(self.num_samples(step) / self.train_batch_size)

    @property
    def num_updates(self) -> int:
        """Optimizer steps of the whole run: the length of the learning-rate schedule."""
        per_episode = sum(self.updates_per_epoch(step) for step in range(self.steps_per_episode))
        return self.num_episodes * per_episode * self.max_epochs
