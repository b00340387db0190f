"""The order in which groups are scored and returned, whatever order they arrive in."""

from __future__ import annotations

import pytest

from openrlhf.trainer.ppo_utils.rollout import PendingGroup, start_groups
from openrlhf.trainer.ppo_utils.samples import Prompt, Rewards, Samples

PROMPTS = [Prompt(index=index, text="", token_ids=[1]) for index in (5, 2, 9)]
ARRIVED = [Samples(prompt=PROMPTS[i], completions=[], responses=[]) for i in (2, 0, 1)]


@pytest.mark.parametrize(("while_sampling", "order"), [(True, [9, 5, 2]), (False, [5, 2, 9])])
def test_groups_come_back_in_the_order_of_the_prompts(while_sampling: bool, order: list[int]):
    started = []

    def start(samples: Samples) -> PendingGroup:
        started.append(samples.prompt.index)
        rewards = Rewards(rewards=[float(samples.prompt.index)])
        return PendingGroup(samples=samples, wait_rewards=lambda: rewards, wait_ref_logprobs=None)

    pending = start_groups(iter(ARRIVED), PROMPTS, start, while_sampling=while_sampling)
    assert started == order
    assert [group.samples.prompt.index for group in pending] == [5, 2, 9]
    assert [group.scored().rewards.rewards for group in pending] == [[5.0], [2.0], [9.0]]
