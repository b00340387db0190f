"""Every prompt of the project.

Three conversations are made from one datapoint:

* the reasoning prompt: what is known of the story, then the request to reason and to end in a plan (`In summary:`);
* the planned conversation: the same material, the plan, the request to write, the gold chapter;
* the baseline conversation: the planned one with an empty plan. So the two differ in the plan alone, and an empty plan
  is worth nothing: neither its section nor the request makes the gold text more or less likely on one side only.

All of them start with the same bytes (preamble and material), so whatever a group of rollouts shares comes first.
Rows of the `messages` kind keep their own turns; only their last user turn is extended.

Change any wording and PROMPT_TEMPLATE_VERSION with it: a baseline is only comparable with the prompts it was made from.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

from openrlhf.errors import UserError
from openrlhf.vr_cli.datapoints import SYNOPSIS_TITLE, extract_synopsis, gold_text, is_messages_row
from openrlhf.vr_cli.plan_prompts import PlanPrompts

__all__ = [
    "PROMPT_TEMPLATE_VERSION",
    "USE_SYSTEM_ROLE",
    "PromptSettings",
    "add_prompt_arguments",
    "build_baseline_messages",
    "build_planned_messages",
    "build_reasoning_messages",
    "extract_plan",
    "extract_synopsis",
    "has_plan_marker",
    "plan_prompts",
]

PROMPT_TEMPLATE_VERSION = "2"

USE_SYSTEM_ROLE = True
"""False puts the system text at the head of the first user turn, for chat templates without a system role."""

Messages = list[dict[str, str]]
Datapoint = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PromptSettings:
    """Which parts of a datapoint its prompts show. Prompts, baseline and training must agree on them."""

    use_system_role: bool = USE_SYSTEM_ROLE
    include_high_level_plan: bool = True
    include_story_so_far: bool = True
    include_character_sheets: bool = True
    include_previous_chapters: bool = True
    include_synopsis: bool = True

    @classmethod
    def from_dict(cls, switches: Mapping[str, bool]) -> PromptSettings:
        """Raises UserError where these are not exactly the switches of this version."""
        known, given = {field.name for field in fields(cls)}, set(switches)
        if known != given:
            wrong = [f"unknown: {', '.join(sorted(given - known))}"] * bool(given - known)
            wrong += [f"missing: {', '.join(sorted(known - given))}"] * bool(known - given)
            raise UserError(
                f"a baseline map with other prompt switches than this version has ({'; '.join(wrong)}); run "
                "compute_baseline_perplexity.py again"
            )
        return cls(**switches)

    def to_dict(self) -> dict[str, bool]:
        return asdict(self)


SYSTEM_TEXT = (
    "You are a novelist's closest collaborator. You know how long stories are built: how a scene follows from what its "
    "characters want, what the reader has been promised, and what has been kept back."
)

PREAMBLE = "A novel is being written chapter by chapter, and its next chapter is due. This is the material at hand:"

SECTION_NOTES = {
    "High-Level Plan": "the outline of the whole novel",
    "Story So Far": "a summary of everything up to this point",
    "Character Sheets": "who the main characters are by now",
    "Previous Chapters": "the text that the next chapter continues",
    SYNOPSIS_TITLE: "what the next chapter has to bring",
    "Next Chapter Header": "the heading it will stand under",
}
"""Section titles in the order of the prompt, and what the preamble says of each."""

REASONING_INSTRUCTIONS = """\
Prepare the next chapter without writing any of its prose. Work out, step by step, how it should unfold:
1. Where everyone stands when it opens: what each character knows, wants and fears.
2. Which threads of the story it must take up, which it may leave resting, and what must not be contradicted.
3. Which scenes it needs, in which order, what turns in each of them, and whose eyes we see it through.
4. How it should sound: its pace, its balance of dialogue and narration, and the note on which it closes.
Tie every claim about the story to its source, as in [Character Sheets: Name] or [Previous Chapters: "a few quoted \
words"], and keep what you infer apart from what the material says.

Close with one paragraph that starts with "In summary:" and lays out the chapter's plan in full: events in order, the \
characters' aims and feelings, setting, voice and ending. It must be specific, and it must make sense to someone who \
has not read your reasoning."""

WRITING_INSTRUCTIONS = """\
Write the next chapter now, in full, true to all of the above and in the voice of the text so far. \
Give the chapter's text alone, without its heading and without comments."""

