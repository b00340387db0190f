"""How the flags become VR-CLI's reward."""

from __future__ import annotations

import math

import pytest

from openrlhf.config import RewardConfig
from openrlhf.vr_cli.perplexity import Likelihood
from openrlhf.vr_cli.rewards import RewardInputs
from ray_utils import reward_function


def inputs(num_plan_tokens: int) -> RewardInputs:
    """A plan that lowers the perplexity from 4 to 3: by 25 %, and by log(4/3) nats."""
    return RewardInputs(
        datapoint={},
        response="",
        plan="",
        num_plan_tokens=num_plan_tokens,
        baseline=Likelihood(nll_sum=math.log(4), num_tokens=1),
        planned=Likelihood(nll_sum=math.log(3), num_tokens=1),
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (RewardConfig(reward_shape="improvement"), 25.0),  # no floor unless it is asked for
        (RewardConfig(reward_shape="improvement", min_plan_tokens=4), 25.0),
        (RewardConfig(reward_shape="improvement", min_plan_tokens=7), 25.0 - 3 * 3.0),
        (RewardConfig(reward_shape="nll_delta", min_plan_tokens=7), math.log(4 / 3) - 3 * 0.03),
        (RewardConfig(reward_shape="nll_delta", min_plan_tokens=7, short_plan_penalty=1.0), math.log(4 / 3) - 3.0),
        (RewardConfig(min_plan_tokens=7), 1.0 - 3 * 0.03),  # tiers
    ],
)
def test_a_plan_of_four_tokens(config: RewardConfig, expected: float):
    assert reward_function(config)(inputs(4)) == pytest.approx(expected)
