"""Dataset rows: what is read, what is refused and how it is said, and what identifies a row."""

from __future__ import annotations

import json

import pytest

from openrlhf.vr_cli.datapoints import baseline_key, datapoint_id, extract_synopsis, gold_text
from openrlhf.vr_cli.dataset import read_rows

CHAPTER = {"story_text": "Once.", "next_chapter": "Then.\n", "next_chapter_header": "Chapter 2"}
MESSAGES = {"messages": [{"role": "user", "content": " Why? "}, {"role": "assistant", "content": "Because. "}]}


def write_rows(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_rows_of_both_kinds_are_read_with_their_place(tmp_path):
    path = write_rows(tmp_path / "d.jsonl", CHAPTER, "", MESSAGES)
    rows = read_rows(path)
    assert [row.datapoint for row in rows] == [CHAPTER, MESSAGES]
    assert [row.where for row in rows] == [f"{path}:1", f"{path}:3"]
    assert [gold_text(row.datapoint) for row in rows] == ["Then.", "Because. "]


def without(field):
    return {name: value for name, value in CHAPTER.items() if name != field}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ('{"story_text": "Once.', "not valid JSON"),
        (["a"], "JSON object, got a list"),
        (without("story_text"), "'story_text' is missing"),
        (without("next_chapter"), "'next_chapter' is missing"),
        (without("next_chapter_header"), "'next_chapter_header' is missing"),
        ({**CHAPTER, "story_text": None}, "'story_text' must be a string, got null"),
        ({**CHAPTER, "next_chapter": ["x"]}, "'next_chapter' must be a string, got a list"),
        ({**CHAPTER, "next_chapter": " \n"}, "'next_chapter' is blank"),
        ({**CHAPTER, "chapter_index": "3"}, "'chapter_index' must be an integer, got a string"),
        ({**CHAPTER, "chapter_index": True}, "'chapter_index' must be an integer, got a boolean"),
        ({**CHAPTER, "chapter_index": -1}, "'chapter_index' is -1"),
        ({**CHAPTER, "next_chapter_synopsis": 7}, "'next_chapter_synopsis' must be a string, got a number"),
        ({**CHAPTER, "character_sheets": "Ann"}, "'character_sheets' must be an object"),
        ({**CHAPTER, "character_sheets": {"Ann": ["cook"]}}, "sheet of 'Ann' must be a string"),
        ({"messages": "hello"}, "'messages' must be a list"),
        ({"messages": MESSAGES["messages"][1:]}, "'messages' must be a list of at least"),
        ({"messages": [{"role": "user"}, MESSAGES["messages"][1]]}, r"'messages\[0\]' must be an object"),
        ({"messages": MESSAGES["messages"][:1] * 2}, "must end with a user turn and then the assistant's"),
        ({"messages": [{"role": "user", "content": ""}, MESSAGES["messages"][1]]}, "last user turn is blank"),
        ({"messages": [MESSAGES["messages"][0], {"role": "assistant", "content": ""}]}, "gold completion .* is blank"),
    ],
)
def test_bad_rows_are_refused_with_file_line_and_field(tmp_path, row, complaint):
    path = write_rows(tmp_path / "d.jsonl", CHAPTER, row)
    with pytest.raises(ValueError, match=complaint) as error:
        read_rows(path)
    assert str(error.value).startswith(f"{path}:2: ")


def test_optional_fields_may_be_null(tmp_path):
    nulls = dict.fromkeys(["chapter_index", "character_sheets", "next_chapter_synopsis", "story_id", "last_n_chapters"])
    assert len(read_rows(write_rows(tmp_path / "d.jsonl", {**CHAPTER, **nulls}))) == 1


def test_bytes_that_are_not_utf8_are_refused(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'{"story_text": "caf\xe9"}\n')
    with pytest.raises(ValueError, match=r"d\.jsonl:1: not valid JSON"):
        read_rows(path)


def test_ids_come_from_the_story_or_from_the_content():
    assert datapoint_id({**CHAPTER, "story_id": "emma", "chapter_index": 0}) == "emma/0"
    assert datapoint_id({**CHAPTER, "story_id": 7, "chapter_index": 3}) == "7/3"
    by_content = datapoint_id(CHAPTER)
    assert by_content.startswith("row-")
    assert len(by_content) == len("row-") + 12
    assert by_content == datapoint_id(dict(reversed(CHAPTER.items())))  # the order of fields does not count
    assert by_content != datapoint_id({**CHAPTER, "story_text": "Twice."})
    assert datapoint_id({**CHAPTER, "story_id": "emma"}).startswith("row-")


def test_keys_are_the_synopsis_or_the_last_user_message():
    assert baseline_key({**CHAPTER, "next_chapter_synopsis": " They meet.\n"}) == "They meet."
    assert baseline_key(MESSAGES) == "Why?"
    assert baseline_key(CHAPTER) == datapoint_id(CHAPTER)  # it has neither
    assert baseline_key({**CHAPTER, "next_chapter_synopsis": " ", "story_id": "a", "chapter_index": 1}) == "a/1"


def test_synopsis_is_found_in_a_prompt():
    prompt = "Intro\n\n### Next Chapter Synopsis: ###\nThey meet.\n\nThey part.\n\n### Next Chapter Header: ###\nTwo"
    assert extract_synopsis(prompt) == "They meet.\n\nThey part."
    assert extract_synopsis("### Next Chapter Synopsis: ###\nThey meet.\n") == "They meet."
    assert extract_synopsis("### Another Title: ###\nThey meet.") is None
    quoted = "### Next Chapter Synopsis: ### is a title.\n"
    assert extract_synopsis(quoted + prompt) == "They meet.\n\nThey part."
