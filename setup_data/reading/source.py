"""A book file as the reader sees it: its text, and the blocks that tile it.

Every word of the text lies in exactly one block, so that what becomes of the blocks is what becomes of the words.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from enum import StrEnum


class Fate(StrEnum):
    """What becomes of words of the source."""

    CHAPTER = "in a chapter"
    HEADING = "joined into a heading"
    CONTENTS = "contents table"
    LICENCE = "licence"
    FRONT = "front matter"
    BACK = "back matter"
    NOTE = "footnote"
    PAGE = "page number"
    ILLUSTRATION = "illustration"
    LIMIT = "beyond --max_chapters"


class AccountError(Exception):
    """Words of a source are neither in a chapter nor listed as left out: a fault of the reader, not of the book."""


# Around what markup marks as a note's reference or a page number inside a paragraph, and for a `<br>` (private-use
# characters; those of a file itself become U+FFFD).
NOTE_MARK, PAGE_MARK, MARK_END, LINE_BREAK = "\ue010", "\ue012", "\ue011", "\ue000"
WITHOUT_MARKS = str.maketrans(dict.fromkeys((NOTE_MARK, PAGE_MARK, MARK_END, LINE_BREAK), "\ufffd"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A paragraph or a heading: a range of the source's text."""

    start: int
    end: int
    level: int | None = None
    """1 (outermost) to 6 or more for a heading that the format marks."""
    fate: Fate | None = None
    """Set where the format itself says that this is no part of the story."""
    in_table: bool = False
    """A row of a table: never a heading."""
    is_list: bool = False
    """Its lines are headings: a contents table in one paragraph."""
    name: str = ""
    """How the navigation document calls a place that has no heading; such a block has no words of its own."""
    line: int = 0
    """Where it is in the file, where that cannot be counted in the text (HTML)."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A book file: decoded text, blocks in reading order."""

    text: str
    blocks: list[Block]
    title: str | None = None
    """The title that the file gives itself, if any."""
    assumed: tuple[str, ...] = ()
    """What the reader had to assume, for the report: an encoding, a repaired byte."""
    files: tuple[tuple[int, str], ...] = ()
    """(offset, name) of each file inside an EPUB."""
    has_navigation: bool = False
    """Whether the blocks' levels are those of a navigation document."""
    is_markdown: bool = False
    wrapped: bool = False
    """Whether line breaks may be those of a page's width (plain text), not the author's (HTML's <br>)."""

    def raw(self, index: int) -> str:
        """The text of block `index`, as the source has it."""
        block = self.blocks[index]
        return self.text[block.start : block.end] if block.end > block.start else block.name

    def gap_before(self, index: int) -> int:
        """How many blank lines are above block `index`."""
        start = self.blocks[index - 1].end if index else 0
        return max(0, self.text.count("\n", start, self.blocks[index].start) - 1)

    def place(self, index: int) -> str:
        """Where block `index` is: `line 120`, or `line 12 of ch2.xhtml`."""
        block = self.blocks[index]
        line = block.line or self.text.count("\n", 0, block.start) + 1
        if not self.files:
            return f"line {line:,}"
        at = bisect_right([offset for offset, _ in self.files], block.start) - 1
        return f"line {line:,} of {self.files[max(0, at)][1]}"
