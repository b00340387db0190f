"""The dataset on disk: which rows cannot stand beside each other, and which become prompts."""

from __future__ import annotations

import json

import pytest

from openrlhf.errors import UserError
from openrlhf.vr_cli.baseline_map import PROVENANCE_KEY
from openrlhf.vr_cli.dataset import Filters, check_unique_ids, index_by_key, read_rows

CHAPTER = {"story_text": "Once.", "next_chapter": "Then.\n", "next_chapter_header": "Chapter 2"}
MESSAGES = {"messages": [{"role": "user", "content": " Why? "}, {"role": "assistant", "content": "Because. "}]}


def write_rows(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def chapter(index: int, *, num_words: int = 200, **fields) -> dict:
    return {**CHAPTER, "story_id": "emma", "chapter_index": index, "next_chapter": "word " * num_words, **fields}


def test_one_id_twice_names_both_rows(tmp_path):
    rows = [
        row
        for name in ("a.jsonl", "b.jsonl")
        for row in read_rows(write_rows(tmp_path / name, {**CHAPTER, "story_id": "emma", "chapter_index": 1}))
    ]
    check_unique_ids(rows[:1])
    with pytest.raises(ValueError, match=r"b\.jsonl:1 and .*a\.jsonl:1 .*'emma/1'"):
        check_unique_ids(rows)


def test_one_synopsis_twice_names_both_rows(tmp_path):
    same = [{**CHAPTER, "story_text": text, "next_chapter_synopsis": "They meet."} for text in ("A", "B")]
    rows = read_rows(write_rows(tmp_path / "d.jsonl", same[0], MESSAGES, same[1]))
    assert list(index_by_key(rows[:2])) == ["They meet.", "Why?"]
    with pytest.raises(UserError, match=r"d\.jsonl:1 and .*d\.jsonl:3 .*They meet\."):
        index_by_key(rows)


def conversation(ask: str, answer: str) -> dict:
    return {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]}


def test_conversations_that_end_in_the_same_user_turn_stand_under_their_ids(tmp_path):
    rows = read_rows(
        write_rows(
            tmp_path / "d.jsonl",
            conversation("Go on.", "And then."),
            conversation("Why?", "Because."),
            conversation("Go on. ", "Nothing more."),
            conversation("They meet.", "Do they?"),
            {**CHAPTER, "next_chapter_synopsis": "They meet."},
        )
    )
    ids = [row.datapoint_id for row in rows]
    assert index_by_key(rows) == dict(zip([ids[0], "Why?", ids[2], ids[3], "They meet."], rows, strict=True))


def test_the_maps_own_key_is_no_rows_key(tmp_path):
    rows = read_rows(
        write_rows(
            tmp_path / "d.jsonl",
            conversation(PROVENANCE_KEY, "x"),
            {**CHAPTER, "next_chapter_synopsis": PROVENANCE_KEY},
        )
    )
    assert list(index_by_key(rows[:1])) == [rows[0].datapoint_id]
    with pytest.raises(UserError, match=r"d\.jsonl:2: the synopsis '__provenance__'"):
        index_by_key(rows[1:])


@pytest.mark.parametrize(
    ("datapoint", "reason"),
    [
        (chapter(2, num_words=199), "chapter under 200 words"),
        (chapter(2, num_words=200), None),
        (chapter(2, num_words=5000), None),
        (chapter(2, num_words=5001), "chapter over 5,000 words"),
        (chapter(1), "chapter index under 2"),
        (chapter(2, chapter_index=None), None),  # unknown, so not too low
        (MESSAGES, None),  # one word of gold text is a whole punchline
    ],
)
def test_filters_are_the_papers(datapoint, reason):
    assert Filters().reason_to_drop(datapoint, [{"role": "user", "content": "a prompt"}]) == reason


def test_prompts_stay_under_the_word_limit():
    for datapoint in (chapter(2), MESSAGES):
        for num_words, reason in ((9_999, None), (10_000, "prompt of 10,000 words or more")):
            prompt = [{"role": "system", "content": "word"}, {"role": "user", "content": "word " * (num_words - 1)}]
            assert Filters().reason_to_drop(datapoint, prompt) == reason
