"""Reward shapes, by hand: a baseline perplexity of 4 and planned ones of 3 (25 % better) and 5 (25 % worse)."""

from __future__ import annotations

import math

import pytest

from openrlhf.errors import UserError
from openrlhf.vr_cli import perplexity
from openrlhf.vr_cli.perplexity import Likelihood
from openrlhf.vr_cli.rewards import (
    DEFAULT_TIERS,
    SHAPES,
    RewardInputs,
    Tier,
    make_reward_function,
    parse_tiers,
    short_plan_penalty,
    tiered_reward,
    with_min_plan_tokens,
)


def inputs_of_ppl(planned: float, baseline: float = 4.0, num_plan_tokens: int = 4) -> RewardInputs:
    return RewardInputs(
        datapoint={"datapoint_id": "s/1"},
        sample_index=3,
        response="In summary: they meet.",
        plan="they meet.",
        num_plan_tokens=num_plan_tokens,
        baseline=Likelihood(nll_sum=3 * math.log(baseline), num_tokens=3),
        planned=Likelihood(nll_sum=3 * math.log(planned), num_tokens=3),
    )


@pytest.mark.parametrize(
    ("improvement", "reward"),
    [(-5, 0), (0, 0), (0.0499, 0), (0.05, 0.5), (0.99, 0.5), (1, 0.9), (1.99, 0.9), (2, 1), (50, 1)],
)
def test_default_tiers_are_the_papers(improvement, reward):
    assert tiered_reward(improvement, DEFAULT_TIERS) == reward


@pytest.mark.parametrize(
    ("shape", "for_better", "for_worse"),
    [
        ("tiers", 1.0, 0.0),
        ("improvement", 25.0, -25.0),
        ("positive", 25.0, 0.0),
        ("negative", 0.0, -25.0),
        ("binary", 1.0, 0.0),
        ("nll_delta", math.log(4 / 3), math.log(4 / 5)),
    ],
)
def test_shapes(shape, for_better, for_worse):
    reward = make_reward_function(shape)
    assert reward(inputs_of_ppl(3)) == pytest.approx(for_better)
    assert reward(inputs_of_ppl(5)) == pytest.approx(for_worse)


def test_binary_pays_for_no_change():
    assert make_reward_function("binary")(inputs_of_ppl(4)) == 1.0


def test_own_tiers_replace_the_default():
    reward = make_reward_function("tiers", tiers="10:0.25,30:1")
    assert reward(inputs_of_ppl(3)) == 0.25  # 25 % lies between the two
    assert reward(inputs_of_ppl(2)) == 1.0  # 50 %
    assert reward(inputs_of_ppl(3.9)) == 0.0  # 2.5 %


