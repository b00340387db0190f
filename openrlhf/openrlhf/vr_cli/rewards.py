"""Reward shapes: named functions of the improvement that a plan brings, and how to plug in one's own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from openrlhf.errors import UserError
from openrlhf.utils.load_function import call_function, load_function
from openrlhf.vr_cli import perplexity
from openrlhf.vr_cli.perplexity import Likelihood


@dataclass(frozen=True, kw_only=True)
class RewardInputs:
    """All that a reward function may look at, for one response."""

    datapoint: dict[str, Any]
    sample_index: int = 0
    """Which of the responses that are scored together this is; from 0."""
    response: str
    """The policy's whole response, reasoning included."""
    plan: str
    """What of it the reference model was shown."""
    num_plan_tokens: int
    """Of the reference model's tokenizer."""
    baseline: Likelihood
    """Of the gold text without a plan."""
    planned: Likelihood
    """Of the gold text after the plan."""

    @property
    def improvement_pct(self) -> float:
        """Percent by which the plan lowers the perplexity."""
        return perplexity.improvement_pct(self.baseline, self.planned)

    @property
    def where(self) -> str:
        """The sample, for messages."""
        return f"datapoint {self.datapoint.get('datapoint_id')!r}, sample {self.sample_index}"


@dataclass(frozen=True, kw_only=True)
class Rewards:
    """The reward of each sample of a group, and numbers worth logging beside it."""

    rewards: list[float]
    """(G,)."""
    metrics: dict[str, list[float]] = field(default_factory=dict)
    """name -> (G,); logged as means."""


RewardFunction = Callable[[RewardInputs], float]


@dataclass(frozen=True, kw_only=True)
class Tier:
    """`reward` for an improvement of at least `threshold_pct`, up to the next tier's threshold."""

    threshold_pct: float
    reward: float


DEFAULT_TIERS = (
    Tier(threshold_pct=0.05, reward=0.5),
    Tier(threshold_pct=1.0, reward=0.9),
    Tier(threshold_pct=2.0, reward=1.0),
)
"""As in the paper's code; below the first threshold the reward is 0."""


def parse_tiers(text: str) -> tuple[Tier, ...]:
    """Reads tiers such as `0.05:0.5,1:0.9,2:1.0` (improvement in percent : reward), thresholds ascending.

    Raises:
        UserError: not of that form, not finite, or thresholds out of order.
    """
    try:
        numbers = [tuple(float(number) for number in part.split(":")) for part in text.split(",")]
        tiers = tuple(Tier(threshold_pct=threshold, reward=reward) for threshold, reward in numbers)
    except ValueError:
        raise UserError(
            f"reward tiers {text!r}: expected threshold:reward pairs such as 0.05:0.5,1:0.9,2:1.0"
        ) from None
    thresholds = [tier.threshold_pct for tier in tiers]
    if not all(math.isfinite(value) for pair in numbers for value in pair):
        raise UserError(f"reward tiers {text!r}: every number must be finite")
    if any(low >= high for low, high in itertools.pairwise(thresholds)):
        raise UserError(f"reward tiers {text!r}: thresholds must ascend")
    return tiers


def tiered_reward(improvement: float, tiers: Sequence[Tier]) -> float:
    """The reward of the highest tier that the improvement (percent) reaches, 0 below the first."""
    reached = [tier.reward for tier in tiers if improvement >= tier.threshold_pct]
    return reached[-1] if reached else 0.0


SHAPES: dict[str, RewardFunction] = {
    "tiers": lambda inputs: tiered_reward(inputs.improvement_pct, DEFAULT_TIERS),
    "improvement": lambda inputs: inputs.improvement_pct,
    "positive": lambda inputs: max(0.0, inputs.improvement_pct),
    "negative": lambda inputs: min(0.0, inputs.improvement_pct),
    "binary": lambda inputs: 0.0 if inputs.improvement_pct < 0 else 1.0,
    "nll_delta": lambda inputs: inputs.baseline.mean_nll - inputs.planned.mean_nll,
}
"""What `--reward_shape` names: `nll_delta` in nats per gold token, the others from the improvement in percent."""


