"""`--remote_rm_url FILE.py`: what `reward_func` gets, and one sentence for whatever it should not return."""

from __future__ import annotations

import pytest

from openrlhf.datasets import Prompt
from openrlhf.errors import UserError
from openrlhf.trainer.ppo_utils.reward_file import RewardFileFunction
from openrlhf.trainer.ppo_utils.samples import Completion, Samples

SAMPLES = Samples(
    prompt=Prompt(index=4, text="Why? ", token_ids=[1], datapoint={"label": "because"}, datapoint_id="row-7"),
    completions=[Completion(token_ids=[2], logprobs=[0.0], finish_reason="stop")] * 2,
    responses=["So.", "Because."],
)


def rewards(folder, body: str) -> list[float]:
    path = folder / "file.py"
    path.write_text(f"import numpy as np, torch\ndef reward_func(queries, prompts, labels):\n    {body}\n")
    return RewardFileFunction(str(path))(SAMPLES).rewards


def test_it_gets_queries_prompts_and_labels(tmp_path):
    check = "assert (queries, prompts, labels) == (['Why? So.', 'Why? Because.'], ['Why? '] * 2, ['because'] * 2)"
    assert rewards(tmp_path, f"{check}; return [0, 1.5]") == [0.0, 1.5]


@pytest.mark.parametrize(
    "value", ["(0, 1.5)", "np.array([0, 1.5])", "torch.tensor([0, 1.5])", "torch.tensor([[0], [1.5]])"]
)
def test_any_kind_of_list_will_do(tmp_path, value):
    assert rewards(tmp_path, f"return {value}") == [0.0, 1.5]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("None", "None (NoneType) for the 2 queries of prompt 4 (datapoint 'row-7')"),
        ("{'rewards': [0, 1]}", "{'rewards': [0, 1]} (dict) for the 2 queries"),
        ("'01'", "'01' (str) for the 2 queries"),
        ("0.5", "0.5 (float) for the 2 queries"),
        ("torch.tensor(1.0)", "(Tensor) for the 2 queries"),
        ("[0.5]", "1 rewards for the 2 queries"),
        ("[]", "0 rewards for the 2 queries"),
        ("torch.zeros(3)", "3 rewards for the 2 queries"),
        ("[0, float('nan')]", "nan for prompt 4 (datapoint 'row-7'), sample 1"),
        ("torch.tensor([float('inf'), 0])", "for prompt 4 (datapoint 'row-7'), sample 0"),
        ("[None, 0]", "None (NoneType) for prompt 4 (datapoint 'row-7'), sample 0"),
        ("[0, '1']", "'1' (str) for prompt 4 (datapoint 'row-7'), sample 1"),
        ("[0, True]", "True for prompt 4 (datapoint 'row-7'), sample 1"),
        ("torch.zeros(2, 2)", "(Tensor) for prompt 4 (datapoint 'row-7'), sample 0"),
    ],
)
def test_anything_else_gets_one_sentence(tmp_path, value, what):
    with pytest.raises(UserError) as error:
        rewards(tmp_path, f"return {value}")
    message = str(error.value)
    assert "file.py: reward_func returned" in message
    assert what in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_what_it_raises_comes_with_function_line_and_prompt(tmp_path, body, what):
    with pytest.raises(UserError) as error:
        rewards(tmp_path, body)
    file = tmp_path / "file.py"
    assert str(error.value) == f"{file}: reward_func raised {what} (at {file}:3) for prompt 4 (datapoint 'row-7')"
    assert error.value.__cause__ is not None  # with its traceback
