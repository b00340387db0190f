"""Cuts a book at its headings, and says of every block that is in no chapter why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from setup_data.reading.choose import MAX_EPIGRAPH_WORDS, Outline
from setup_data.reading.headings import (
    DESCRIPTION,
    MAX_TITLE_CHARS,
    MAX_TITLE_WORDS,
    SENTENCE_END,
    Head,
    clean_title,
    is_title,
    one_line,
)
from setup_data.reading.noise import Noise
from setup_data.reading.numbers import fold
from setup_data.reading.source import Fate
from setup_data.reading.view import View, same_words
from setup_data.reading.wording import CHAPTER_WORDS, CREDITS, may_end_story

MIN_OPENING_WORDS = 100
MIN_PROSE_WORDS = 8
MAX_PART_TITLE_WORDS = 20
# Where this share of the bare headings have a short paragraph after them, it is their title, stop or not.
MIN_TITLED_SHARE = 0.7
MIN_TITLED = 3
STOP = re.compile(r"[.!?…][\"'”’»)_]*$")
DEDICATION = re.compile(r"_*(?:to|for|by|von|par|por|di|à|für|dem|der|для|посвящается) ", re.IGNORECASE)
TRAILING_MARKS = re.compile(r"(?:\s*\[[^\]\n]{1,12}\])+$")
# A title that ends with a stop is no longer than this, or says that it tells something ("In which ...").
MAX_STOPPED_TITLE_WORDS = 8


@dataclass(kw_only=True)
class Section:
    """A chapter: its heading with that of its parts, and its blocks."""

    header: str
    number: int | None
    head: int | None
    """The block of its heading; None where the heading is missing."""
    part: str = ""
    blocks: list[int] = field(default_factory=list)


@dataclass(kw_only=True)
class Cut:
    """A book's sections, and what was noticed on the way."""

    sections: list[Section]
    opening: str | None = None
    """Why the text before the first heading is a chapter, if it is."""
    empty: list[Head] = field(default_factory=list)
    """Headings without text of their own."""


def cut_book(view: View, outline: Outline, noise: Noise, *, title: str) -> Cut:
    """The sections of a book. Every live block gets into one, or a fate."""
    starts = sorted(outline.heads)
    if not starts:
        return _whole(view, title)
    fates = list(view.fates)
    for start in starts:
        _take_keyword(view, start)
    titles = _find_titles(view, outline)
    cut = Cut(sections=[])
    _open(view, outline, cut, starts[0], title)
    pending: list[int] = []
    stack: list[Head] = []
    for position, start in enumerate(starts):
        head = outline.heads[start]
        end = starts[position + 1] if position + 1 < len(starts) else len(view.words)
        following = outline.heads.get(end)
        view.fates[start] = Fate.HEADING
        for i in titles.get(start, []):
            view.fates[i] = Fate.HEADING
        _leave_out_ends(view, outline, noise, start, end, following)
        blocks = [i for i in range(start + 1, end) if view.fates[i] is None]
        words = sum(view.words[i] for i in blocks)
        if titles.get(start):
            head = replace(head, title=clean_title(" ".join(one_line(view.text(i)) for i in titles[start])))
        is_part = start in outline.parts
        if is_part:
            stack = _enter(stack, head)
        if is_part and words < MAX_EPIGRAPH_WORDS and following is not None and end not in outline.parts:
            pending += blocks  # an epigraph: it opens the part's first chapter
            continue
        if words == 0 and not pending:
            cut.empty += [] if is_part else [head]
            continue
        part = ", ".join(each.header for each in stack if each.header and not (is_part and each is stack[-1]))
        header = f"{part}, {head.header}" if part and head.kind not in ("special",) else head.header
        cut.sections.append(Section(header=header, number=head.number, head=start, part=part, blocks=pending + blocks))
        pending = []
    if not cut.sections:  # headings and nothing under them
        view.fates[:] = fates
        return _whole(view, title)
    return cut


def _take_keyword(view: View, start: int) -> None:
    """`CHAPTER` in a paragraph of its own above the number."""
    above = next((i for i in range(start - 1, -1, -1) if view.fates[i] is None), None)
    if above is not None and start - above < 3 and fold(view.short.get(above, "").strip(" .")) in CHAPTER_WORDS:
        view.fates[above] = Fate.HEADING


