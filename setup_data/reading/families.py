"""The families of headings that a book's chapters may be: worded ones, numbers, titles.

A family is a list of headings in reading order. choose.py decides between them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from setup_data.reading.chains import longest_count
from setup_data.reading.contents import Contents
from setup_data.reading.headings import Head, counted_head, is_title, one_line
from setup_data.reading.view import View, same_words

# A level's headings are parts, not chapters, where at least this share of them is directly followed by deeper ones.
MIN_CONTAINER_SHARE = 0.6
MAX_CONTAINER_WORDS = 60
# Titles between sections of up to this many words are chapters, even where numbers count inside of each.
MAX_STORY_WORDS = 15_000
MIN_WORD_FAMILY = 2
MIN_COUNTED_WORDS = 3
MIN_GAP_LINES = 3
MIN_DISTINCT_TITLES = 0.8

Family = list[Head]


def divided_flags(heads: Sequence[Head], divisions: Sequence[int]) -> list[bool]:
    """For each heading: whether a part's heading stands between it and the one before."""
    flags, at = [], 0
    for head in heads:
        passed = False
        while at < len(divisions) and divisions[at] < head.index:
            passed, at = True, at + 1
        flags.append(passed)
    return flags


def has_text(view: View, heads: Sequence[Head]) -> list[bool]:
    """For each heading: whether there is text between it and the next."""
    return [words > 0 for words in section_words(view, heads)]


def is_container(view: View, head: Head, inner: Sequence[Head]) -> bool:
    """Whether one of `inner` follows `head` directly, or after an epigraph."""
    following = next((each.index for each in inner if each.index > head.index), None)
    return following is not None and view.words_between(head.index, following) <= MAX_CONTAINER_WORDS


def worded_chapters(view: View, divisions: Sequence[int]) -> tuple[Family, Family]:
    """Headings that say chapter (letter, adventure, ...) and a number; and those of other words that contain them."""
    heads = [head for _, head in sorted(view.worded.items()) if head.kind == "chapter"]
    counts = Counter(head.word for head in heads)
    if not counts:
        return [], []
    first = "chapter" if counts["chapter"] >= MIN_WORD_FAMILY else max(counts, key=lambda word: counts[word])
    chapters = _unmarked_dropped([head for head in heads if head.word == first])
    parts: Family = []
    for word in counts:
        if word == first:
            continue
        others = [head for head in heads if head.word == word]
        containing = [head for head in others if is_container(view, head, chapters)]
        if len(containing) >= MIN_CONTAINER_SHARE * len(others):
            parts += containing
        else:
            chapters += [head for head in others if not _is_inside(head, chapters)]
    chapters.sort(key=lambda head: head.index)
    return _consistent(view, chapters, divisions), parts


def _unmarked_dropped(heads: Family) -> Family:
    marked = [head for head in heads if head.level is not None]
    return marked if len(marked) >= MIN_WORD_FAMILY else heads


def _is_inside(head: Head, chapters: Family) -> bool:
    """Whether `head` stands between two chapters that count on, so that it is part of the first."""
    before = [each for each in chapters if each.index < head.index]
    after = [each for each in chapters if each.index > head.index]
    if not before or not after or before[-1].number is None:
        return False
    return after[0].number == before[-1].number + 1


def _consistent(view: View, heads: Family, divisions: Sequence[int]) -> Family:
    """Without headings that neither count on nor stand as free as the others: a chapter named in the text."""
    numbered = [head for head in heads if head.number is not None]
    chain = longest_count([head.number or 0 for head in numbered], divided=divided_flags(numbered, divisions))
    counted = {numbered[i].index for i in chain}
    gaps = [view.source.gap_before(index) for index in counted]
    usual = median(gaps) if gaps else 0
    return [
        head
        for head in heads
        if head.index in counted or head.number is None or head.level or view.source.gap_before(head.index) >= usual
    ]


