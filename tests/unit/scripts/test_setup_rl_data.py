"""`setup_rl_data.py` as its users meet it: files in, files out, one line for what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import prompt_utils
import setup_rl_data
import support.chat_tokenizers as chat
from prompt_utils import PromptSettings, build_reasoning_messages

ROOT = Path(setup_rl_data.__file__).parent


def chapter(index: int, *, num_words: int = 200, **fields) -> dict:
    return {
        "story_id": "emma",
        "chapter_index": index,
        "story_text": "once upon",
        "next_chapter": "word " * num_words,
        "next_chapter_header": f"Chapter {index + 1}",
        **fields,
    }


JOKE = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]}


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chat.make_tokenizer(chat.CHATML).save_pretrained("chatml")
    return tmp_path


def write_dataset(**splits):
    for split, rows in splits.items():
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        Path(f"story_dataset_{split}.jsonl").write_text("\n".join(lines) + "\n")


def read_prompts(split: str) -> list[dict]:
    return [json.loads(line) for line in Path(f"rl_data/{split}.jsonl").read_text().splitlines()]


def run(*flags: str) -> int:
    return setup_rl_data.main(["--tokenizer_name", "chatml", *flags])


def test_prompts_of_both_kinds_are_written_with_their_ids(workdir, capsys):
    write_dataset(train=[chapter(2), JOKE], val=[chapter(3)], test=[chapter(4)])
    assert run() == 0
    rows = read_prompts("train")
    assert rows[0] == {"prompt": build_reasoning_messages(chapter(2)), "datapoint_id": "emma/2"}
    assert rows[1]["prompt"] == build_reasoning_messages(JOKE)
    assert rows[1]["datapoint_id"].startswith("row-")
    assert [row["datapoint_id"] for split in ("val", "test") for row in read_prompts(split)] == ["emma/3", "emma/4"]
    assert "dropped: none" in capsys.readouterr().out


def test_report_counts_what_was_dropped_and_why(workdir, capsys, caplog):
    long_prompt = chapter(5, last_n_chapters="word " * 10_000)
    write_dataset(
        train=[chapter(0), chapter(1), chapter(2), chapter(3, num_words=199), chapter(4, num_words=5001), long_prompt]
    )
    assert run() == 0
    captured = capsys.readouterr()
    assert [row["datapoint_id"] for row in read_prompts("train")] == ["emma/2"]
    assert (
        "dropped: 2 chapter index under 2, 1 chapter under 200 words, 1 chapter over 5,000 words, "
        "1 prompt of 10,000 words or more"
    ) in captured.out
    (line,) = [line for line in captured.out.splitlines() if line.startswith("train ")]
    assert line.split()[1:3] == ["1", "5"]
    # "word" is no token of its own: 200 times w-o-r-d with a space between them, then <|im_end|> and a line break.
    tokenizer = chat.make_tokenizer(chat.CHATML)
    num_gold_tokens = len(tokenizer.encode(("word " * 200).strip(), add_special_tokens=False)) + 2
    assert line.split()[-1] == f"{num_gold_tokens:,}"
    assert "no story_dataset_val.jsonl" in caplog.text


def test_filters_can_be_set_or_switched_off(workdir):
    write_dataset(train=[chapter(0, num_words=10), chapter(1, num_words=30)])
    assert run("--no_filter") == 0
    assert len(read_prompts("train")) == 2
    assert run("--min_chapter_words", "20", "--min_chapter_index", "0") == 0
    assert [row["datapoint_id"] for row in read_prompts("train")] == ["emma/1"]


def test_prompt_switches_reach_the_prompts(workdir):
    write_dataset(train=[chapter(2, next_chapter_synopsis="They meet.")])
    assert run("--no_system_role", "--no_synopsis") == 0
    settings = PromptSettings(use_system_role=False, include_synopsis=False)
    assert read_prompts("train")[0]["prompt"] == build_reasoning_messages(chapter(2), settings)
    assert prompt_utils.SYSTEM_TEXT in read_prompts("train")[0]["prompt"][0]["content"]


def test_names_and_folders_can_be_chosen(workdir):
    (workdir / "in").mkdir()
    Path("in/tales_test.jsonl").write_text(json.dumps(chapter(2)) + "\n")
    assert run("--dataset_dir", "in", "--dataset_name", "tales", "--data_dir", "out/prompts") == 0
    assert [path.name for path in Path("out/prompts").iterdir()] == ["test.jsonl"]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([chapter(2), '{"story_text": '], "story_dataset_train.jsonl:2: not valid JSON"),
        ([chapter(2), {"story_text": "x"}], "story_dataset_train.jsonl:2: field 'next_chapter' is missing"),
        ([chapter(2, next_chapter="")], "story_dataset_train.jsonl:1: field 'next_chapter' is blank"),
        (
            [chapter(2), chapter(2)],
            "story_dataset_train.jsonl:2 and story_dataset_train.jsonl:1 are the same datapoint",
        ),
        (
            [chapter(index, next_chapter_synopsis="They meet.") for index in (2, 3)],
            "story_dataset_train.jsonl:1 and story_dataset_train.jsonl:2 have the same key",
        ),
        ([chapter(0)], "the filters drop every row (1 chapter index under 2)"),
        ([chapter(2, story_text="\ud800")], "story_dataset_train.jsonl:1: not valid text"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(workdir, capsys, rows, complaint):
    write_dataset(train=rows, val=[], test=[])
    assert run() == 2
    error_lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(error_lines) == 1
    assert error_lines[0].startswith(f"error: {complaint}")
    assert not Path("rl_data").exists()


def test_earlier_prompts_survive_a_failed_run(workdir):
    write_dataset(train=[chapter(2)])
    assert run() == 0
    write_dataset(train=[chapter(2), "{"])
    assert run() == 2
    assert len(read_prompts("train")) == 1


def test_what_the_filters_drop_may_share_its_synopsis(workdir):
    write_dataset(train=[chapter(index, next_chapter_synopsis="They meet.") for index in (1, 2)])
    assert run() == 0


def test_a_split_that_is_gone_is_set_aside(workdir, caplog):
    write_dataset(train=[chapter(2)], val=[chapter(3)])
    assert run() == 0
    Path("story_dataset_val.jsonl").unlink()
    assert run() == 0
    assert sorted(path.name for path in Path("rl_data").iterdir()) == ["train.jsonl", "val.jsonl.previous"]
    assert "rl_data/val.jsonl is of an earlier dataset" in caplog.text


def test_no_dataset_at_all_says_what_was_looked_for(workdir, capsys):
    assert run() == 2
    message = capsys.readouterr().err
    assert "story_dataset_train.jsonl, story_dataset_val.jsonl, story_dataset_test.jsonl" in message


def test_missing_tokenizer_is_an_error(workdir, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_dataset(train=[chapter(2)])
    assert setup_rl_data.main(["--tokenizer_name", "./nowhere"]) == 2
    assert "no tokenizer './nowhere'" in capsys.readouterr().err


OWN_CODE = """
from transformers import PreTrainedTokenizerFast