MESSAGES_REASONING_INSTRUCTIONS = """\
Do not answer yet. First work out, step by step, what the best possible answer contains: what is asked and what is \
not, which parts of the conversation matter (quote them in [square brackets]), how the answer should be built and in \
which order, and what would make it wrong or weak.

Close with one paragraph that starts with "In summary:" and lays out the plan of the answer in full. It must be \
specific, and it must make sense to someone who has not read your reasoning."""

MESSAGES_ANSWER_INSTRUCTIONS = "Now give the answer, and nothing but the answer."

PLAN_MARKER = re.compile(
    r"(?P<lead>^[ \t>#]*(?:(?:[-*+]|\d{1,3}[.)])[ \t]+)?)?"  # heading, quotation or list marks at the start of a line
    r"(?P<open>[*_]{1,3})?(?<![^\W_])(?P<words>in[ \t]{1,3}summary|detailed[ \t]{1,3}plan)(?P<close>[*_]{0,3})"
    r"[ \t]{0,3}(?P<sign>[:,])?(?(open)(?P<after>[*_]{0,3}))(?P<end>[ \t]*(?:#+[ \t]*)?$)?",
    re.IGNORECASE | re.MULTILINE,
)
"""What may announce a plan; `_announces_plan` says which of its matches do."""


def build_reasoning_messages(datapoint: Datapoint, settings: PromptSettings | None = None) -> Messages:
    """The RL prompt: asks for cited step-by-step reasoning and a final paragraph that starts with `In summary:`."""
    settings = settings or PromptSettings()
    if is_messages_row(datapoint):
        return _extend_last_user_turn(datapoint, settings, [_section("Instructions", MESSAGES_REASONING_INSTRUCTIONS)])
    return _chapter_prompt(datapoint, settings, [_section("Instructions", REASONING_INSTRUCTIONS)])


def build_baseline_messages(datapoint: Datapoint, settings: PromptSettings | None = None) -> Messages:
    """The conversation whose last message, the gold text, is scored without a plan: its section is there, and empty."""
    return build_planned_messages(datapoint, "", settings)


def build_planned_messages(datapoint: Datapoint, plan: str, settings: PromptSettings | None = None) -> Messages:
    """The conversation whose last message, the gold text, is scored after the plan (as `extract_plan` gives it)."""
    settings = settings or PromptSettings()
    if is_messages_row(datapoint):
        parts = [_section("Plan", plan.strip()), _section("Instructions", MESSAGES_ANSWER_INSTRUCTIONS)]
        return [*_extend_last_user_turn(datapoint, settings, parts), _gold_turn(datapoint)]
    parts = [_section("Next Chapter Plan", plan.strip()), _section("Instructions", WRITING_INSTRUCTIONS)]
    return [*_chapter_prompt(datapoint, settings, parts), _gold_turn(datapoint)]


def extract_plan(response: str) -> str:
    """The plan in a response: what follows its last `In summary:`, `In summary,` or `Detailed Plan:`, stripped.

    The marker may be emphasised, a heading or a list item, and at the start of a line it may have any case. One with
    nothing after it does not count. All of the response where there is none. Blank only if the response is blank.
    """
    plan = _announced_plan(response)
    return response.strip() if plan is None else plan


def has_plan_marker(response: str) -> bool:
    """Whether a response announces its plan, as `extract_plan` finds it."""
    return _announced_plan(response) is not None


def _announced_plan(response: str) -> str | None:
    """What follows the last marker that something follows; None without one."""
    markers = [match for match in PLAN_MARKER.finditer(response) if _announces_plan(match)]
    end = len(response)
    for marker in reversed(markers):
        plan = response[marker.end() : end].strip()
        if plan.strip("*_"):
            return _without_open_emphasis(plan, marker)
        end = marker.start()
    return None


def _announces_plan(match: re.Match[str]) -> bool:
    """Lower-case words inside a line are prose, and so are words without colon or comma that are no heading."""
    starts_line, capital = match["lead"] is not None, match["words"][0].isupper()
    if match["sign"] == ":":
        return starts_line or capital
    if match["sign"] == ",":
        return capital and match["words"][0] == "I"
    return starts_line and match["end"] is not None and ("#" in match["lead"] or match["open"] is not None)


