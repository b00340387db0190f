"""Which headings a book's chapters and parts are.

Tried in this order: `--chapter_regex`; headings that say chapter (or letter, adventure, ...) with a number; titles and
numbers, of which the outer ones win; parts, when they are all there is. The parts around chapters, prologues and
epilogues are added to what was chosen.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from setup_data.reading.contents import Contents, find_contents
from setup_data.reading.families import (
    MIN_WORD_FAMILY,
    Family,
    counted_words,
    fill_gaps,
    has_text,
    is_container,
    is_followed_by,
    listed_titles,
    marked_titles,
    number_families,
    outer_of,
    standing_titles,
    worded_chapters,
)
from setup_data.reading.headings import Head, is_title, one_line
from setup_data.reading.source import Fate
from setup_data.reading.view import View, same_words

# A part's heading stands this near to its first chapter, or is followed by a text of its own.
MAX_EPIGRAPH_WORDS = 200
LATE, EARLY = 0.5, 0.2
BYLINE = re.compile(r"(?:by|von|par|por|di|door)(?: [\w.'’-]+){1,8}", re.IGNORECASE)
NO_LETTERS = re.compile(r"[\W_]*")


@dataclass(kw_only=True)
class Outline:
    """The headings of a book, by block."""

    found_by: str
    """Which kind of heading the chapters were found by."""
    heads: dict[int, Head] = field(default_factory=dict)
    """Chapters, parts, prologues and epilogues."""
    parts: set[int] = field(default_factory=set)
    """Those of them that are no chapters but go into the headings of the chapters that they contain."""
    other: dict[int, Head] = field(default_factory=dict)
    """Front matter, back matter, the end: where they are is decided when the book is cut."""
    rejected: list[Head] = field(default_factory=list)
    """What looked like a heading but was taken for text."""
    works: dict[int, str] = field(default_factory=dict)
    """Block -> title, where several works lie in one file."""


def find_outline(view: View, chapter_regex: re.Pattern[str] | None) -> Outline:
    """The headings of a book. Contents tables get their fate here."""
    contents = find_contents(view)
    if chapter_regex is not None:
        return _by_regex(view, chapter_regex, contents)
    for i in contents.blocks:
        view.fates[i] = Fate.CONTENTS
    view = view.again()
    return _automatic(view, contents)


def _by_regex(view: View, pattern: re.Pattern[str], contents: Contents) -> Outline:
    """Every block that matches as a whole, also one that the rules would leave out; parts stay what they are."""
    texts = {i: view.text(i).strip() for i, block in enumerate(view.source.blocks) if block.end > block.start}
    matched = {i for i, text in texts.items() if pattern.fullmatch(text) or pattern.fullmatch(one_line(text))}
    listed = {i for i in matched & contents.blocks if _comes_again(i, matched - contents.blocks, texts)}
    for i in contents.blocks:
        view.fates[i] = Fate.CONTENTS if i in listed or i not in matched else view.fates[i]
    outline = Outline(found_by="--chapter_regex")
    for count, i in enumerate(sorted(matched - listed), start=2):
        view.fates[i] = None
        label = one_line(texts[i]).strip("_ ")
        known = view.worded.get(i) or view.numbered.get(i)
        label = str(count) if NO_LETTERS.fullmatch(label) else label
        outline.heads[i] = Head(index=i, kind="title", label="", title=label, number=known.number if known else None)
    for i, head in view.worded.items():
        if i not in outline.heads and view.fates[i] is None and head.kind in ("front", "back", "end"):
            outline.other[i] = head
    chapters = sorted(outline.heads.values(), key=lambda head: head.index)
    _add_divisions(view, outline, chapters, [])
    return outline


def _comes_again(index: int, others: set[int], texts: dict[int, str]) -> bool:
    return any(same_words(texts[index]) == same_words(texts[other]) for other in others)


def _automatic(view: View, contents: Contents) -> Outline:
    free = {i for i in view.short if view.fates[i] is None}
    divisions = sorted(i for i, head in view.worded.items() if head.kind in ("division", "special"))
    worded, outer_words = worded_chapters(view, divisions)
    numbers = number_families(view, divisions, free)
    marked, marked_parts = marked_titles(view, free)
    parts: Family = [*outer_words]
    if _is_good(view, worded, numbers):
        chapters, found_by = fill_gaps(view, worded, list(view.numbered.values())), "chapter headings"
        chapters = _with_equals(view, chapters)
        parts += _marked_above(view, chapters, marked_parts)
    else:
        numbers = numbers or counted_words(view, free)
        titles, found_by = _titles(view, contents, free, marked, are_alone=not numbers)
        chapters, more = outer_of(view, titles, numbers) if titles and numbers else (titles or numbers, [])
        if chapters and chapters[0] in numbers:
            found_by = "numbers"
            chapters = _with_equals(view, chapters)
        parts += more + (_marked_above(view, chapters, marked_parts) if chapters else [])
    if not chapters:
        chapters = [head for _, head in sorted(view.worded.items()) if head.kind in ("division", "chapter")]
        found_by = "parts" if chapters else "none"
        parts = []
    outline = Outline(found_by=found_by, heads={head.index: head for head in chapters})
    outline.other = {
        i: h for i, h in view.worded.items() if h.kind in ("front", "back", "end") and i not in outline.heads
    }
    if found_by != "parts":
        _add_divisions(view, outline, chapters, parts)
        _add_untitled_works(view, outline)
    _add_specials(view, outline)
    _collect_rejected(view, outline)
    return outline


def _is_good(view: View, worded: Family, numbers: Family) -> bool:
    """Whether worded headings are the chapters: two or more with text, and not only in the notes of a numbered book."""
    if sum(has_text(view, worded)) < MIN_WORD_FAMILY:
        return False
    late = view.share_before(worded[0].index) > LATE
    return not (late and numbers and view.share_before(numbers[0].index) < EARLY)


def _titles(view: View, contents: Contents, free: set[int], marked: Family, *, are_alone: bool) -> tuple[Family, str]:
    """The best family of titles."""
    if len(marked) >= MIN_WORD_FAMILY:
        return marked, "marked headings"
    if listed := listed_titles(view, contents, free):
        return listed, "titles of the contents table"
    return standing_titles(view, free, are_alone=are_alone), "titles"


def _with_equals(view: View, chapters: Family) -> Family:
    """The chapters, with what the format marks at their level between them: a title without number is a chapter."""
    levels = [head.level for head in chapters if head.level is not None]
    if len(levels) < MIN_WORD_FAMILY or len(set(levels)) > 1:
        return chapters
    taken = {head.index for head in chapters}
    equals = [
        head
        for i, head in view.marked.items()
        if head.level == levels[0] and i not in taken and i > chapters[0].index and head.kind in ("title", "number")
    ]
    return sorted([*chapters, *equals], key=lambda head: head.index)


def _marked_above(view: View, chapters: Family, marked_parts: Family) -> Family:
    """The marked titles above the chapters' level that contain chapters."""
    level = min((head.level for head in chapters if head.level is not None), default=None)
    if level is None:
        return [head for head in marked_parts if is_container(view, head, chapters)]
    title = same_words(view.source.title or "")
    above = [
        head for head in view.marked.values() if (head.level or level) < level and head.kind in ("title", "division")
    ]
    counts = Counter(head.level for head in above)
    is_own = not view.source.has_navigation  # a lone title at the top is the book's, if no navigation says otherwise
    return [
        head
        for head in above
        if is_container(view, head, chapters)
        and same_words(head.header) != title
        and not is_followed_by(view, head, head.level or 0)
        and not (is_own and head.kind == "title" and counts[head.level] == 1 and head.index < chapters[0].index)
    ]


