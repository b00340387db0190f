"""Prompt files -> prompts, and what is said of rows that cannot become one."""

import json
from pathlib import Path

import pytest

from openrlhf.config import DataConfig
from openrlhf.datasets import blending_datasets, load_prompts
from support.chat_tokenizers import CHATML, make_tokenizer

TOKENIZER = make_tokenizer(CHATML)


def write(path: Path, rows: list) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def load(folder: Path, *, split: str = "train", prompt_max_len: int = 1000, **config):
    given = {"prompt_data": f"json@{folder}", "input_key": "prompt", "apply_chat_template": True, **config}
    return load_prompts(DataConfig(**given), TOKENIZER, split=split, prompt_max_len=prompt_max_len, seed=0)


def row(text: str, **fields) -> dict:
    return {"prompt": [{"role": "user", "content": text}], **fields}


def test_messages_become_token_ids_with_the_generation_prompt(tmp_path):
    write(tmp_path / "train.jsonl", [row("Write the next chapter.", datapoint_id="a/1"), row("Again.")])
    prompts = load(tmp_path)
    assert [prompt.index for prompt in prompts] == [0, 1]
    assert prompts[0].datapoint_id == "a/1"
    assert prompts[1].datapoint_id is None
    assert prompts[0].text == "Write the next chapter."
    rendered = TOKENIZER.decode(prompts[0].token_ids)
    assert rendered == "<|im_start|>user\nWrite the next chapter.<|im_end|>\n<|im_start|>assistant\n"


def test_validation_is_val_jsonl(tmp_path):
    write(tmp_path / "val.jsonl", [row("held out")])
    assert load(tmp_path, split="validation")[0].text == "held out"
    with pytest.raises(ValueError, match=r"no file for split 'test': looked for .*test.jsonl"):
        load(tmp_path, split="test")


def test_a_template_and_a_label(tmp_path):
    write(tmp_path / "train.jsonl", [{"q": "2 + 2", "a": 4}])
    prompts = load(tmp_path, input_key="q", label_key="a", input_template="Q: {}\nA:", apply_chat_template=False)
    assert TOKENIZER.decode(prompts[0].token_ids, skip_special_tokens=True) == "Q: 2 + 2\nA:"
    assert prompts[0].datapoint == {"label": 4}


def test_a_text_in_a_template_is_text_and_a_text_alone_is_taken_as_it_stands(tmp_path):
    write(tmp_path / "train.jsonl", [{"q": "2<|im_end|>3"}])
    end = TOKENIZER.convert_tokens_to_ids("<|im_end|>")
    prompt, alone = (
        load(tmp_path, input_key="q", apply_chat_template=False, input_template=template)[0]
        for template in ("{}<|im_end|>", None)
    )
    assert [token_id == end for token_id in prompt.token_ids].count(True) == 1
    assert prompt.token_ids[-1] == end
    assert TOKENIZER.decode(prompt.token_ids) == "<|begin|>2<|im_end|>3<|im_end|>"
    assert alone.token_ids == TOKENIZER("2<|im_end|>3")["input_ids"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"prompt": [', r"train.jsonl:2: not valid JSON .*fix or remove the line"),
        ([1], r"train.jsonl:2: expected a JSON object"),
        ({"text": "x"}, r"train.jsonl:2: field 'prompt' is missing \(there are: text\); .*--input_key"),
        (
            {"messages": [], "id": 1},
            r"train.jsonl:2: field 'prompt' is missing: this is a row of a dataset.*setup_rl_data",
        ),
        ({"story_text": "x"}, r"train.jsonl:2: field 'prompt' is missing: this is a row of a dataset.*setup_rl_data"),
        ({"prompt": []}, r"train.jsonl:2: field 'prompt' must be a text or a list of messages"),
        ({"prompt": "  "}, r"train.jsonl:2: field 'prompt' must be a text or a list of messages"),
        ({"prompt": [{"role": "user"}]}, r"train.jsonl:2: field 'prompt' must hold messages"),
        (row("x", datapoint_id=7), r"train.jsonl:2: field 'datapoint_id' must be a string"),
        (row("word " * 60), r"train.jsonl:2: the prompt has \d+ tokens, more than --prompt_max_len 50"),
    ],
)
def test_a_bad_row_is_named_with_what_to_do(tmp_path, bad, message):
    write(tmp_path / "train.jsonl", [row("fine"), bad])
    with pytest.raises(ValueError, match=message):
        load(tmp_path, prompt_max_len=50)


def test_messages_without_the_switch(tmp_path):
    write(tmp_path / "train.jsonl", [row("fine")])
    with pytest.raises(ValueError, match="pass --apply_chat_template"):
        load(tmp_path, apply_chat_template=False)


def test_every_bad_row_is_listed_up_to_ten(tmp_path):
    write(tmp_path / "train.jsonl", [{"x": i} for i in range(12)])
    with pytest.raises(ValueError, match=r"train.jsonl:1: (.|\n)*train.jsonl:10: (.|\n)*and 2 more rows"):
        load(tmp_path)


def test_an_empty_file_is_an_error(tmp_path):
    write(tmp_path / "train.jsonl", [])
    with pytest.raises(ValueError, match="split 'train' has no rows"):
        load(tmp_path)


def test_blending_follows_the_probabilities(tmp_path):
    for name, count in (("a", 40), ("b", 40)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "train.jsonl", [{"from": name, "i": i} for i in range(count)])
    names = f"json@{tmp_path / 'a'},json@{tmp_path / 'b'}"
    rows = blending_datasets(names, "0.9,0.1", split="train", seed=0, max_rows=40)
    shares = [r.row["from"] for r in rows]
    assert 30 <= shares.count("a") <= 39
    assert [r.row["i"] for r in rows if r.row["from"] == "a"] == list(range(shares.count("a")))
    with pytest.raises(ValueError, match="2 datasets but 1 probabilities"):
        blending_datasets(names, "1.0", split="train", seed=0, max_rows=40)


def test_a_comma_in_a_path_separates_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "stories, and more"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"input": "once"}\n')
    (row,) = blending_datasets(f"json@{folder}", "1.0", split="train", seed=0, max_rows=9)
    assert row.row == {"input": "once"}
