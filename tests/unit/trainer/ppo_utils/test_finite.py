"""What is not finite in a group is named with its prompt and samples."""

import math
from collections.abc import Sequence

import pytest
import torch

from openrlhf.trainer.ppo_utils import finite
from openrlhf.trainer.ppo_utils.experience_maker import check_rollout
from openrlhf.trainer.ppo_utils.finite import NonFiniteError, non_finite_samples, refuse_non_finite
from openrlhf.trainer.ppo_utils.rollout import ScoredSamples
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