class OddTokenizer(PreTrainedTokenizerFast):
    pass
"""


def test_a_tokenizer_with_code_of_its_own_is_loaded_only_when_trusted(workdir, capsys):
    Path("chatml/tokenization_odd.py").write_text(OWN_CODE)
    config = json.loads(Path("chatml/tokenizer_config.json").read_text())
    config |= {
        "tokenizer_class": "OddTokenizer",
        "auto_map": {"AutoTokenizer": [None, "tokenization_odd.OddTokenizer"]},
    }
    Path("chatml/tokenizer_config.json").write_text(json.dumps(config))
    write_dataset(train=[chapter(2)])
    assert run() == 2
    assert "pass --trust_remote_code" in capsys.readouterr().err
    assert run("--trust_remote_code") == 0
    assert len(read_prompts("train")) == 1


def test_template_without_system_role_is_found_out_at_once(workdir, capsys):
    chat.make_tokenizer(chat.GEMMA).save_pretrained("gemma")
    write_dataset(train=[chapter(2)])
    assert setup_rl_data.main(["--tokenizer_name", "gemma"]) == 2
    assert "story_dataset_train.jsonl:1: " in (message := capsys.readouterr().err)
    assert "--no_system_role" in message
    assert setup_rl_data.main(["--tokenizer_name", "gemma", "--no_system_role"]) == 0


def test_median_and_percentile_are_the_ordinary_ones():
    # 95 % of 20 values are 19: the 19th smallest. The median of 1..20 lies between 10 and 11.
    columns = setup_rl_data._summary(list(range(20, 0, -1))).split()
    assert columns[0] == "1"
    assert columns[1] in ("10", "11")
    assert columns[2:] == ["19", "20"]


def test_dropped_rows_are_added_up_over_splits():
    split = setup_rl_data.SplitPrompts(rows=[], sources=[], dropped=Counter(short=1), prompt_tokens=[], gold_tokens=[])
    assert setup_rl_data.drop_report({"train": split, "val": split}) == "2 short"


@pytest.mark.parametrize("here", [True, False], ids=["from_the_root", "from_elsewhere"])
def test_the_forks_folder_does_not_shadow_the_installed_package(tmp_path, here):
    """`openrlhf/` at the root has no `__init__.py`: a script started beside it must still find the package."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    as_a_root_script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import prompt_utils; from openrlhf import config"
    )
    result = subprocess.run(
        [sys.executable, "-c", f"{as_a_root_script}; print(config.__file__)"],
        cwd=ROOT if here else tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(result.stdout.strip()).is_relative_to(ROOT / "openrlhf" / "openrlhf")