PERCENT_SHAPES = frozenset({"improvement", "positive", "negative"})


def advantage_eps(shape: str | None) -> float:
    """What `group_norm` adds to the standard deviation by default, in the unit of a shape's rewards (None: one's own).

    Scores have a noise of up to 4e-4 nats, 0.04 %, in TF32 (docs/experiments.md, section 8); plans that differ do so by
    some 5e-3 nats. So noise stays well below an advantage of 1, and differences lose some 15 % of their size.
    """
    return 0.1 if shape in PERCENT_SHAPES else 1e-3


def make_reward_function(shape: str = "tiers", tiers: str | None = None, custom: str | None = None) -> RewardFunction:
    """The reward function that the flags ask for; it raises rather than return NaN or infinity.

    Args:
        shape: a name in `SHAPES`.
        tiers: for `tiers`, thresholds and rewards of one's own, as `parse_tiers` reads them.
        custom: `file.py:name` of a function of `RewardInputs`, in place of a shape.

    Raises:
        UserError: an unknown shape, bad tiers, tiers for something else, or a custom function that cannot be used.
    """
    if shape not in SHAPES:
        raise UserError(f"unknown reward shape {shape!r}; choose from {', '.join(SHAPES)}")
    if custom is not None and (tiers is not None or shape != "tiers"):
        raise UserError(f"the reward function {custom!r} replaces the shape: give no shape or tiers beside it")
    if tiers is not None and shape != "tiers":
        raise UserError(f"reward tiers belong to the shape 'tiers', not to {shape!r}")
    if custom is not None:
        return _checked(_own_function(custom), custom)
    if tiers is not None:
        own_tiers = parse_tiers(tiers)
        return _checked(lambda inputs: tiered_reward(inputs.improvement_pct, own_tiers), shape)
    return _checked(SHAPES[shape], shape)


def _own_function(spec: str) -> RewardFunction:
    function = load_function(spec, num_arguments=1)
    return lambda inputs: call_function(function, inputs, spec=spec, source=_source(spec), where=inputs.where)


def _source(name: str) -> str:
    return f"the reward function {name!r}"


def with_min_plan_tokens(function: RewardFunction, min_tokens: int, penalty: float) -> RewardFunction:
    """The reward of `function`, less `penalty` for every token that a plan has fewer than `min_tokens`.

    So silence is worth less than any plan that is not far worse, and of two plans that are too short the longer one is
    worth more: where all of a group are, there still is a direction.
    """
    return lambda inputs: function(inputs) - penalty * max(0, min_tokens - inputs.num_plan_tokens)


def short_plan_penalty(shape: str | None) -> float:
    """What a missing token costs by default, in the unit of a shape's rewards (None: one's own).

    3 % of perplexity are 0.03 nats: a plan that is 10 tokens short loses as much as very bad plans cost.
    """
    return 3.0 if shape in PERCENT_SHAPES else 0.03


def _checked(function: RewardFunction, name: str) -> RewardFunction:
    def reward_function(inputs: RewardInputs) -> float:
        if not math.isfinite(inputs.improvement_pct):
            raise FloatingPointError(
                f"the improvement is {inputs.improvement_pct} for {inputs.where}: perplexity "
                f"{inputs.baseline.perplexity} without a plan, {inputs.planned.perplexity} with it; check the "
                "reference model's weights, or score in float32"
            )
        return finite_number(function(inputs), source=_source(name), where=inputs.where)

    return reward_function


def finite_number(value: Any, *, source: str, where: str) -> float:
    """A reward as a float: a number, or an array or tensor of one.

    Raises:
        UserError: saying that `source` returned something else, or NaN or infinity, for the sample `where`.
    """
    number = value.item() if math.prod(getattr(value, "shape", (0,))) == 1 else value
    if isinstance(number, bool) or not isinstance(number, Real) or not math.isfinite(number):
        kind = "" if isinstance(number, Real) else f" ({type(value).__name__})"
        shown = " ".join(repr(value).split())
        raise UserError(f"{source} returned {shown:.60}{kind} for {where}; a reward is a finite number")
    return float(number)