def number_families(view: View, divisions: Sequence[int], free: set[int]) -> Family:
    """The best count of headings that are numbers of one style, with titles or bare."""
    heads = [head for i, head in sorted(view.numbered.items()) if i in free]
    marked = [head for head in heads if head.level is not None]
    if len(marked) >= MIN_WORD_FAMILY:
        heads = marked
    best: Family = []
    best_score = 0.0
    for style in {head.style for head in heads}:
        styled = [head for head in heads if head.style == style]
        for family in (styled, [h for h in styled if h.title], [h for h in styled if not h.title]):
            if len(family) < MIN_WORD_FAMILY:
                continue
            flags = divided_flags(family, divisions)
            chain = [family[i] for i in longest_count([head.number or 0 for head in family], divided=flags)]
            chain = _with_text_between(view, chain)
            score = (
                len(chain) * (1 - view.share_before(chain[0].index)) + 0.5 * all(h.title for h in chain) if chain else 0
            )
            if len(chain) >= MIN_WORD_FAMILY and score > best_score:
                best, best_score = chain, score
    return best


def _with_text_between(view: View, chain: Family) -> Family:
    """The chain, unless it is a list: most of its numbers have no text of their own."""
    return chain if sum(has_text(view, chain)) >= 0.6 * len(chain) else []


def counted_words(view: View, free: set[int]) -> Family:
    """Headings of a word that nobody has taught the reader: `Day 1`, `Day 2`, `Day 3`."""
    found = [
        head
        for i, text in sorted(view.short.items())
        if i in free and i not in view.worded and i not in view.numbered and (head := counted_head(i, text))
    ]
    words = Counter(head.word for head in found)
    if not words:
        return []
    family = [head for head in found if head.word == max(words, key=lambda word: words[word])]
    chain = [family[i] for i in longest_count([head.number or 0 for head in family])]
    return chain if len(chain) >= MIN_COUNTED_WORDS and all(has_text(view, chain)) else []


def listed_titles(view: View, contents: Contents, free: set[int]) -> Family:
    """The blocks that the contents table lists by title."""
    if not contents.titles:
        return []
    found = [
        Head(index=i, kind="title", label="", title=one_line(text), level=view.source.blocks[i].level)
        for i, text in sorted(view.short.items())
        if i in free and same_words(text) in contents.titles and i not in view.worded
    ]
    found = [head for head, text in zip(found, has_text(view, found), strict=True) if text]
    enough = len({same_words(head.title) for head in found}) >= max(MIN_WORD_FAMILY, 0.4 * len(contents.titles) / 2)
    return found if enough else []


def standing_titles(view: View, free: set[int], *, are_alone: bool) -> Family:
    """Titles that stand alone: in capitals, or with more space above them than paragraphs have.

    Args:
        are_alone: no numbers compete with them, so that one blank line more than usual is space enough.
    """
    found = [
        Head(index=i, kind="title", label="", title=one_line(text))
        for i, text in sorted(view.short.items())
        if i in free and i not in view.worded and i not in view.numbered and is_title(one_line(text))
    ]
    gaps = {head.index: view.source.gap_before(head.index) for head in found}
    usual = median(map(view.source.gap_before, view.live)) if found else 0
    wide, wider = ([head for head in found if gaps[head.index] >= gap > usual] for gap in (2, MIN_GAP_LINES))
    capital = [head for head in found if head.title.isupper()]
    for family in ([head for head in wider if head.title.isupper()], wider, capital, wide if are_alone else []):
        if titles := _distinct_titles(view, family):
            return titles
    return []


def _distinct_titles(view: View, family: Family) -> Family:
    """Those with text of their own, if they are two or more and hardly any comes twice."""
    family = [head for head, text in zip(family, has_text(view, family), strict=True) if text]
    distinct = {same_words(head.title) for head in family}
    return family if len(family) >= MIN_WORD_FAMILY and len(distinct) >= MIN_DISTINCT_TITLES * len(family) else []


def marked_titles(view: View, free: set[int]) -> tuple[Family, Family]:
    """(chapters, parts) among the headings that the format marks, by how they lie inside each other."""
    title = same_words(view.source.title or "")
    heads = [
        head
        for i, head in sorted(view.marked.items())
        if i in free and head.kind not in ("contents", "front", "back", "end") and same_words(head.header) != title
    ]
    parts: Family = []
    alone: Family = []  # of a level of parts, but with a text of their own
    for level in sorted({head.level or 0 for head in heads}):
        its = [head for head in heads if head.level == level]
        deeper = [head for head in heads if (head.level or 0) > level]
        if len(its) < MIN_WORD_FAMILY and deeper:
            is_book = its[0].kind == "title" and its[0].index < deeper[0].index and not view.source.has_navigation
            parts += [head for head in its if not is_book and is_container(view, head, deeper)]
            continue
        containing = [head for head in its if _next_is(head, its, deeper) and is_container(view, head, deeper)]
        if not deeper or len(containing) < MIN_CONTAINER_SHARE * len(its) or _are_stories(view, its, deeper):
            return sorted([*its, *alone], key=lambda head: head.index), parts
        parts += containing
        alone += [head for head in its if head not in containing and not is_followed_by(view, head, level)]
    return [], parts