def _whole(view: View, title: str) -> Cut:
    """A book without headings: one chapter under its title."""
    blocks = [i for i, fate in enumerate(view.fates) if fate is None and view.words[i]]
    if len(blocks) > 1 and same_words(view.text(blocks[0])) == same_words(title):
        view.fates[blocks[0]] = Fate.HEADING
        blocks = blocks[1:]
    return Cut(sections=[Section(header=title, number=None, head=None, blocks=blocks)] if blocks else [])


def _enter(stack: list[Head], head: Head) -> list[Head]:
    """The parts around what follows: a part of an open kind closes it, with all inside; an epilogue the innermost."""
    kinds = [(each.kind, each.word, each.level) for each in stack]
    kind = (head.kind, head.word, head.level)
    if kind in kinds:
        return [*stack[: kinds.index(kind)], head]
    if head.kind == "special":
        return [*stack[:-1], head]
    if stack and stack[-1].kind == "special":
        return [*stack[:-1], head] if len(stack) > 1 else [head]
    return [*stack, head]


def _find_titles(view: View, outline: Outline) -> dict[int, list[int]]:
    """For each heading without a title: the blocks after it that are its title."""
    starts = sorted(outline.heads)
    ends = dict(zip(starts, [*starts[1:], len(view.words)], strict=True))
    bare = [start for start in starts if not outline.heads[start].title]
    after = {start: [i for i in range(start + 1, ends[start]) if view.fates[i] is None][:4] for start in bare}
    chapters = [start for start in bare if start not in outline.parts and outline.heads[start].kind != "special"]
    loose = [start for start in chapters if len(after[start]) > 1 and _may_be_title(view, after[start][0])]
    usual = len(loose) >= MIN_TITLED and len(loose) >= MIN_TITLED_SHARE * len(chapters)
    titles: dict[int, list[int]] = {}
    for start in bare:
        following = after[start]
        if start in outline.parts:
            titles[start] = _part_titles(view, following, is_all=len(following) < 4)
        elif len(following) > 1 and (_is_title(view, following[0]) or (usual and start in loose)):
            titles[start] = following[:1]
    return titles


def _may_be_title(view: View, index: int) -> bool:
    """Short, and no speech; with a stop only if it is very short or says that it tells something."""
    text = TRAILING_MARKS.sub("", view.text(index).strip()).strip("_")
    num_words = len(text.split())
    if len(text) > MAX_TITLE_CHARS or num_words > MAX_TITLE_WORDS or text.count("\n") > 1:
        return False
    if text[:1] in '"“‘«—-[' or text[:1].islower():
        return False
    if num_words <= MAX_STOPPED_TITLE_WORDS or not SENTENCE_END.search(text) or DESCRIPTION.match(text):
        return True
    long_words = [word for word in text.split() if len(word) > 3]
    return sum(word[0].isupper() for word in long_words) > 0.6 * len(long_words)


def _is_title_line(view: View, index: int) -> bool:
    """A title, a year or the like, with a stop or without."""
    text = one_line(view.text(index)).rstrip(".")
    return _may_be_title(view, index) and (is_title(text) or not any(char.islower() for char in text))


def _is_title(view: View, index: int) -> bool:
    """A title by itself: marked, in capitals on its words, or a word that would else end the story (Finis, Notes)."""
    if view.source.blocks[index].level is not None:
        return True
    text = one_line(view.text(index)).strip("_ ")
    known = view.worded.get(index)
    if known is not None:
        return known.kind in ("front", "back", "end", "special")
    if index in view.numbered or len(text.split()) > MAX_TITLE_WORDS:
        return False
    return is_title(text) and not (SENTENCE_END.search(text) and not text.endswith(("?", "!")))


def _part_titles(view: View, following: Sequence[int], *, is_all: bool) -> list[int]:
    """The lines between a part's heading and its first chapter, if they are a title and no epigraph."""
    words = sum(view.words[i] for i in following)
    if is_all and words <= MAX_PART_TITLE_WORDS and all(_is_title_line(view, i) for i in following):
        return list(following)
    return list(following[:1]) if following and _is_title(view, following[0]) else []