def _add_divisions(view: View, outline: Outline, chapters: Family, parts: Family) -> None:
    """Parts: near the chapter that they begin with, or counting on, or with a text of their own."""
    starts = [head.index for head in chapters]
    divisions = {i: head for i, head in view.worded.items() if head.kind == "division" and i not in outline.heads}
    divisions |= {
        head.index: head for head in parts if head.index not in outline.heads and not _names_part(view, head, divisions)
    }
    last: dict[str, int] = {}
    counted = {(head.word, head.number) for head in divisions.values() if head.number is not None}
    for i, head in sorted(divisions.items()):
        if starts and i < starts[0] and _is_of_a_series(head, counted):
            continue
        following = next((start for start in starts if start > i), None)
        is_near = following is not None and view.words_between(i, following) <= MAX_EPIGRAPH_WORDS
        counts = head.number is not None and head.number == last.get(head.word, 0) + 1
        restarts = following is not None and outline.heads[following].number == 1
        if is_near or counts or restarts or head.level is not None:
            outline.heads[i] = head
            outline.parts.add(i)
            last[head.word] = head.number or 0


def _names_part(view: View, head: Head, divisions: dict[int, Head]) -> bool:
    """Whether a title stands directly below a part's heading that has none: `PART I`, `THE OLD BUCCANEER`."""
    above = next((i for i in range(head.index - 1, -1, -1) if view.fates[i] is None), None)
    return head.kind == "title" and head.level is None and above in divisions and not divisions[above].title


