"""Finds a book's chapters among its blocks.

Chapters are what the book itself marks, tried in this order: `--chapter_regex`; headings that say chapter (or letter,
stave, canto) with a number; numbers in sequence, with or without a title; headings that the format marks (`<h2>`,
`##`) and that are titles only; capitalised titles standing alone; and volumes, books or parts when they are all there
is. Volumes, books and parts around chapters become part of the chapters' headings. What is outside of any chapter
(title page, contents, preface, notes) is left out and counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from setup_data.book import Chapter
from setup_data.reading.blocks import Block
from setup_data.reading.headings import (
    MAX_HEADING_CHARS,
    SENTENCE_END,
    Heading,
    classify,
    classify_number,
    is_title,
    parse_number,
)

GUTENBERG_START = re.compile(r"\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG.*?\*\*\*", re.I | re.S)
GUTENBERG_END = re.compile(r"\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG|^End of (?:the )?Project Gutenberg", re.I)
ILLUSTRATION = re.compile(r"\[illustration[^\]]*\]", re.I)
# A part's opening text of this length is a chapter of its own (a prelude); less is an epigraph.
MIN_PRELUDE_WORDS = 200
# What may stand between two lines of a contents table.
MAX_LISTED_WORDS = 40
# A second heading of the same name with this share of the first one's words, or less, is a line of a contents table.
MAX_DUPLICATE_SHARE = 0.1

Marks = dict[int, Heading]  # index of a block -> the heading that it is


@dataclass(frozen=True, kw_only=True)
class SplitResult:
    """A book's chapters, and how many words are in none of them."""

    chapters: tuple[Chapter, ...]
    numbers: tuple[int | None, ...]
    """The number in each chapter's heading, if it has one."""
    num_words_outside: int
    found_by: str
    """Which kind of heading the chapters were found by."""


def strip_gutenberg(blocks: Sequence[Block]) -> list[Block]:
    """The blocks without Project Gutenberg's header, licence and illustration marks."""
    start = max((i + 1 for i, block in enumerate(blocks) if GUTENBERG_START.search(block.text)), default=0)
    ends = (i for i, block in enumerate(blocks) if i >= start and GUTENBERG_END.search(block.text))
    return [block for block in blocks[start : next(ends, len(blocks))] if not ILLUSTRATION.fullmatch(block.text)]


def split_leading_headings(blocks: Sequence[Block]) -> list[Block]:
    """Cuts `CHAPTER I` off a paragraph that follows it without a blank line."""
    result = []
    for block in blocks:
        first, _, rest = block.text.partition("\n")
        heading = classify(first) if rest and block.level is None else None
        if heading and heading.number is not None and len(block.text) > MAX_HEADING_CHARS:
            result += [Block(text=first), Block(text=rest.replace("\n", " "))]
        else:
            result.append(block)
    return result


def find_marks(blocks: Sequence[Block], chapter_regex: str | None) -> tuple[Marks, str]:
    """The headings of the book, and the kind of heading that its chapters were found by."""
    worded = {i: heading for i, block in enumerate(blocks) if (heading := classify(block.text))}
    worded = drop_contents(blocks, worded)
    around = {i: heading for i, heading in worded.items() if heading.kind != "chapter"}
    if chapter_regex is not None:
        pattern = re.compile(chapter_regex)
        matched = {i: block.text for i, block in enumerate(blocks) if pattern.fullmatch(block.text)}
        return around | _as_chapters(matched), "chapter_regex"
    candidates = {
        "chapter headings": {i: heading for i, heading in worded.items() if heading.kind == "chapter"},
        "numbers": numbered_marks(blocks),
        "marked headings": _as_chapters(structural_titles(blocks, around)),
        "capitalised titles": _as_chapters(capital_titles(blocks, around)),
        "divisions": {i: heading for i, heading in around.items() if heading.kind == "division"},
    }
    for found_by, chapters in candidates.items():
        if len(chapters) >= 2:
            as_chapters = {i: replace(heading, kind="chapter") for i, heading in chapters.items()}
            return around | as_chapters, found_by
    return worded, "chapter headings"


def _as_chapters(texts: dict[int, str]) -> Marks:
    return {
        i: Heading(kind="chapter", label=" ".join(text.split()), number=parse_number(text), has_title=True)
        for i, text in texts.items()
    }


def numbered_marks(blocks: Sequence[Block]) -> Marks:
    """Numbers that count 1, 2, 3, ... (from 1 again in a new part): with titles or bare, whichever are more."""
    best: Marks = {}
    for with_title in (True, False):
        marks: Marks = {}
        last = 0
        for i, block in enumerate(blocks):
            heading = classify_number(block.text)
            if heading and heading.has_title == with_title and heading.number in (1, last + 1):
                marks[i] = heading
                last = heading.number or 0
        best = max(best, marks, key=len)
    return best


def structural_titles(blocks: Sequence[Block], around: Marks) -> dict[int, str]:
    """The marked headings of the level that most are at."""
    levels = Counter(block.level for i, block in enumerate(blocks) if block.level and i not in around)
    if not levels:
        return {}
    level = max(levels, key=lambda each: (levels[each], -(each or 0)))
    return {i: block.text for i, block in enumerate(blocks) if block.level == level and i not in around}


