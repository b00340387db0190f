"""Every prompt of the writing steps.

What is read comes first and the task last: requests about the same text share their beginning, which the server's
prefix cache then computes once.
"""

from __future__ import annotations

from collections.abc import Sequence

from setup_data.writing.client import Prompt

SYSTEM_TEXT = (
    "You are a careful reader who prepares working notes on a story for its editor. You state only what the given text "
    "says, in plain sentences in the present tense, with characters by name. You write no introduction, no comment on "
    "the style and no remark about your task."
)

SYNOPSIS_TOKENS = 400
STORY_SO_FAR_TOKENS = 800
PLAN_TOKENS = 800
CHARACTERS_TOKENS = 300
STATEMENTS_TOKENS = 700
SUPPORT_TOKENS = 120
SHEET_TOKENS = 250
INSTRUCTION_TOKENS = 700
"""More than any prompt below has besides the text it is about and its answer."""


def _prompt(step: str, about: str, title: str, text: str, task: str, max_tokens: int) -> Prompt:
    user = f"### {title} ###\n{text}\n\n### Task ###\n{task}"
    messages = ({"role": "system", "content": SYSTEM_TEXT}, {"role": "user", "content": user})
    return Prompt(step=step, about=about, messages=messages, max_tokens=max_tokens)


def synopsis(about: str, chapter: str) -> Prompt:
    """A whole chapter's synopsis."""
    task = (
        "Write a synopsis of this chapter: what happens, in order, who does it and why, what is revealed, and how the "
        "chapter ends. At most 200 words, in one paragraph."
    )
    return _prompt("synopses", about, "Chapter", chapter, task, SYNOPSIS_TOKENS)


def part_synopsis(about: str, part: str) -> Prompt:
    """The synopsis of one part of a chapter that is too long to be read at once."""
    task = (
        "This is one part of a longer chapter. Write down what happens in it, in order, who does it and why, and what "
        "is revealed. At most 200 words, in one paragraph."
    )
    return _prompt("synopses", about, "Part of a chapter", part, task, SYNOPSIS_TOKENS)


def merged_synopsis(about: str, notes: str) -> Prompt:
    """A chapter's synopsis from those of its parts."""
    task = (
        "These notes cover one chapter, part by part, in order. Turn them into one synopsis of the chapter: what "
        "happens, who does it and why, what is revealed, and how the chapter ends. At most 200 words, in one paragraph."
    )
    return _prompt("synopses", about, "Notes on a chapter", notes, task, SYNOPSIS_TOKENS)


def story_so_far(about: str, synopses: str) -> Prompt:
    """The story up to a chapter from the synopses of all chapters before it."""
    task = (
        "Summarise the story so far from these synopses: the events that still matter, what each character now knows "
        "and wants, and every question that is still open. At most 400 words. Do not guess what comes next."
    )
    return _prompt("story_so_far", about, "Synopses of the chapters so far", synopses, task, STORY_SO_FAR_TOKENS)


def part_of_story(about: str, synopses: str) -> Prompt:
    """The summary of one stretch of a story whose synopses are too long to be read at once."""
    task = (
        "Summarise this stretch of the story from its synopses: the events that matter for the rest, what changes for "
        "each character, and every question that stays open. At most 300 words."
    )
    return _prompt("story_so_far", about, "Synopses of consecutive chapters", synopses, task, STORY_SO_FAR_TOKENS)


def merged_story_so_far(about: str, summaries: str) -> Prompt:
    """The story so far from the summaries of its stretches."""
    task = (
        "These summaries cover the story so far, stretch by stretch, in order. Turn them into one: the events that "
        "still matter, what each character now knows and wants, and every question that is still open. At most 400 "
        "words. Do not guess what comes next."
    )
    return _prompt("story_so_far", about, "Summaries of the story so far", summaries, task, STORY_SO_FAR_TOKENS)


def plan(about: str, synopses: str) -> Prompt:
    """The high-level plan of the whole story."""
    task = (
        "Write the plan of the whole story that its author could have worked from: the setting and the situation at "
        "the start, what the main characters want, the central conflict, the turning points in order, and how it is "
        "resolved. Stay with the large lines and leave out scenes. At most 300 words."
    )
    return _prompt("plan", about, "The story, chapter by chapter", synopses, task, PLAN_TOKENS)


def part_plan(about: str, synopses: str) -> Prompt:
    """The large lines of one stretch of the story."""
    task = (
        "This is one stretch of a longer story. Write down its large lines: what the main characters want in it, the "
        "conflict, the turning points in order, and where it leaves everyone. At most 200 words."
    )
    return _prompt("plan", about, "Consecutive chapters of the story", synopses, task, PLAN_TOKENS)


def characters(about: str, synopses: str, max_characters: int) -> Prompt:
    """The main characters."""
    task = (
        f"Name the main characters of this story, the most important first, {max_characters} at most. Write one line "
        "for each and nothing else: the full name, then, after a bar, the other names the text uses for them, like "
        "this:\nAnna Karlsson | Anna, Mrs Karlsson"
    )
    return _prompt("characters", about, "Notes on the story", synopses, task, CHARACTERS_TOKENS)


def statements(about: str, passage: str, names: Sequence[str]) -> Prompt:
    """What a passage tells about some characters."""
    task = (
        f"For each of these characters who appears in the passage, write down what it tells the reader about them: who "
        f"they are, what they are like, want, know, feel or do, and how they stand to others. The characters: "
        f"{'; '.join(names)}.\nWrite one line for each statement, at most four a character, like this:\n"
        "Name: statement\nIf the passage tells nothing about any of them, write NONE."
    )
    return _prompt("statements", about, "Passage", passage, task, STATEMENTS_TOKENS)


def supported(about: str, passage: str, candidates: Sequence[str]) -> Prompt:
    """Which statements the passage bears out."""
    numbered = "\n".join(f"{number}. {statement}" for number, statement in enumerate(candidates, start=1))
    task = (
        f"Check each of these statements against the passage:\n{numbered}\n\nA statement is supported if the passage "
        "says it or leaves no doubt of it. Answer with the numbers of the supported statements alone, separated by "
        "commas, or with NONE."
    )
    return _prompt("statements", about, "Passage", passage, task, SUPPORT_TOKENS)


def sheet(about: str, name: str, known: str) -> Prompt:
    """One character's sheet from all that is known of them."""
    task = (
        f"Write the character sheet of {name} from these statements alone: who they are, how they stand to the others, "
        "what they want, and how they are doing by the latest of them. Where statements differ, the later one holds. "
        "At most 100 words, in one paragraph."
    )
    return _prompt("sheets", about, f"What is known of {name}, earliest first", known, task, SHEET_TOKENS)
