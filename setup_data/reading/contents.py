"""Tables of contents: headings that stand close together and come again where the text is."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from setup_data.reading.headings import (
    SENTENCE_END,
    Head,
    is_title,
    listed_heads,
    may_be_heading,
    number_head,
    spaced_head,
    worded_head,
)
from setup_data.reading.view import PAGE_AT_END, View, same_words

# What may stand between two entries: in a table that is announced, and in one that is not.
MAX_ANNOUNCED_WORDS = 120
MAX_LISTED_WORDS = 40
MIN_UNANNOUNCED_ENTRIES = 3
MIN_RECURRING = 0.6
MIN_RECURRING_UNANNOUNCED = 0.8
MAX_ENTRY_WORDS = 30

Key = tuple[str, int | str]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The blocks of the contents tables, and the titles that they list."""

    blocks: frozenset[int]
    titles: frozenset[str]
    """As `same_words` has them."""


def loose_key(head: Head) -> Key:
    """What a table's entry and the heading that it lists share: the table may say CHAPTER where the text does not."""
    group = "division" if head.kind in ("division", "special") else "chapter"
    return group, head.number if head.number is not None else same_words(head.header)


def _entries(view: View) -> list[Head]:
    """What a table may list, chapters and parts and numbers, in reading order."""
    heads = {i: head for i, head in view.worded.items() if head.kind in ("chapter", "division", "special")}
    heads |= view.numbered
    return [head for _, head in sorted((heads | _spaced(view, heads)).items())]


def _spaced(view: View, heads: dict[int, Head]) -> dict[int, Head]:
    """`IV The Well` in a paragraph of its own: an entry only directly beside other entries."""
    found = {
        i: head
        for i, text in view.short.items()
        if text[-1].isalnum()  # quick: no sentence
        and i not in view.worded
        and i not in heads
        and may_be_heading(text)
        and (head := spaced_head(i, text))
    }
    if not found:
        return {}
    neighbours = Counter(b for a, b in pairwise(view.live) if a in heads or a in found)
    neighbours.update(a for a, b in pairwise(view.live) if b in heads or b in found)
    return {i: head for i, head in found.items() if neighbours[i]}


def _run(view: View, heads: list[Head], last: dict[Key, int], first: int, max_words: int) -> list[Head]:
    """The headings from position `first` on that could be the entries of one table.

    Args:
        last: the last position of each key.
    """
    run: list[Head] = []
    seen: set[tuple[Key, Key]] = set()
    division: Key = ("", 0)
    for position in range(first, len(heads)):
        head = heads[position]
        key = loose_key(head)
        division = key if key[0] == "division" else division
        if (division, key) in seen or (run and key == loose_key(run[0])):
            break
        end = heads[position + 1].index if position + 1 < len(heads) else len(view.words)
        if view.prose_between(head.index, end) > max_words:
            starts_over = position + 1 < len(heads) and run and loose_key(heads[position + 1]) == loose_key(run[0])
            if last[key] > position and (run or starts_over):
                run.append(head)
            break
        seen.add((division, key))
        run.append(head)
    return run


def _in_context(heads: list[Head]) -> list[tuple[Key, Key]]:
    """Each heading's key with that of the part in which it is."""
    keys: list[tuple[Key, Key]] = []
    division: Key = ("", 0)
    for head in heads:
        key = loose_key(head)
        division = key if key[0] == "division" else division
        keys.append((division, key))
    return keys


def _recurring_share(view: View, run: list[Head], outside: list[Head]) -> float:
    """The share of the entries that come again outside, in the same part if the table has parts."""
    has_parts = any(head.kind == "division" for head in run)
    elsewhere = set(_in_context(outside)) if has_parts else {(("", 0), loose_key(head)) for head in outside}
    keys = _in_context(run) if has_parts else [(("", 0), loose_key(head)) for head in run]
    hits = sum(
        key in elsewhere or (bool(head.title) and view.title_counts[same_words(head.title)] > 1)
        for key, head in zip(keys, run, strict=True)
    )
    return hits / len(run)


