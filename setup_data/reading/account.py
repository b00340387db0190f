"""The word-for-word account of a book: what became of every word of the source, checked against the source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from setup_data.book import Chapter
from setup_data.reading.clean import Cleaner
from setup_data.reading.cut import Section
from setup_data.reading.source import AccountError, Fate, Source
from setup_data.reading.view import View

MIN_STRETCH_WORDS = 100
FIRST_WORDS = 12
WINDOW_CHARS = 1 << 20
KEPT = (None, Fate.CHAPTER, Fate.HEADING)
MAX_INTERRUPTION_WORDS = 5


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Consecutive words that are left out for one reason."""

    fate: Fate
    num_words: int
    place: str
    first_words: str


@dataclass(frozen=True, kw_only=True)
class Account:
    """Where the words of a source went."""

    num_source_words: int
    """A word that is cut in two, as that of `[Illustration]The`, counts as two."""
    words: dict[Fate, int]
    """Words of the source by what became of them; they sum to `num_source_words`."""
    num_joined: int
    """Words in chapters whose halves were two words of the source, at a line's end."""
    stretches: tuple[Stretch, ...]
    """What is left out in one piece of more than 100 words."""

    @property
    def num_left_out(self) -> int:
        """Words that are neither in a chapter nor in a heading."""
        return self.num_source_words - self.words.get(Fate.CHAPTER, 0) - self.words.get(Fate.HEADING, 0)


def count_words(text: str) -> int:
    """`len(text.split())`, without holding all words at once."""
    count, start = 0, 0
    while start < len(text):
        end = min(len(text), start + WINDOW_CHARS)
        while end < len(text) and not text[end].isspace():
            end += 1
        count += len(text[start:end].split())
        start = end
    return count


def _runs(view: View) -> Iterator[tuple[Fate, list[int]]]:
    """Blocks that are left out for one reason, up to the next that is kept or left out for another.

    A few words with another reason, as a page number, do not end a run.
    """
    run: list[int] = []
    reason: Fate | None = None
    for index, fate in enumerate(view.fates):
        is_left_out = fate not in KEPT
        if reason is not None and fate != reason and (not is_left_out or view.words[index] > MAX_INTERRUPTION_WORDS):
            yield reason, run
            run, reason = [], None
        if is_left_out and reason in (None, fate):
            reason = fate
            run.append(index)
    if reason is not None:
        yield reason, run


def _stretches(view: View) -> Iterator[Stretch]:
    """What is left out in pieces of more than 100 words."""
    for fate, run in _runs(view):
        num_words = sum(view.words[i] for i in run)
        if num_words > MIN_STRETCH_WORDS:
            words = [word for i in run[:FIRST_WORDS] for word in view.source.raw(i).split()[:FIRST_WORDS]]
            first_words = " ".join(words[:FIRST_WORDS])
            yield Stretch(fate=fate, num_words=num_words, place=view.source.place(run[0]), first_words=first_words)


def _cut_words(source: Source) -> int:
    """How many words more there are for a bracket or a heading that is cut off from what it is glued to."""
    starts = (block.start for block in source.blocks if block.end > block.start > 0)
    return sum(not source.text[start - 1].isspace() for start in starts)


def settle(
    source: Source, view: View, sections: Sequence[Section], chapters: Sequence[Chapter], cleaner: Cleaner
) -> Account:
    """The account of a book that was read.

    Raises:
        AccountError: the words of chapters, headings and what is left out do not sum to the source's.
    """
    words: Counter[Fate] = Counter()
    for index, fate in enumerate(view.fates):
        if fate is None and view.words[index]:
            raise AccountError(
                f"block {index} ({source.place(index)}) is in no chapter and has no reason to be left out"
            )
        if fate is not None:
            words[fate] += view.words[index]
    in_sections = sum(view.words[i] for section in sections for i in section.blocks)
    if in_sections != words[Fate.CHAPTER]:
        raise AccountError(f"the chapters have {in_sections:,} words, {words[Fate.CHAPTER]:,} are marked as theirs")
    in_chapters = sum(chapter.num_words for chapter in chapters)
    taken_out = sum(cleaner.removed.values())
    if in_chapters + taken_out + cleaner.num_joined != in_sections:
        raise AccountError(
            f"the chapters as written have {in_chapters:,} words, with {taken_out:,} taken out and "
            f"{cleaner.num_joined:,} joined; their paragraphs have {in_sections:,}"
        )
    words[Fate.CHAPTER] -= taken_out
    words += cleaner.removed
    total = count_words(source.text) + _cut_words(source)
    if words.total() != total:
        raise AccountError(f"{words.total():,} words are accounted for, the source has {total:,}")
    return Account(
        num_source_words=total,
        words={fate: words[fate] for fate in Fate if words[fate]},
        num_joined=cleaner.num_joined,
        stretches=tuple(_stretches(view)),
    )
