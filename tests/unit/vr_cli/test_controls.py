"""What the policy's plans are compared with, by hand."""

from __future__ import annotations

from typing import Any

from openrlhf.vr_cli.controls import control_plans, parse_controls


def chapter(story: str | None, synopsis: str | None) -> dict[str, Any]:
    datapoint = {"story_text": "", "next_chapter": "g", "next_chapter_header": "", "next_chapter_synopsis": synopsis}
    return datapoint if story is None else {**datapoint, "story_id": story}


def question(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "g"}]}


def test_the_other_plan_is_of_the_next_datapoint_of_another_story():
    split = [chapter("a", " A1\n"), chapter("a", "A2"), chapter("b", "B1"), chapter("b", "B2")]
    assert control_plans(split) == [
        {"empty": "", "synopsis": "A1", "other": "B1"},
        {"empty": "", "synopsis": "A2", "other": "B1"},
        {"empty": "", "synopsis": "B1", "other": "A1"},
        {"empty": "", "synopsis": "B2", "other": "A1"},
    ]


def test_controls_are_chosen():
    split = [chapter("a", "A1"), chapter("b", "B1")]
    assert control_plans(split, parse_controls("other,empty")) == [
        {"empty": "", "other": "B1"},
        {"empty": "", "other": "A1"},
    ]
    assert control_plans(split, parse_controls("none")) == [{}, {}]


def test_rows_of_messages_have_their_last_user_turn():
    assert control_plans([question("Why?"), question("How?")]) == [
        {"empty": "", "synopsis": "Why?", "other": "How?"},
        {"empty": "", "synopsis": "How?", "other": "Why?"},
    ]


def test_what_there_is_no_text_for_is_left_out():
    split = [chapter("a", "A1"), chapter("a", None), chapter(None, " "), chapter("b", None)]
    assert control_plans(split) == [
        {"empty": "", "synopsis": "A1"},  # no other story has a synopsis
        {"empty": ""},  # its own story's synopsis is no other's
        {"empty": "", "other": "A1"},
        {"empty": "", "other": "A1"},
    ]
    assert control_plans([]) == []