def capital_titles(blocks: Sequence[Block], around: Marks) -> dict[int, str]:
    """Paragraphs that are titles in capitals, followed by text."""
    titles = {i: b.text for i, b in enumerate(blocks) if i not in around and b.text.isupper() and is_title(b.text)}
    return {i: text for i, text in titles.items() if i + 1 < len(blocks) and i + 1 not in titles}


def drop_contents(blocks: Sequence[Block], marks: Marks) -> Marks:
    """The marks without those that a table of contents lists.

    A listed heading comes again later, and has next to no text before the next heading, unless it is the last one: that
    may have a preface after it, and then the headings start over.
    """
    kept = dict(marks)
    for start in [i for i, heading in marks.items() if heading.kind == "contents"]:
        order = [i for i in marks if i > start]
        keys = _keys([marks[i] for i in order])
        for position, i in enumerate(order[:-1]):
            end = order[position + 1]
            num_words = sum(len(block.text.split()) for block in blocks[i + 1 : end])
            starts_over = keys[position + 1] == keys[0]
            if keys[position] not in keys[position + 1 :] or (num_words > MAX_LISTED_WORDS and not starts_over):
                break
            del kept[i]
    return kept


def _keys(headings: Sequence[Heading]) -> list[tuple[str, str, int | None]]:
    """What identifies each heading: its volume, kind and number."""
    keys: list[tuple[str, str, int | None]] = []
    division = ""
    for heading in headings:
        if heading.kind == "division":
            division = heading.label
        keys.append((division, heading.kind, heading.number))
    return keys


@dataclass(kw_only=True)
class _Section:
    """A chapter while its paragraphs are collected."""

    heading: Heading
    division: str
    paragraphs: list[str] = field(default_factory=list)

    @property
    def num_words(self) -> int:
        return sum(len(paragraph.split()) for paragraph in self.paragraphs)

    @property
    def key(self) -> tuple[str, str, int | None]:
        return (self.division, self.heading.kind, self.heading.number)


def cut_sections(blocks: Sequence[Block], marks: Marks) -> tuple[list[_Section], int]:
    """The sections between the marks, and the number of words in none of them."""
    sections: list[_Section] = []
    current: _Section | None = None
    division = ""
    num_words_outside = 0
    skip = -1
    for i, block in enumerate(blocks):
        heading = marks.get(i)
        if i == skip:
            continue
        if heading is None:
            if current is None:
                num_words_outside += len(block.text.split())
            else:
                current.paragraphs.append(block.text)
        elif heading.kind in ("contents", "not_story"):
            current = None
        else:
            if not heading.has_title and _title_follows(blocks, marks, i):
                heading = replace(heading, label=f"{heading.label}: {' '.join(blocks[i + 1].text.split())}")
                skip = i + 1
            if heading.kind == "division":
                division = heading.label
            current = _Section(heading=heading, division=division)
            sections.append(current)
    return sections, num_words_outside


def _title_follows(blocks: Sequence[Block], marks: Marks, i: int) -> bool:
    """Whether the block after heading `i` is its title, with text after it."""
    if i + 2 >= len(blocks) or i + 1 in marks or i + 2 in marks:
        return False
    block = blocks[i + 1]
    return block.level is not None or (is_title(block.text) and not SENTENCE_END.search(block.text))


def _drop_doubles(sections: Sequence[_Section]) -> list[_Section]:
    """The sections without those that are only a line of a contents table."""
    longest: dict[tuple[str, str, int | None], int] = {}
    for section in sections:
        longest[section.key] = max(longest.get(section.key, 0), section.num_words)
    return [
        section
        for section in sections
        if section.heading.number is None
        or section.num_words == longest[section.key]
        or section.num_words > MAX_DUPLICATE_SHARE * longest[section.key]
    ]


def _header(section: _Section) -> str:
    """`VOLUME II, CHAPTER I` for a chapter in a volume; the heading alone otherwise."""
    label = section.heading.label
    return f"{section.division}, {label}" if section.division and section.heading.kind == "chapter" else label


def split_chapters(blocks: Sequence[Block], *, title: str, chapter_regex: str | None = None) -> SplitResult:
    """The chapters of a book. A book without any heading is one chapter under its title.

    Raises:
        ValueError: there is no text, or `chapter_regex` matches nothing.
    """
    blocks = split_leading_headings(strip_gutenberg(blocks))
    if not blocks:
        raise ValueError("there is no text in it")
    marks, found_by = find_marks(blocks, chapter_regex)
    sections, num_words_outside = cut_sections(blocks, marks)
    kept = []
    for section in _drop_doubles([section for section in sections if section.paragraphs]):
        if section.heading.kind == "division" and section.num_words < MIN_PRELUDE_WORDS:
            num_words_outside += section.num_words
        else:
            kept.append(section)
    if not kept and chapter_regex is not None:
        raise ValueError(f"no paragraph matches --chapter_regex {chapter_regex!r} as a whole")
    if not kept:
        text = "\n\n".join(block.text for block in blocks)
        return SplitResult(
            chapters=(Chapter(header=title, text=text),), numbers=(None,), num_words_outside=0, found_by="none"
        )
    return SplitResult(
        chapters=tuple(Chapter(header=_header(each), text="\n\n".join(each.paragraphs)) for each in kept),
        numbers=tuple(section.heading.number for section in kept),
        num_words_outside=num_words_outside,
        found_by=found_by,
    )
