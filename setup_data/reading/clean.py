"""A block as it goes into a chapter: lines joined, marks of notes, pages and italics out, every lost word counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from setup_data.reading.noise import GLUED_MARKER, STAR_MARKER, Noise, is_inside_sentence
from setup_data.reading.numbers import parse_number
from setup_data.reading.source import MARK_END, NOTE_MARK, PAGE_MARK, Fate, Source

# Shorter lines than this are verse, addresses or lists, whose line breaks belong to the text.
WRAPPED_LINE_CHARS = 50
WRAPPED_LINE_SHARE = 0.65
MAX_SHORT_LINE_SHARE = 0.1
VOCABULARY_CHARS = 4_000_000
LINE_END_HYPHEN = re.compile(r"([^\W\d_]+['’]?)[-‐\xad]\n[ \t]*([^\W\d_]+)")
ITALICS = re.compile(r"(?<![\w_])_(?=[^\s_])|(?<=[^\s_])_(?![\w_])")
MARKDOWN_EMPHASIS = re.compile(r"(?<![\w*])\*{1,3}(?=[^\s*])|(?<=[^\s*])\*{1,3}(?![\w*])")
BRACKETED_PAGE = re.compile(r"[ ]?(?:\[(?:pg?|page)\.?\s?[\divxlc]{1,6}\]|\{\d{1,4}\})", re.IGNORECASE)
BRACKETED_ASIDE = re.compile(r"[ ]?\[(?:illustration|frontispiece)\b[^\]]{0,400}\]", re.IGNORECASE)
NUMBERED_MARKER = re.compile(r"[ ]?[\[{](\d{1,4}|[A-Z])[\]}]")
MARKED_NOTE = re.compile(f"[ ]?{NOTE_MARK}[^{MARK_END}]*{MARK_END}")
MARKED_PAGE = re.compile(f"{PAGE_MARK}[^{MARK_END}]*{MARK_END}")


@dataclass(kw_only=True)
class Cleaner:
    """Cleans the blocks of one book, and counts what that costs in words."""

    source: Source
    noise: Noise
    removed: Counter[Fate] = field(default_factory=Counter)
    """Words taken out of paragraphs, by reason."""
    num_joined: int = 0
    """Words lost because two halves became one: `extra-` and `ordinary`."""

    @cached_property
    def _line_chars(self) -> int:
        """From which length on a line counts as full."""
        lengths = sorted(len(line) for line in self.source.text[:400_000].split("\n") if line.strip())
        width = lengths[int(0.9 * len(lengths))] if lengths else 0
        return min(WRAPPED_LINE_CHARS, int(WRAPPED_LINE_SHARE * width))

    @cached_property
    def _vocabulary(self) -> frozenset[str]:
        text = LINE_END_HYPHEN.sub(" ", self.source.text[:VOCABULARY_CHARS])
        return frozenset(re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", text.lower()))

    def paragraph(self, raw: str) -> str:
        """One block's text."""
        text = self._cut_out(raw.strip())
        if "\n" in text:
            text = self._mended(text) if self.source.wrapped else text
            text = " ".join(_lines(text)) if self._is_wrapped(text) else "\n".join(_lines(text))
        if "_" in text:
            text = ITALICS.sub("", text)
        if self.source.is_markdown:
            text = re.sub(r"^\\#", "#", MARKDOWN_EMPHASIS.sub("", text), flags=re.MULTILINE)
        return text

    def chapter(self, blocks: Iterable[int], fates: list[Fate | None]) -> str:
        """The paragraphs of a chapter. A sentence that a page or a picture interrupts is put together again."""
        paragraphs: list[str] = []
        last: int | None = None
        for index in blocks:
            if self.source.blocks[index].name:
                continue  # what the navigation calls a place is no word of the book
            text = self.paragraph(self.source.raw(index))
            if not text:
                continue
            cuts = range(last + 1, index) if last is not None else ()
            interrupted = len(cuts) > 0 and all(fates[i] in (Fate.PAGE, Fate.ILLUSTRATION, Fate.NOTE) for i in cuts)
            if interrupted and is_inside_sentence(paragraphs[-1], text):
                paragraphs[-1] = " ".join(_lines(self._mended(f"{paragraphs[-1]}\n{text}")))
            else:
                paragraphs.append(text)
            last = index
        return "\n\n".join(paragraphs)

    def _cut_out(self, text: str) -> str:
        if NOTE_MARK in text:
            text = self._without(text, MARKED_NOTE, Fate.NOTE)
        if PAGE_MARK in text:
            text = self._without(text, MARKED_PAGE, Fate.PAGE)
        if "[" in text or "{" in text:
            text = self._without(text, BRACKETED_ASIDE, Fate.ILLUSTRATION)
            text = self._without(text, BRACKETED_PAGE, Fate.PAGE)
            if self.noise.markers:
                text = self._without(text, NUMBERED_MARKER, Fate.NOTE, names=self.noise.markers)
        if self.noise.glued and any(char.isdigit() for char in text):
            text = GLUED_MARKER.sub(lambda match: match[1] if match[2] in self.noise.glued else match[0], text)
        if self.noise.starred and any(star in text for star in "*†‡"):
            text = STAR_MARKER.sub("", text)
        return text.strip()

    def _without(self, text: str, pattern: re.Pattern[str], fate: Fate, *, names: frozenset[str] | None = None) -> str:
        """`text` without what matches (of `names`, if given), its words counted."""

        def replacement(match: re.Match[str]) -> str:
            if names is not None and match[1] not in names:
                return match[0]
            return " " if match[0][0] == " " and text[match.end() : match.end() + 1].isalnum() else ""

        result = pattern.sub(replacement, text)
        if result != text:
            self.removed[fate] += len(text.split()) - len(result.split())
        return result

    def _is_wrapped(self, text: str) -> bool:
        """Whether the line breaks are those of a page's width. In HTML a line break is always meant."""
        if not self.source.wrapped:
            return False
        lines = text.split("\n")[:-1]
        short = sum(len(line.strip()) < self._line_chars for line in lines)
        return short == 0 or (len(lines) >= 6 and short <= MAX_SHORT_LINE_SHARE * len(lines))

    def _mended(self, text: str) -> str:
        """`text` with words whole again that were broken at a line's end."""
        if "-\n" in text or "‐\n" in text:
            num_words = len(text.split())
            text = LINE_END_HYPHEN.sub(self._mend, text)
            self.num_joined += num_words - len(text.split())
        return text

    def _mend(self, match: re.Match[str]) -> str:
        """`extraordinary`, but `well-known` where the book writes it so, or only so."""
        whole, hyphened = f"{match[1]}{match[2]}".lower(), f"{match[1]}-{match[2]}".lower()
        text, start, end = match.string, match.start(), match.end()
        goes_on = text[start - 1 : start] == "-" or text[end : end + 1] == "-"  # mother-in-law, cat-o'-nine-tails
        if goes_on or not match[1][-1].isalpha() or parse_number(hyphened) is not None:
            return f"{match[1]}-{match[2]}"
        keeps = match[2][0].isupper() or (hyphened in self._vocabulary and whole not in self._vocabulary)
        if whole not in self._vocabulary and {match[1].lower(), match[2].lower()} <= self._vocabulary:
            keeps = True  # two words of the book: a compound
        return f"{match[1]}-{match[2]}" if keeps else f"{match[1]}{match[2]}"


def _lines(text: str) -> list[str]:
    return [line for raw in text.split("\n") if (line := raw.strip())]