def is_followed_by(view: View, head: Head, level: int) -> bool:
    """Whether another heading of `level` follows without text between: `head` is a title above it."""
    following = next((i for i in view.marked if i > head.index), None)
    if following is None or (view.marked[following].level or 0) > level:
        return False
    return view.words_between(head.index, following) == 0


def _next_is(head: Head, its: Family, deeper: Family) -> bool:
    """Whether a deeper heading follows `head` before the next of its own level."""
    following = min((each.index for each in its if each.index > head.index), default=None)
    inner = min((each.index for each in deeper if each.index > head.index), default=None)
    return inner is not None and (following is None or inner < following)


def _are_stories(view: View, outer: Family, inner: Family) -> bool:
    """Whether what is inside is bare numbers and the whole is no longer than a chapter: sections of a story."""
    if not all(head.kind == "number" and not head.title for head in inner):
        return False
    return median(section_words(view, outer)) <= MAX_STORY_WORDS and any(h.number == 1 for h in inner[1:])


def section_words(view: View, heads: Sequence[Head]) -> list[int]:
    """The words from each heading to the next."""
    ends = [*(head.index for head in heads[1:]), len(view.words)]
    return [view.words_between(head.index, end) for head, end in zip(heads, ends, strict=False)]


def outer_of(view: View, titles: Family, numbers: Family) -> tuple[Family, Family]:
    """(chapters, parts) where there are titles and numbers: inner numbers never beat the stories around them.

    Titles that directly follow a bare number are its own. Numbers that count on through the titles make these parts;
    numbers that start over under them are sections inside, unless what the titles head is far too long for a chapter.
    """
    counted = {head.index for head in numbers}
    if 2 * sum(head.index in counted for head in titles) >= len(titles):
        return numbers, []
    bare = {head.index for head in numbers if not head.title}
    live_before = dict(zip(view.live[1:], view.live, strict=False))
    titles = [head for head in titles if live_before.get(head.index) not in bare]
    if len(titles) < MIN_WORD_FAMILY:
        return numbers, []
    containing = [head for head in titles if is_container(view, head, numbers) and _next_is(head, titles, numbers)]
    restarts = sum(head.number == 1 for head in numbers[1:])
    if restarts == 0 and titles[0].index > numbers[0].index:
        return numbers, containing
    if restarts and not (
        len(containing) >= 0.9 * len(titles) and median(section_words(view, titles)) > MAX_STORY_WORDS
    ):
        return titles, []
    if len(containing) >= MIN_CONTAINER_SHARE * len(titles):
        return numbers, containing
    return (titles, []) if len(titles) > len(numbers) else (numbers, containing)


def fill_gaps(view: View, chapters: Family, numbered: Family) -> Family:
    """The chapters, with numbers of another style where they count on exactly: `ADVENTURE VI.`, then `VII. THE ...`."""
    taken = {head.index for head in chapters}
    others = [head for head in numbered if head.index not in taken]
    result: Family = []
    ends = [*chapters[1:], None]
    first = chapters[0]
    if first.number and first.number > 1:
        result += _counting_on(0, first.number, [h for h in others if h.index < first.index and (h.title or h.level)])
    for head, following in zip(chapters, ends, strict=True):
        result.append(head)
        if head.number is None or (following and following.number == head.number + 1):
            continue
        end = following.index if following else len(view.words)
        inside = [each for each in others if head.index < each.index < end and (each.title or each.level)]
        limit = following.number if following and (following.number or 0) > head.number else None
        result += _counting_on(head.number, limit, inside)
    return sorted(result, key=lambda head: head.index)


def _counting_on(number: int, limit: int | None, heads: Family) -> Family:
    found: Family = []
    for head in heads:
        if head.number == number + 1 and (limit is None or head.number < limit):
            found.append(replace(head, kind="number"))
            number += 1
    return found