def _without_open_emphasis(plan: str, marker: re.Match[str]) -> str:
    """`**In summary: a.**`: the emphasis that began before the marker ends with the plan."""
    mark = marker["open"]
    closed_at_end = mark is not None and not marker["close"] and not marker["after"] and plan.endswith(mark)
    return plan.removesuffix(mark).rstrip() if closed_at_end and plan.count(mark) == 1 else plan


def plan_prompts(settings: Mapping[str, bool]) -> PlanPrompts:
    """What scores a plan, with the settings that a baseline was computed with (its provenance's `prompt_settings`)."""
    planned_messages = partial(build_planned_messages, settings=PromptSettings.from_dict(settings))
    return PlanPrompts(extract_plan=extract_plan, has_plan_marker=has_plan_marker, planned_messages=planned_messages)


def add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one switch for each field of `PromptSettings`; every step of a run needs the same ones."""
    group = parser.add_argument_group("prompts (give every step the same switches)")
    group.add_argument(
        "--no_system_role",
        dest="use_system_role",
        action="store_false",
        default=USE_SYSTEM_ROLE,
        help="put the system text into the first user turn, for chat templates without a system role",
    )
    for field in fields(PromptSettings):
        if field.name.startswith("include_"):
            part = field.name.removeprefix("include_")
            help_text = f"leave the {part.replace('_', ' ')} out of the prompts"
            group.add_argument(f"--no_{part}", dest=field.name, action="store_false", help=help_text)


def prompt_settings_from(args: argparse.Namespace) -> PromptSettings:
    """The settings that `add_prompt_arguments` parsed."""
    return PromptSettings(**{field.name: getattr(args, field.name) for field in fields(PromptSettings)})


def _chapter_prompt(datapoint: Datapoint, settings: PromptSettings, last_parts: list[str]) -> Messages:
    sections = _chapter_sections(datapoint, settings)
    preamble = "\n".join([PREAMBLE, *(f"- {title}: {SECTION_NOTES[title]}" for title in sections)])
    user = "\n\n".join([preamble, *(_section(title, text) for title, text in sections.items()), *last_parts])
    messages = [{"role": "system", "content": SYSTEM_TEXT}, {"role": "user", "content": user}]
    return messages if settings.use_system_role else _fold_system_turn(messages)


def _chapter_sections(datapoint: Datapoint, settings: PromptSettings) -> dict[str, str]:
    """Title -> text of each part that the settings include and the datapoint has, in the order of the prompt.

    Without `last_n_chapters` the whole story so far stands under Previous Chapters.
    """
    sheets = datapoint.get("character_sheets") or {}
    parts = {
        "High-Level Plan": settings.include_high_level_plan and datapoint.get("high_level_plot_summary"),
        "Story So Far": settings.include_story_so_far and datapoint.get("prior_plot_summary"),
        "Character Sheets": settings.include_character_sheets
        and "\n\n".join(f"{name}:\n{sheet.strip()}" for name, sheet in sheets.items()),
        "Previous Chapters": settings.include_previous_chapters
        and (datapoint.get("last_n_chapters") or datapoint["story_text"]),
        SYNOPSIS_TITLE: settings.include_synopsis and datapoint.get("next_chapter_synopsis"),
        "Next Chapter Header": datapoint["next_chapter_header"],
    }
    return {title: text.strip() for title, text in parts.items() if text and text.strip()}


def _extend_last_user_turn(datapoint: Datapoint, settings: PromptSettings, parts: list[str]) -> Messages:
    """The row's own turns up to the last user turn, with parts added to that one."""
    *turns, last = [{"role": turn["role"], "content": turn["content"]} for turn in datapoint["messages"][:-1]]
    messages = [*turns, {"role": "user", "content": "\n\n".join([last["content"], *parts])}]
    return messages if settings.use_system_role else _fold_system_turn(messages)


def _fold_system_turn(messages: Messages) -> Messages:
    """Moves a leading system turn's text to the head of the first user turn."""
    system, *turns = messages
    if system["role"] != "system":
        return messages
    first_user = next(turn for turn in turns if turn["role"] == "user")
    first_user["content"] = f"{system['content']}\n\n{first_user['content']}"
    return turns


def _gold_turn(datapoint: Datapoint) -> dict[str, str]:
    return {"role": "assistant", "content": gold_text(datapoint)}


def _section(title: str, text: str) -> str:
    return f"### {title}: ###\n{text}"