def _tail(view: View, last: int, seen: set[str]) -> int:
    """The last block of a table whose last entry so far is block `last`: lists, and short lines that come no more."""
    for i in range(last + 1, len(view.words)):
        if view.fates[i] is not None:
            continue
        text = view.text(i)
        if i in view.worded or (i in view.numbered and not view.is_listing(i)):
            return last
        if not view.is_listing(i) and not _is_entry(text) and not view.source.blocks[i].is_list:
            return last
        lines = [same_words(PAGE_AT_END.sub("", line)) for line in text.split("\n")]
        if len(lines) == 1 and lines[0] in seen:
            return last  # the title again: here the text begins
        seen.update(lines)
        last = i
    return last


def _is_entry(text: str) -> bool:
    """A line, or a few, that may list a title."""
    lines = text.strip().split("\n")
    return len(text.split()) <= MAX_ENTRY_WORDS * len(lines) and all(
        is_title(line.strip().rstrip(".")) or (len(line) < 70 and not SENTENCE_END.search(line.strip()))
        for line in lines
    )


def _listed_titles(view: View, blocks: set[int]) -> frozenset[str]:
    """The titles in a table's lines, without numbers and pages."""
    titles = set()
    for i in blocks:
        for line in view.text(i).split("\n"):
            line = PAGE_AT_END.sub("", line.strip()).strip(" .")
            head = worded_head(0, line) or number_head(0, line)
            title = head.title if head and head.title else line
            titles.add(same_words(re.sub(r"^[\divxlcIVXLC]+[.):]?[ \t]+", "", title)))
            titles.add(same_words(line))
    return frozenset(titles - {""})


def find_contents(view: View) -> Contents:
    """The contents tables of the book, wherever they stand."""
    heads = _entries(view)
    starts = [head.index for head in heads]
    last_of = {loose_key(head): position for position, head in enumerate(heads)}
    announced = [i for i, head in view.worded.items() if head.kind == "contents"]
    blocks: set[int] = set()
    for start in announced:
        run = _run(view, heads, last_of, bisect_right(starts, start), MAX_ANNOUNCED_WORDS)
        run = run if run and view.prose_between(start, run[0].index) <= MAX_ANNOUNCED_WORDS else []
        if len(run) > 1 and view.prose_between(start, run[-1].index) > MAX_LISTED_WORDS * len(run):
            run = []
        last = start
        listed = {head.index for head in run}
        outside = [head for head in heads if head.index not in listed]
        if run and _recurring_share(view, run, outside) >= MIN_RECURRING:
            last = run[-1].index
        last = _tail(view, last, {same_words(view.text(i)) for i in range(start, last + 1)})
        blocks.update(i for i in range(start, last + 1) if view.fates[i] is None)
    blocks |= _unannounced(view, [head for head in heads if head.index not in blocks])
    blocks |= _unannounced_lists(view, [head for head in heads if head.index not in blocks])
    return Contents(blocks=frozenset(blocks), titles=_listed_titles(view, blocks))


def _unannounced(view: View, heads: list[Head]) -> set[int]:
    """Tables without a heading: three entries or more, after which the book starts over."""
    last_of = {loose_key(head): position for position, head in enumerate(heads)}
    blocks: set[int] = set()
    position = 0
    while position < len(heads):
        run = _run(view, heads, last_of, position, MAX_LISTED_WORDS)
        after = position + len(run)
        starts_over = after < len(heads) and loose_key(heads[after]) in {loose_key(head) for head in run[:3]}
        if (
            len(run) >= MIN_UNANNOUNCED_ENTRIES
            and starts_over
            and _recurring_share(view, run, heads[:position] + heads[after:]) >= MIN_RECURRING_UNANNOUNCED
        ):
            blocks.update(i for i in range(run[0].index, run[-1].index + 1) if view.fates[i] is None)
            position = after
        else:
            position += 1
    return blocks


def _unannounced_lists(view: View, heads: list[Head]) -> set[int]:
    """Tables without a heading in one paragraph: what their lines say comes below, and nowhere above."""
    first_of: dict[Key, int] = {}
    for head in heads:
        first_of.setdefault(loose_key(head), head.index)
    blocks: set[int] = set()
    for i in view.live:
        keys = [loose_key(head) for head in listed_heads(view.text(i))] if view.source.blocks[i].is_list else []
        if sum(first_of.get(key, -1) > i for key in keys) >= MIN_RECURRING_UNANNOUNCED * len(keys) > 0:
            blocks.add(i)
    return blocks
