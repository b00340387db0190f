"""What is not finite in a group is named with its prompt and samples."""

import math

import torch

from openrlhf.trainer.ppo_utils.finite import non_finite_samples
from openrlhf.trainer.ppo_utils.samples import Completion, Prompt, Samples

COMPLETIONS = [Completion(token_ids=[1], logprobs=[-1.0], finish_reason="stop")] * 3


def group(datapoint_id: str | None) -> Samples:
    prompt = Prompt(index=4, text="", token_ids=[1], datapoint_id=datapoint_id)
    return Samples(prompt=prompt, completions=COMPLETIONS, responses=[""] * 3)


def test_finite_numbers_are_no_problem():
    values = {"reward": [[0.0], [1.0], [-1e30]], "log-probs": [torch.tensor([-1.0, -80.0])] * 3}
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
