"""What is not finite in a group is named with its prompt and samples."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from openrlhf.errors import UserError
from openrlhf.trainer.ppo_utils import finite
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker, check_counts, check_rollout
from openrlhf.trainer.ppo_utils.finite import NonFiniteError, non_finite_samples, refuse_non_finite
from openrlhf.trainer.ppo_utils.rollout import PendingGroup, ScoredSamples
from openrlhf.trainer.ppo_utils.samples import Completion, Prompt, Rewards, Samples

COMPLETIONS = [Completion(token_ids=[1], logprobs=[-1.0], finish_reason="stop")] * 3


def group(datapoint_id: str | None) -> Samples:
    prompt = Prompt(index=4, text="", token_ids=[1], datapoint_id=datapoint_id)
    return Samples(prompt=prompt, completions=COMPLETIONS, responses=[""] * 3)


def test_finite_numbers_are_no_problem():
    values: dict[str, Sequence[torch.Tensor | Sequence[float]]] = {
        "reward": [[0.0], [1.0], [-1e30]],
        "log-probs": [torch.tensor([-1.0, -80.0])] * 3,
    }
    assert list(non_finite_samples(group("a"), values)) == []


def test_every_name_and_sample_is_said():
    tensors = [torch.zeros(2), torch.tensor([0.0, math.nan]), torch.tensor([-math.inf])]
    problems = list(non_finite_samples(group("a"), {"reward": [[0.0], [0.0], [math.inf]], "log-probs": tensors}))
    assert problems == [
        "reward not finite for prompt 4 (datapoint 'a'), sample 2",
        "log-probs not finite for prompt 4 (datapoint 'a'), sample 1, 2",
    ]


def test_a_prompt_without_datapoint_has_its_number():
    (problem,) = non_finite_samples(group(None), {"reward": [[0.0], [math.nan], [0.0]]})
    assert problem == "reward not finite for prompt 4, sample 1"


def scored(*rewards: float) -> ScoredSamples:
    return ScoredSamples(samples=group("a"), rewards=Rewards(rewards=list(rewards)))


def test_a_rollout_is_refused_for_any_of_its_numbers(monkeypatch):
    monkeypatch.setattr(finite, "all_gather_object", lambda value: [value])
    sound = [torch.zeros(1)] * 3
    bad = [torch.zeros(1), torch.tensor([math.nan]), torch.zeros(1)]
    check_rollout([scored(0.0, 1.0, 2.0)], [sound], [None], where="step 3")
    for rewards, old, ref, name in (
        ((0.0, math.nan, 0.0), sound, None, "reward"),
        ((0.0, 1.0, 2.0), bad, sound, "log-probs of the policy"),
        ((0.0, 1.0, 2.0), sound, bad, "log-probs of the reference model"),
    ):
        with pytest.raises(
            NonFiniteError, match=rf"^step 3: {name} not finite for prompt 4 .datapoint 'a'., sample 1;"
        ):
            check_rollout([scored(*rewards)], [old], [ref], where="step 3")


def test_a_problem_of_another_rank_is_raised_here_too(monkeypatch):
    monkeypatch.setattr(
        finite, "all_gather_object", lambda value: [value, ["reward not finite for prompt 1, sample 0"]]
    )
    with pytest.raises(NonFiniteError, match="evaluation after step 2: reward not finite for prompt 1"):
        refuse_non_finite([], where="evaluation after step 2")


@pytest.mark.parametrize(
    ("rewards", "metrics", "what"),
    [([0.0] * 2, {}, "2 rewards"), ([], {}, "0 rewards"), ([0.0] * 3, {"novelty": [1.0] * 4}, "4 novelty")],
)
def test_a_task_that_gives_another_number_of_rewards_is_named(rewards, metrics, what):
    """`zip` would have trained on the first samples alone, or failed far from the cause."""
    given = ScoredSamples(samples=group("a"), rewards=Rewards(rewards=rewards, metrics=metrics))
    with pytest.raises(UserError) as error:
        check_counts(given, source="the reward of Mine")
    expected = f"the reward of Mine gave {what} for the 3 samples of prompt 4 (datapoint 'a'); give one each"
    assert str(error.value) == expected


def waiting(wait: Callable[[], Rewards]) -> PendingGroup:
    return PendingGroup(samples=group("a"), wait_rewards=wait, wait_ref_logprobs=None)


def test_what_a_task_raises_says_for_which_prompt():
    maker: Any = object.__new__(RemoteExperienceMaker)
    with pytest.raises(ZeroDivisionError) as error:
        maker._scored([waiting(lambda: Rewards(rewards=[1 / 0]))])
    assert error.value.__notes__ == ["in the reward of RemoteExperienceMaker, for prompt 4 (datapoint 'a')"]
    with pytest.raises(UserError, match="the reward of RemoteExperienceMaker gave 1 rewards"):
        maker._scored([waiting(lambda: Rewards(rewards=[0.0]))])
