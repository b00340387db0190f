"""What a person should look at before a book goes further: one line each, at most ten of a kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

from setup_data.book import Chapter, chapter_key
from setup_data.reading.choose import Outline
from setup_data.reading.cut import Cut
from setup_data.reading.headings import Head
from setup_data.reading.noise import Noise
from setup_data.reading.source import Fate
from setup_data.reading.view import View

T = TypeVar("T")

MAX_CHAPTER_WORDS = 20_000
MIN_CHAPTER_WORDS = 100
MAX_OF_A_KIND = 10


def cap(found: Sequence[T], what: str, line: Callable[[T], str] = str) -> list[str]:
    """The first ten as lines, and how many more there are."""
    more = len(found) - MAX_OF_A_KIND
    lines = [line(each) for each in found[:MAX_OF_A_KIND]]
    return [*lines, f"... and {more:,} more {what} ({len(found):,} in all)"] if more > 0 else lines


def find_suspicions(view: View, outline: Outline, cut: Cut, chapters: Sequence[Chapter], noise: Noise) -> list[str]:
    """Every line of the report that starts with Check."""
    keys = [chapter_key(index, chapter.header) for index, chapter in enumerate(chapters)]
    found: list[str] = []
    if len(chapters) == 1:
        found.append("only one chapter was found: are the headings of another kind (--chapter_regex)?")
    found += cap(list(_first_numbers(cut, keys)), "first numbers")
    found += cap(list(_gaps(cut, keys)), "gaps")
    found += cap(list(_restarts(view, cut, keys)), "restarts")
    found += _works(view, outline, noise)
    found += cap(list(_lengths(chapters, keys)), "lengths")
    found += cap(list(_repeats(chapters)), "repeated headings")
    found += cap([f"the heading {head.header!r} has no text of its own" for head in cut.empty], "empty headings")
    found += cap(_rejected(view, outline), "lines that look like headings", lambda head: _rejected_line(view, head))
    return found


def _first_numbers(cut: Cut, keys: Sequence[str]) -> Iterator[str]:
    if cut.opening:
        yield f"a first heading is missing: {cut.opening}"
    part: str | None = None
    for section, key in zip(cut.sections, keys, strict=False):
        starts_part = section.part != part
        part = section.part
        if section.number is not None and starts_part and section is cut.sections[0] and section.number > 1:
            yield f"{key}: the first number is {section.number}; what comes before it is not in this file, or unmarked"


def _numbered_pairs(cut: Cut) -> Iterator[tuple[int, int, int]]:
    """(position, number before, number) of the chapters that have numbers."""
    numbered = [(i, section.number) for i, section in enumerate(cut.sections) if section.number is not None]
    for (_, before), (position, number) in pairwise(numbered):
        yield position, before, number


def _gaps(cut: Cut, keys: Sequence[str]) -> Iterator[str]:
    for position, before, number in _numbered_pairs(cut):
        if position >= len(keys) or number == before + 1:
            continue
        same_part = cut.sections[position].part == cut.sections[position - 1].part
        if number > before + 1 and same_part:
            missing = f"{before + 1}" if number == before + 2 else f"{before + 1} to {number - 1}"
            yield f"{keys[position]}: its number follows {before}; {missing} missing, or not marked"
        elif number > 1 and (number <= before if same_part else number != before + 1):
            yield f"{keys[position]}: its number follows {before}" + ("" if same_part else ", at the start of a part")


def _restarts(view: View, cut: Cut, keys: Sequence[str]) -> Iterator[str]:
    for position, before, number in _numbered_pairs(cut):
        section = cut.sections[position]
        if position >= len(keys) or number != 1 or section.part != cut.sections[position - 1].part:
            continue
        place = f" ({view.source.place(section.head)})" if section.head is not None else ""
        yield (
            f"{keys[position]}{place}: the numbers start over after {before}; if another work begins there, cut the "
            "file above its title into one file a work; if a part does, write its name above the heading"
        )


def _works(view: View, outline: Outline, noise: Noise) -> list[str]:
    found = []
    if len(noise.works) > 1:
        found.append(
            f"{len(noise.works)} Project Gutenberg texts are joined in this file; they begin at "
            f"{_and_more([view.source.place(i) for i in noise.works])}: cut it there into one file a work"
        )
    elif outline.works:
        titles = [f"{title!r} at {view.source.place(i)}" for i, title in outline.works.items()]
        found.append(
            f"the numbers start over under titles ({_and_more(titles)}): if these are works, cut the file there into "
            "one file a work; if they are parts, all is well"
        )
    return found


def _and_more(names: Sequence[str]) -> str:
    more = len(names) - MAX_OF_A_KIND
    return ", ".join(names[:MAX_OF_A_KIND]) + (f" and {more:,} more" if more > 0 else "")


def _lengths(chapters: Sequence[Chapter], keys: Sequence[str]) -> Iterator[str]:
    for chapter, key in zip(chapters, keys, strict=True):
        if chapter.num_words > MAX_CHAPTER_WORDS:
            yield f"{key} has {chapter.num_words:,} words: a heading may have been missed in it"
        if chapter.num_words < MIN_CHAPTER_WORDS:
            yield f"{key} has only {chapter.num_words} words: it may be no chapter"


def _repeats(chapters: Sequence[Chapter]) -> Iterator[str]:
    for header, count in Counter(chapter.header for chapter in chapters).items():
        if count > 1:
            yield f"the heading {header!r} is repeated {count} times: a contents table, or parts without headings?"


def _rejected(view: View, outline: Outline) -> list[Head]:
    return [head for head in outline.rejected if view.fates[head.index] is Fate.CHAPTER]


def _rejected_line(view: View, head: Head) -> str:
    return f"{head.header!r} ({view.source.place(head.index)}) looks like a heading and was taken for text"