def test_default_tiers_parse_from_text():
    assert parse_tiers("0.05:0.5,1:0.9,2:1.0") == DEFAULT_TIERS
    assert parse_tiers("-1:-0.5") == (Tier(threshold_pct=-1.0, reward=-0.5),)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "pairs"),
        ("1", "pairs"),
        ("1:2:3", "pairs"),
        ("a:1", "pairs"),
        ("2:1,1:0", "ascend"),
        ("1:0,1:1", "ascend"),
        ("1:nan", "finite"),
    ],
)
def test_bad_tiers_say_what_is_expected(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_tiers(text)


def test_unknown_shape_lists_the_shapes():
    with pytest.raises(ValueError, match=r"'tier'.*tiers, improvement, positive, negative, binary, nll_delta"):
        make_reward_function("tier")


def test_nothing_is_accepted_and_ignored(tmp_path):
    file = reward_file(tmp_path, "def reward(inputs): return 1")
    with pytest.raises(ValueError, match="not to 'binary'"):
        make_reward_function("binary", tiers="1:1")
    with pytest.raises(ValueError, match="replaces the shape"):
        make_reward_function("binary", custom=f"{file}:reward")
    with pytest.raises(ValueError, match="replaces the shape"):
        make_reward_function("tiers", tiers="1:1", custom=f"{file}:reward")


def test_own_function_gets_everything(tmp_path):
    file = reward_file(
        tmp_path,
        "def reward(inputs):\n"
        "    assert inputs.datapoint['datapoint_id'] == 's/1' and 'meet' in inputs.response\n"
        "    return inputs.improvement_pct + inputs.baseline.num_tokens + inputs.planned.num_tokens\n",
    )
    assert make_reward_function(custom=f"{file}:reward")(inputs_of_ppl(3)) == pytest.approx(25 + 3 + 3)


@pytest.mark.parametrize(
    "value", ["float('nan')", "float('inf')", "None", "True", "'1'", "{'reward': 1}", "[1, 2]", "torch.ones(2)", "1j"]
)
def test_own_function_must_return_a_finite_number(tmp_path, value):
    file = reward_file(tmp_path, f"import torch\ndef reward(inputs): return {value}")
    with pytest.raises(UserError, match=r"my_reward\.py:reward' returned .* for datapoint 's/1', sample 3; .*finite"):
        make_reward_function(custom=f"{file}:reward")(inputs_of_ppl(3))


def test_what_own_function_raises_comes_with_its_name_and_the_datapoint(tmp_path):
    file = reward_file(tmp_path, "def reward(inputs):\n    return inputs.datapoint['genre']\n")
    with pytest.raises(UserError) as error:
        make_reward_function(custom=f"{file}:reward")(inputs_of_ppl(3))
    expected = f"the reward function '{file}:reward' raised KeyError: 'genre' (at {file}:2)"
    assert str(error.value) == f"{expected} for datapoint 's/1', sample 3"


def test_a_plan_loses_for_every_token_that_it_is_short_of():
    """The shape gives 25 (percent). 4 tokens of 10: 6 are missing, at 0.5 each."""
    function = with_min_plan_tokens(make_reward_function("improvement"), 10, 0.5)
    assert function(inputs_of_ppl(3, num_plan_tokens=4)) == pytest.approx(25.0 - 3.0)
    assert function(inputs_of_ppl(3, num_plan_tokens=0)) == pytest.approx(25.0 - 5.0)
    assert function(inputs_of_ppl(3, num_plan_tokens=10)) == function(inputs_of_ppl(3, num_plan_tokens=99))
    assert function(inputs_of_ppl(3, num_plan_tokens=10)) == pytest.approx(25.0)


def test_a_missing_token_costs_three_percent_in_the_rewards_own_unit():
    assert {shape: short_plan_penalty(shape) for shape in SHAPES} == {
        "tiers": 0.03, "improvement": 3.0, "positive": 3.0, "negative": 3.0, "binary": 0.03, "nll_delta": 0.03
    }  # fmt: skip
    assert short_plan_penalty(None) == 0.03


@pytest.mark.parametrize(
    "value", ["2", "2.0", "np.float32(2)", "np.array([2])", "torch.tensor(2)", "torch.ones(1) + 1"]
)
def test_own_function_may_return_any_kind_of_number(tmp_path, value):
    file = reward_file(tmp_path, f"import numpy as np, torch\ndef reward(inputs): return {value}")
    reward = make_reward_function(custom=f"{file}:reward")(inputs_of_ppl(3))
    assert reward == 2.0
    assert type(reward) is float


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("improvement", [math.nan, math.inf, -math.inf])
def test_an_improvement_that_is_not_finite_is_an_error_in_every_shape(monkeypatch, shape, improvement):
    """`binary` paid 1 for NaN, `tiers` 0."""
    monkeypatch.setattr(perplexity, "improvement_pct", lambda baseline, planned: improvement)
    with pytest.raises(FloatingPointError, match="datapoint 's/1', sample 3"):
        make_reward_function(shape)(inputs_of_ppl(3))


def test_own_function_that_is_not_there_is_an_error(tmp_path):
    file = reward_file(tmp_path, "def reward(inputs): return 1")
    for spec in (f"{file}:other", f"{tmp_path / 'none.py'}:reward", str(file)):
        with pytest.raises(ValueError, match="reward"):
            make_reward_function(custom=spec)


def reward_file(folder, text):
    path = folder / "my_reward.py"
    path.write_text(text)
    return path
