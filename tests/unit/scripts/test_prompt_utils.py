"""The three conversations of a datapoint, and the plan in a response."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable

import pytest

from openrlhf.errors import UserError
from openrlhf.vr_cli.datapoints import extract_synopsis
from prompt_utils import (
    PROMPT_TEMPLATE_VERSION,
    Datapoint,
    Messages,
    PromptSettings,
    add_prompt_arguments,
    build_baseline_messages,
    build_planned_messages,
    build_reasoning_messages,
    extract_plan,
    has_plan_marker,
    plan_prompts,
    prompt_settings_from,
)

CHAPTER = {
    "story_text": "WHOLE TEXT",
    "next_chapter": "\nGOLD CHAPTER\n",
    "next_chapter_header": "HEADER",
    "chapter_index": 3,
    "prior_plot_summary": "SUMMARY",
    "high_level_plot_summary": "OUTLINE",
    "character_sheets": {"Ann": "SHEET A", "Bo": "SHEET B"},
    "next_chapter_synopsis": "SYNOPSIS",
    "last_n_chapters": "LAST CHAPTERS",
}
BARE = {name: CHAPTER[name] for name in ("story_text", "next_chapter", "next_chapter_header")}
DIALOGUE = {
    "messages": [
        {"role": "system", "content": "SYSTEM"},
        {"role": "user", "content": "FIRST"},
        {"role": "assistant", "content": "REPLY"},
        {"role": "user", "content": "LAST"},
        {"role": "assistant", "content": "GOLD"},
    ]
}
# Start of the sha256 over the conversations made from the rows above, by template version.
FINGERPRINTS = {"1": "0817608bcc476cd2", "2": "ed24d1fd44b375b5"}


def roles(messages):
    return [message["role"] for message in messages]


def test_material_stands_in_order_of_how_widely_it_is_shared():
    user = build_planned_messages(CHAPTER, "PLAN")[1]["content"]
    titles = [line for line in user.splitlines() if line.startswith("###")]
    assert titles == [
        "### High-Level Plan: ###",
        "### Story So Far: ###",
        "### Character Sheets: ###",
        "### Previous Chapters: ###",
        "### Next Chapter Synopsis: ###",
        "### Next Chapter Header: ###",
        "### Next Chapter Plan: ###",
        "### Instructions: ###",
    ]
    parts = ["OUTLINE", "SUMMARY", "SHEET A", "SHEET B", "LAST CHAPTERS", "SYNOPSIS", "HEADER", "PLAN"]
    places = [user.rindex(f"\n{part}\n") for part in parts]
    assert places == sorted(places)


def test_conversations_end_in_the_gold_text_and_the_prompt_does_not():
    assert roles(build_reasoning_messages(CHAPTER)) == ["system", "user"]
    for messages in (build_baseline_messages(CHAPTER), build_planned_messages(CHAPTER, "PLAN")):
        assert roles(messages) == ["system", "user", "assistant"]
        assert messages[-1]["content"] == "GOLD CHAPTER"
    assert "GOLD" not in json.dumps(build_reasoning_messages(CHAPTER))


@pytest.mark.parametrize("use_system_role", [True, False])
@pytest.mark.parametrize("datapoint", [CHAPTER, BARE, DIALOGUE])
def test_conversations_share_every_byte_up_to_where_they_must_differ(datapoint, use_system_role):
    settings = PromptSettings(use_system_role=use_system_role)
    plans = ["PLAN ONE", "another PLAN"]
    planned = [build_planned_messages(datapoint, plan, settings) for plan in plans]
    turn = len(planned[0]) - 2  # the last user turn
    assert planned[0][:turn] == planned[1][:turn] == build_baseline_messages(datapoint, settings)[:turn]
    before = [messages[turn]["content"].split(plan)[0] for messages, plan in zip(planned, plans, strict=True)]
    after = [messages[turn]["content"].split(plan)[1] for messages, plan in zip(planned, plans, strict=True)]
    assert before[0] == before[1]
    assert after[0] == after[1]
    material = before[0].rpartition("### ")[0].rpartition("### ")[0].rstrip()  # without the plan's title
    for messages in (build_baseline_messages(datapoint, settings), build_reasoning_messages(datapoint, settings)):
        assert messages[turn]["content"].startswith(material)


@pytest.mark.parametrize("datapoint", [CHAPTER, BARE, DIALOGUE], ids=["chapter", "bare", "dialogue"])
@pytest.mark.parametrize("settings", [None, PromptSettings(use_system_role=False, include_synopsis=False)])
def test_the_plan_is_all_that_baseline_and_planned_conversation_differ_in(datapoint, settings):
    """Frame and closing instructions are the same on both sides, so an empty plan is worth exactly nothing."""
    baseline = build_baseline_messages(datapoint, settings)
    planned = build_planned_messages(datapoint, "PLAN", settings)
    assert json.loads(json.dumps(planned).replace("PLAN", "")) == baseline
    for blank in ("", " ", "\n\n"):
        assert build_planned_messages(datapoint, blank, settings) == baseline


def test_an_empty_plan_keeps_its_section():
    assert "### Next Chapter Plan: ###\n\n\n### Instructions" in build_baseline_messages(CHAPTER)[1]["content"]
    assert "LAST\n\n### Plan: ###\n\n\n### Instructions" in build_baseline_messages(DIALOGUE)[3]["content"]


def test_reasoning_prompt_asks_for_citations_and_a_summary():
    for datapoint in (CHAPTER, DIALOGUE):
        instructions = build_reasoning_messages(datapoint)[-1]["content"].rpartition("### Instructions: ###")[2]
        assert '"In summary:"' in instructions
        assert "step by step" in instructions
        assert "[" in instructions  # how to cite


@pytest.mark.parametrize(
    ("switch", "title", "text"),
    [
        ("include_high_level_plan", "High-Level Plan", "OUTLINE"),
        ("include_story_so_far", "Story So Far", "SUMMARY"),
        ("include_character_sheets", "Character Sheets", "SHEET"),
        ("include_previous_chapters", "Previous Chapters", "LAST CHAPTERS"),
        ("include_synopsis", "Next Chapter Synopsis", "SYNOPSIS"),
    ],
)
def test_a_part_left_out_leaves_no_trace_in_any_conversation(switch, title, text):
    for build in (build_reasoning_messages, build_baseline_messages, lambda d, s: build_planned_messages(d, "PLAN", s)):
        assert text in build(CHAPTER, PromptSettings())[1]["content"]
        without = build(CHAPTER, PromptSettings(**{switch: False}))[1]["content"]
        assert text not in without
        assert f"- {title}:" not in without  # the preamble's list
        assert f"### {title}: ###" not in without


def test_a_bare_row_shows_the_whole_text_and_lists_only_what_is_there():
    user = build_baseline_messages(BARE)[1]["content"]
    assert "### Previous Chapters: ###\nWHOLE TEXT\n" in user
    assert [line.split(":")[0] for line in user.splitlines() if line.startswith("- ")] == [
        "- Previous Chapters",
        "- Next Chapter Header",
    ]


def test_without_system_role_its_text_heads_the_first_user_turn():
    with_role = build_reasoning_messages(CHAPTER)
    folded = build_reasoning_messages(CHAPTER, PromptSettings(use_system_role=False))
    assert roles(folded) == ["user"]
    assert folded[0]["content"] == f"{with_role[0]['content']}\n\n{with_role[1]['content']}"
    dialogue = build_baseline_messages(DIALOGUE, PromptSettings(use_system_role=False))
    assert roles(dialogue) == ["user", "assistant", "user", "assistant"]
    assert [turn["content"] for turn in dialogue] == ["SYSTEM\n\nFIRST", "REPLY", dialogue[2]["content"], "GOLD"]


def test_messages_rows_keep_their_turns():
    baseline = build_baseline_messages(DIALOGUE)
    assert [baseline[i] for i in (0, 1, 2, 4)] == [DIALOGUE["messages"][i] for i in (0, 1, 2, 4)]
    assert baseline[3]["content"].startswith("LAST\n\n### Plan: ###\n")
    planned = build_planned_messages(DIALOGUE, "PLAN")
    assert planned[:3] == DIALOGUE["messages"][:3]
    assert planned[3]["content"].startswith("LAST\n\n### Plan: ###\nPLAN\n\n### Instructions: ###\n")
    assert planned[4] == DIALOGUE["messages"][4]
    reasoning = build_reasoning_messages(DIALOGUE)
    assert reasoning[:3] == DIALOGUE["messages"][:3]
    assert reasoning[3]["content"].startswith("LAST\n\n### Instructions: ###\n")
    assert len(reasoning) == 4


def test_datapoints_are_not_changed():
    before = json.dumps([CHAPTER, DIALOGUE])
    for datapoint in (CHAPTER, DIALOGUE):
        build_planned_messages(datapoint, "PLAN", PromptSettings(use_system_role=False))
    assert json.dumps([CHAPTER, DIALOGUE]) == before


def test_the_synopsis_can_be_read_back_from_every_prompt():
    for build in (build_reasoning_messages, build_baseline_messages, lambda d: build_planned_messages(d, "PLAN")):
        assert extract_synopsis(build(CHAPTER)[1]["content"]) == "SYNOPSIS"
    assert extract_synopsis(build_reasoning_messages(BARE)[1]["content"]) is None


@pytest.mark.parametrize(
    ("response", "plan"),
    [
        ("Thinking.\n\nIn summary: they meet. ", "they meet."),
        ("In summary, they meet.", "they meet."),
        ("Detailed Plan:\n1. They meet.\n2. They part.", "1. They meet.\n2. They part."),
        ("In summary: no. Wait.\nIn summary: they part.", "they part."),
        ("Detailed Plan: a. In summary, b", "b"),
        ("So, in summary: lower case in a line is prose", "So, in summary: lower case in a line is prose"),
        ("in summary, lower case is prose", "in summary, lower case is prose"),
        ("Reasons.\nin summary: they meet.", "they meet."),
        ("The main summary: no marker", "The main summary: no marker"),
        ("Nothing in summary\nfollows", "Nothing in summary\nfollows"),
        ("In summary: A. In summary:", "A."),
        ("In summary: A.\n\n## In summary\n", "A."),
        ("In summary: A.\n**In summary:**", "A."),
        ("**In summary:** a", "a"),
        ("**In summary**: a", "a"),
        ("**In summary**, a", "a"),
        ("**In summary: a b.**", "a b."),
        ("**In summary: a *b* and **c**", "a *b* and **c**"),
        ("__In Summary:__ a", "a"),
        ("*In summary:* a", "a"),
        ("In summary: **a** b", "**a** b"),
        ("In Summary: a", "a"),
        ("IN SUMMARY: a", "a"),
        ("In Summary, a", "a"),
        ("Reasons. In Summary: a", "a"),
        ("In summary : a", "a"),
        ("## In summary\n\na", "a"),
        ("## In summary: a", "a"),
        ("### **In summary**\na", "a"),
        ("**In Summary**\na", "a"),
        ("Why.\n### Detailed Plan: ###\na", "a"),
        ("### Detailed plan ###\na", "a"),
        ("**Detailed Plan:**\n1. a\n2. b", "1. a\n2. b"),
        ("5. In summary: a", "a"),
        ("- **In summary:** a", "a"),
        ("> In summary: a", "a"),
        ("In summary: #1 first", "#1 first"),
        ("Detailed plan, and more", "Detailed plan, and more"),
        ("  They meet.\n", "They meet."),
        ("They meet. In summary:", "They meet. In summary:"),
        (" \n", ""),
    ],
)
def test_plan_follows_the_last_marker(response, plan):
    assert extract_plan(response) == plan


@pytest.mark.parametrize(
    ("response", "announced"),
    [
        ("They meet. In summary: they meet.", True),
        ("They meet.", False),
        ("They meet. In summary:", False),  # nothing follows
        ("So, in summary: prose", False),
        ("", False),
    ],
)
def test_a_marker_counts_if_a_plan_follows_it(response, announced):
    assert has_plan_marker(response) is announced
    assert plan_prompts(PromptSettings().to_dict()).has_plan_marker(response) is announced


def test_plans_are_found_in_time_linear_in_the_response():
    for hostile in ("*" * 100_000, "#" * 100_000, " " * 100_000, "in summary " * 10_000, "- " * 50_000 + "x"):
        assert extract_plan(f"{hostile}\nIn summary: a") == "a"  # seconds would be hours if it were not


def test_every_setting_has_a_switch():
    parser = argparse.ArgumentParser()
    add_prompt_arguments(parser)
    assert prompt_settings_from(parser.parse_args([])) == PromptSettings()
    switches = [
        "--no_system_role",
        "--no_high_level_plan",
        "--no_story_so_far",
        "--no_character_sheets",
        "--no_previous_chapters",
        "--no_synopsis",
    ]
    settings = prompt_settings_from(parser.parse_args(switches))
    assert set(settings.to_dict().values()) == {False}


def test_changed_wording_needs_a_new_version():
    builders: list[Callable[[Datapoint, PromptSettings], Messages]] = [
        build_reasoning_messages,
        build_baseline_messages,
        lambda datapoint, settings: build_planned_messages(datapoint, "PLAN", settings),
    ]
    conversations = [
        build(datapoint, PromptSettings(use_system_role=use_system_role))
        for datapoint in (CHAPTER, BARE, DIALOGUE)
        for use_system_role in (True, False)
        for build in builders
    ]
    fingerprint = hashlib.sha256(json.dumps(conversations).encode()).hexdigest()[:16]
    assert fingerprint == FINGERPRINTS[PROMPT_TEMPLATE_VERSION], (
        "prompts changed: raise PROMPT_TEMPLATE_VERSION (baselines made before cannot be compared) and record this"
    )


def test_the_switches_of_another_version_are_refused():
    switches = PromptSettings().to_dict()
    assert PromptSettings.from_dict(switches) == PromptSettings()
    with pytest.raises(UserError, match=r"unknown: include_weather\).*compute_baseline_perplexity"):
        plan_prompts({**switches, "include_weather": True})
    del switches["include_synopsis"]
    with pytest.raises(UserError, match=r"missing: include_synopsis"):
        plan_prompts(switches)