def _leave_out_ends(view: View, outline: Outline, noise: Noise, start: int, end: int, following: Head | None) -> None:
    """Back matter after the last chapter, and what stands between two works."""
    starts_over = following is not None and following.number == 1 and (outline.heads[start].number or 0) > 1
    restarts = following is not None and (following.index in outline.parts or following.number == 1)
    fate = None
    for i in range(start + 1, end):
        other = outline.other.get(i)
        if view.fates[i] is not None or (other is None and fate is None):
            continue
        if other is not None and fate is None:
            is_marked = other.level is not None and other.kind == "back"
            ends = other.kind in ("end", "back") or other.level is not None or may_end_story(other.label)
            if is_marked or (following is None and ends):
                fate = Fate.BACK
            elif restarts and (other.kind == "end" or len(noise.works) > 1 or (starts_over and other.kind == "front")):
                fate = Fate.FRONT if other.kind == "front" else Fate.BACK
        if fate is not None:
            view.fates[i] = fate


def _is_prose(view: View, index: int) -> bool:
    text = view.text(index)
    long_enough = len(text.split()) >= MIN_PROSE_WORDS
    return long_enough and bool(SENTENCE_END.search(text.strip())) and not CREDITS.match(text.lstrip("[_ "))


def _may_open(view: View, index: int) -> bool:
    """Whether a short paragraph directly before prose is its first sentence (`It began.`), and no title page."""
    text = one_line(view.text(index))
    is_titled = is_title(text.rstrip(".!?…")) or text.isupper() or bool(DEDICATION.match(text) or CREDITS.match(text))
    return bool(STOP.search(text)) and not is_titled and index not in view.worded and index not in view.numbered


def _open(view: View, outline: Outline, cut: Cut, first: int, title: str) -> None:
    """What stands before the first heading: front matter, or a chapter whose heading is missing."""
    before = [i for i in range(first) if view.fates[i] is None]
    fronts = [i for i in before if (head := outline.other.get(i)) and head.kind == "front"]
    head = next((outline.heads[i] for i in sorted(outline.heads) if i not in outline.parts), outline.heads[first])
    prose = [i for i in before if _is_prose(view, i)]
    is_late = head.number is not None and head.number > 1
    by_regex = outline.found_by == "--chapter_regex"
    opens = is_late or by_regex or (head.number is None and head.kind == "title" and not fronts)
    enough = 1 if by_regex else 20 if is_late else MIN_OPENING_WORDS
    first_prose = before.index(prose[0]) if prose else len(before)
    while first_prose and prose and _may_open(view, before[first_prose - 1]):
        first_prose -= 1
    blocks = before[first_prose:]
    if fronts and by_regex and not is_late:
        blocks = [i for i in blocks if i < fronts[0]]
    if not opens or sum(view.words[i] for i in blocks) < enough:
        blocks = []
    for i in before:
        if i not in set(blocks):
            view.fates[i] = Fate.FRONT
    if blocks:
        header = _opening_header(head, title) if not by_regex or is_late else _regex_header(outline, title)
        number = (head.number or 2) - 1 if is_late and head.number == 2 else None
        cut.sections.append(Section(header=header, number=number, head=None, blocks=blocks))
        cut.opening = f"the text before {head.header!r} has no heading; it is the chapter {header!r}"


def _regex_header(outline: Outline, title: str) -> str:
    """`1` before scene breaks, whose chapters are only counted; else the book's title."""
    return "1" if all(head.header.isdigit() for head in outline.heads.values()) else title


def _opening_header(head: Head, title: str) -> str:
    """The missing heading before `Chapter 2`: `Chapter 1`, in the same style."""
    if head.number is None:
        return title
    if head.number > 2:
        return f"Before {head.label}"
    last = head.label.split()[-1] if head.label.split() else ""
    one = {"digit": "1", "ROMAN": "I", "roman": "i", "word": "ONE" if last.isupper() else "One"}.get(
        head.style or "", "1"
    )
    return " ".join([*head.label.split()[:-1], one]).strip()