def _is_of_a_series(head: Head, counted: set[tuple[str, int]]) -> bool:
    """A part whose number nothing counts on from or to: "English Library, Vol. XII"."""
    if head.number is None or head.number <= 1:
        return False
    return not {(head.word, head.number + 1), (head.word, head.number - 1)} & counted


def _add_specials(view: View, outline: Outline) -> None:
    """Prologues, epilogues and the like: parts where a chapter follows at once, else chapters."""
    specials = [head for i, head in sorted(view.worded.items()) if head.kind == "special" and i not in outline.heads]
    starts = sorted(outline.heads)
    for head in specials:
        again = any(other.label == head.label and other.index > head.index for other in specials)
        if again and starts and head.index < starts[0]:
            continue  # a line of the contents: the epilogue does not come before the first chapter
        outline.heads[head.index] = head
        following = next((start for start in starts if start > head.index), None)
        if following is not None and _only_titles_between(view, head.index, following):
            outline.parts.add(head.index)


def _only_titles_between(view: View, first: int, last: int) -> bool:
    between = [i for i in range(first + 1, last) if view.fates[i] is None]
    return len(between) <= 2 and all(is_title(one_line(view.text(i)).rstrip(".")) for i in between)


def _add_untitled_works(view: View, outline: Outline) -> None:
    """Where numbers start over without a part's heading: the title above is that of a part or a work."""
    heads = [outline.heads[i] for i in sorted(outline.heads)]
    if sum(head.number == 1 for head in heads if head.index not in outline.parts) < 2:
        return
    live_before = dict(zip(view.live[1:], view.live, strict=False))
    for before, head in zip([None, *heads], heads, strict=False):
        above = live_before.get(head.index)
        if head.index in outline.parts or head.number != 1 or above is None or above in outline.heads:
            continue
        if before is not None and before.index in outline.parts:
            continue
        byline = above if BYLINE.fullmatch(one_line(view.short.get(above, ""))) else None
        above = live_before.get(above, above) if byline is not None else above
        text = one_line(view.short.get(above, ""))
        if is_title(text) and above not in view.worded and (above == 0 or view.source.gap_before(above) >= 1):
            outline.heads[above] = Head(index=above, kind="division", label="", title=text)
            outline.parts.add(above)
            outline.works[above] = text
            if byline is not None:
                view.fates[byline] = Fate.FRONT


def _collect_rejected(view: View, outline: Outline) -> None:
    candidates = {i: head for i, head in view.worded.items() if head.kind in ("chapter", "division")} | view.numbered
    outline.rejected = [
        head for i, head in sorted(candidates.items()) if i not in outline.heads and view.fates[i] is None
    ]
