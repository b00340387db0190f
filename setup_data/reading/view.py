"""A source with what every later step asks of it: live blocks, their words, and what they could be as headings."""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property
from itertools import accumulate

from setup_data.reading.headings import MAX_HEADING_CHARS, Head, number_head, one_line, worded_head
from setup_data.reading.numbers import fold
from setup_data.reading.source import Fate, Source

PAGE_AT_END = re.compile(r"(?:[ .\u2026_·-]{3,}|[ \t])[ \t]*(?:\d{1,4}|[ivxlc]{1,6})[ \t]*$|\.[ .]{3,}\d*$")
NOT_LETTERS = re.compile(r"[\W_]+")
LIST_START = re.compile(r"[ \t]*(?:\d{1,3}|[IVXLC]{1,7})[.:)\t ]")
MAX_LISTED_LINE_CHARS = 110
MAX_ENTRY_WORDS = 30
FIRST_LINES = 4


def same_words(text: str) -> str:
    """What two printings of one title share: letters and digits, in lower case."""
    return NOT_LETTERS.sub("", fold(text))


def ends_with_page(line: str) -> bool:
    """Whether a line ends like one of a contents table."""
    line = line.rstrip()
    return line[-1:] in "0123456789ivxlc." and bool(PAGE_AT_END.search(line))


class View:
    """The blocks of a source that are still part of the book, by index."""

    def __init__(self, source: Source, fates: list[Fate | None], words: list[int] | None = None) -> None:
        self.source = source
        self.fates = fates
        self.words = words or [len(source.text[block.start : block.end].split()) for block in source.blocks]

    def again(self) -> View:
        """The view after fates have changed."""
        view = View(self.source, self.fates, self.words)
        for name in ("short", "worded", "numbered"):  # these only lose what got a fate
            kept = {i: found for i, found in getattr(self, name).items() if self.fates[i] is None}
            view.__dict__[name] = kept
        return view

    @cached_property
    def live(self) -> list[int]:
        """The blocks without a fate when this is first asked."""
        return [index for index, fate in enumerate(self.fates) if fate is None]

    @cached_property
    def _words_before(self) -> list[int]:
        live = (words if fate is None else 0 for words, fate in zip(self.words, self.fates, strict=True))
        return list(accumulate(live, initial=0))

    def words_between(self, first: int, last: int) -> int:
        """The live words of the blocks after `first` and before `last`."""
        return self._words_before[last] - self._words_before[first + 1] if last > first else 0

    @cached_property
    def _prose_before(self) -> list[int]:
        live = (0 if fate or self.is_listing(i) else self.words[i] for i, fate in enumerate(self.fates))
        return list(accumulate(live, initial=0))

    def prose_between(self, first: int, last: int) -> int:
        """As `words_between`, without the lines of lists and tables."""
        return self._prose_before[last] - self._prose_before[first + 1] if last > first else 0

    @property
    def num_words(self) -> int:
        """All live words."""
        return self._words_before[-1]

    def share_before(self, index: int) -> float:
        """The share of the live words that stand before block `index`."""
        return self._words_before[index] / max(1, self.num_words)

    @cached_property
    def short(self) -> dict[int, str]:
        """The live blocks that are short enough for a heading, and may be one."""
        blocks = self.source.blocks
        return {
            i: self.text(i)
            for i in self.live
            if blocks[i].end - blocks[i].start <= MAX_HEADING_CHARS and not blocks[i].in_table
        }

    def text(self, index: int) -> str:
        """A block's text; a Markdown heading without its marks."""
        raw = self.source.raw(index)
        if self.source.is_markdown and self.source.blocks[index].level is not None:
            return re.sub(r"\n(=+|-+)[ \t]*$", "", raw).strip("#*_ \t\n")
        return raw

    @cached_property
    def worded(self) -> dict[int, Head]:
        """What the words of a block could make it: a chapter, a part, the contents ..."""
        levels = self.source.blocks
        found = {i: worded_head(i, text, levels[i].level) for i, text in self.short.items()}
        return {i: head for i, head in found.items() if head is not None}

    @cached_property
    def numbered(self) -> dict[int, Head]:
        """The blocks that are a number, or a number and a title."""
        levels = self.source.blocks
        rest = {i: text for i, text in self.short.items() if i not in self.worded}
        found = {i: number_head(i, text, levels[i].level) for i, text in rest.items()}
        return {i: head for i, head in found.items() if head is not None}

    @cached_property
    def title_counts(self) -> Counter[str]:
        """How often each short text comes."""
        return Counter(same_words(text) for text in self.short.values())

    @cached_property
    def marked(self) -> dict[int, Head]:
        """The headings that the format marks, whatever they say."""
        result = {}
        for i in self.live:
            block = self.source.blocks[i]
            if block.level is not None and (text := one_line(self.text(i))):
                title = Head(index=i, kind="title", label="", title=text, level=block.level)
                result[i] = self.worded.get(i) or self.numbered.get(i) or title
        return result

    def is_listing(self, index: int) -> bool:
        """Whether a block is lines of a list or table: short ones that begin with numbers or end with pages."""
        if self.source.blocks[index].in_table:
            return True
        if self.words[index] > MAX_ENTRY_WORDS and "\n" not in self.source.raw(index):
            return False
        raw = self.source.raw(index)
        first = raw.split("\n", FIRST_LINES)[:FIRST_LINES]
        if not any(LIST_START.match(line) or ends_with_page(line) for line in first):
            return False  # prose, in most cases
        lines = [line for line in raw.split("\n") if line.strip()]
        if any(len(line) > MAX_LISTED_LINE_CHARS for line in lines):
            return False
        listed = sum(bool(LIST_START.match(line)) or ends_with_page(line) for line in lines)
        return listed >= 0.6 * len(lines) and (len(lines) > 1 or ends_with_page(lines[0]))
