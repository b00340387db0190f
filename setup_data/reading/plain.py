"""Plain text and Markdown as blocks: paragraphs, headings, and lines that stand for themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from setup_data.reading.decode import Decoded
from setup_data.reading.headings import is_heading, listed_heads, may_be_heading, number_head, worded_head
from setup_data.reading.source import Block, Fate, Source

CHUNK = re.compile(r"[^\n]*\S[^\n]*(?:\n[^\n]*\S[^\n]*)*")  # lines up to a blank one
# Longer lines than this are not wrapped: each is a paragraph.
UNWRAPPED_CHARS = 120
MIN_UNWRAPPED_SHARE = 0.1
SAMPLE_LINES = 20_000
# What is split off in front of a paragraph as its heading is followed by at least as much text.
MIN_RUN_IN_CHARS = 100
RUN_IN = re.compile(
    r"(?:CHAPTER|Chapter|CHAPITRE|KAPITEL|Kapitel|ГЛАВА|Глава)[ ]+[\w-]{1,20}[ ]?(?:[.:][ ]*(?:—|--)?|—|--)[ ]*(?=\S)"
)
BRACKETED = re.compile(r"[ \t]*\[(illustration|frontispiece|picture|sidenote|foot ?note)\b", re.IGNORECASE)
MAX_BRACKET_CHARS = 4000
STOP_AFTER_BRACKET = re.compile(r"(?:[.,;:]+(?=\s|\Z))?")
LEADERS = re.compile(r"(?:[ .\u2026_·-]{3,}|[ \t]{2,})[ \t]*(?:\d{1,4}|[ivxlc]{1,6})[ \t]*$|\.[ .]{3,}\d*$")
# 12, - 12 -, [12], page 12
PAGE_LINE = re.compile(
    r"[ \t]*(?:(?P<open>[\[({])|(?P<dash>[-–—*])[ ]?)?(?:(?:pg?|page)\.?[ ]?)?(?P<number>\d{1,4})"
    r"(?(open)[\])}]|(?(dash)[ ]?[-–—*]|))[ \t]*",
    re.IGNORECASE,
)
NUMBER_LINE = re.compile(r"^[^\n]{0,10}\d[^\n]{0,4}$", re.MULTILINE)
MARKED_PAGE = re.compile(r"[ \t]*(?:\[(?:pg?|page)\.?[ \t]*[\divxlc]{1,6}\]|\{\d{1,4}\})[ \t]*", re.IGNORECASE)
GUTENBERG_TITLE = re.compile(r"^Title:[ \t]*(.+)$", re.MULTILINE)
MARKDOWN_HEADING = re.compile(r"(#{1,6})[ \t]+\S[^\n]*")
SETEXT = re.compile(r"[^\n]*\S[^\n]*\n(=+|-{3,})[ \t]*")
FRONT_MATTER = re.compile(r"\A\s*---\n.*?\n---(?=\n|\Z)", re.DOTALL)

Range = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the file marks its paragraphs, beside blank lines."""

    by_line: bool
    """Lines are not wrapped: each is a paragraph."""
    by_indent: bool
    """An indented line begins one."""


def find_layout(text: str) -> Layout:
    """Counts long lines, and indented lines that follow a line without a blank one between."""
    sample = text[: SAMPLE_LINES * 60]
    lines = [line for line in sample.split("\n") if line.strip()]
    long = sum(len(line) > UNWRAPPED_CHARS for line in lines)
    num_paragraphs = sum("\n" in chunk[0] for chunk in CHUNK.finditer(sample))
    inner_starts = len(re.findall(r"(?<=\n)(?! )[^\n]*\S[^\n]*\n(?=[ \t]{1,8}\S)", sample))
    by_line = long > MIN_UNWRAPPED_SHARE * len(lines)
    return Layout(by_line=by_line, by_indent=not by_line and inner_starts >= max(1, num_paragraphs))


def _trim(text: str, start: int, end: int) -> Range:
    """The range without white space at its ends."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _lines(text: str, start: int, end: int) -> Iterator[Range]:
    """The line ranges of a chunk, without their line ends."""
    while start < end:
        stop = text.find("\n", start, end)
        stop = end if stop < 0 else stop
        yield start, stop
        start = stop + 1


def _cut_at(text: str, start: int, end: int, starts: Iterable[int]) -> list[Range]:
    points = [start, *(point for point in starts if start < point < end), end]
    return [trimmed for a, b in pairwise(points) if (trimmed := _trim(text, a, b)) != (b, b)]


def _breaks_word(text: str, start: int) -> bool:
    """Whether the line before ends within a word."""
    return text[max(0, start - 2) : start] == "-\n" and text[start - 3].isalpha() and text[start : start + 1].islower()


def _indented_starts(text: str, start: int, end: int) -> Iterator[int]:
    """Where an indented line begins, or a heading at the margin that an indented line follows."""
    lines = list(_lines(text, start, end))
    for (a, b), (following, _) in pairwise([*lines, (end, end)]):
        is_before_indent = following < end and text[following] in " \t"
        if text[a] in " \t" or (is_before_indent and is_heading(text[a:b])):
            yield a


def _paragraphs(text: str, chunk: Range, layout: Layout) -> list[Range]:
    """A chunk's paragraphs, where blank lines are not what separates them."""
    start, end = chunk
    if layout.by_line and any(b - a > UNWRAPPED_CHARS for a, b in _lines(text, start, end)):
        starts = [a for a, _ in _lines(text, start, end)]
        return _cut_at(text, start, end, [a for a in starts if not _breaks_word(text, a)])
    if layout.by_indent:
        return _cut_at(text, start, end, _indented_starts(text, start, end))
    return [_trim(text, start, end)]


def _bracket_end(text: str, start: int) -> int | None:
    """The end of the bracket that opens at `start`, if it closes within reason."""
    depth = 0
    for bracket in re.compile(r"[\[\]]").finditer(text, start, start + MAX_BRACKET_CHARS):
        depth += 1 if bracket[0] == "[" else -1
        if depth == 0:
            return STOP_AFTER_BRACKET.match(text, bracket.end()).end()  # type: ignore[union-attr]
    return None


def _bracket_fate(name: str) -> Fate:
    return Fate.NOTE if name.lower().startswith(("side", "foot")) else Fate.ILLUSTRATION


def find_brackets(text: str) -> list[tuple[int, int, Fate]]:
    """`[Illustration: ...]`, `[Footnote 3: ...]` and the like that begin a line, over as many lines as they take."""
    found: list[tuple[int, int, Fate]] = []
    if "[" not in text:
        return found
    for match in re.compile(BRACKETED.pattern, re.IGNORECASE | re.MULTILINE).finditer(text):
        start = match.end() - len(match[0].lstrip())
        at_line_start = start == 0 or not text[text.rfind("\n", 0, start) + 1 : start].strip()
        if at_line_start and (not found or start >= found[-1][1]) and (end := _bracket_end(text, start)):
            found.append((start, end, _bracket_fate(match[1])))
    return found


def _leading_heading(text: str, start: int, end: int) -> int | None:
    """Where the text begins that follows a heading without a blank line, if the paragraph begins with a heading."""
    line_end = text.find("\n", start, end)
    if line_end < 0 or line_end - start > 100:
        return _run_in_heading(text, start, end)
    rest_start, rest_end = _trim(text, line_end, end)
    first = text[start:line_end]
    if not may_be_heading(first):
        return None
    if PAGE_LINE.fullmatch(first):
        return rest_start
    second = text[rest_start:rest_end].split("\n", 1)[0]
    if LEADERS.search(first.rstrip()) or LEADERS.search(second.rstrip()):
        return None  # a contents table
    head = worded_head(0, first)
    if head is None or head.kind not in ("chapter", "division", "special"):
        head = number_head(0, first)
        if head is None or (head.title and head.style == "digit"):
            return _run_in_heading(text, start, end)
    is_text = rest_end - rest_start >= MIN_RUN_IN_CHARS or text[rest_end - 1] in '.!?…"”’»'
    return rest_start if is_text and (not head.title or rest_end - rest_start >= MIN_RUN_IN_CHARS) else None


def _run_in_heading(text: str, start: int, end: int) -> int | None:
    """`CHAPTER I. It was a dark night ...`: where the sentence begins."""
    if text[start] not in "CKckГг":
        return None
    match = RUN_IN.match(text, start, end)
    if match is None or end - match.end() < MIN_RUN_IN_CHARS or worded_head(0, text[start:end]):
        return None
    head = worded_head(0, match[0])
    return match.end() if head and head.kind == "chapter" else None


def _inner_page_lines(text: str, start: int, end: int) -> list[int]:
    """Cuts around lines inside a paragraph that are a page number and nothing else."""
    lines = (match.span() for match in NUMBER_LINE.finditer(text, start, end))
    return [cut for a, b in lines if PAGE_LINE.fullmatch(text, a, b) for cut in (a, b)]


def _blocks_of(text: str, chunk: Range, layout: Layout) -> Iterator[Block]:
    for start, end in _paragraphs(text, chunk, layout):
        parts = [(start, end)]
        line_end = text.find("\n", start, end)
        if line_end > 0 and not text[line_end + 1].islower() and listed_heads(text[start:end]):
            yield Block(start=start, end=end, is_list=True)  # its numbers are no pages, its lines no headings
            continue
        if line_end > 0 and (cuts := _inner_page_lines(text, start, end)):
            parts = _cut_at(text, start, end, cuts)
        for a, b in parts:
            while (rest := _leading_heading(text, a, b)) is not None and a < rest < b:
                yield Block(start=a, end=_trim(text, a, rest)[1])
                a = rest
            fate = Fate.PAGE if b - a < 16 and MARKED_PAGE.fullmatch(text, a, b) else None
            yield Block(start=a, end=b, fate=fate)


def plain_blocks(text: str, *, start: int = 0) -> list[Block]:
    """The paragraphs of plain text, with what is bracketed off as an illustration or a note as blocks of its own."""
    layout = find_layout(text)
    blocks: list[Block] = []
    position = start
    for bracket_start, bracket_end, fate in [*find_brackets(text), (len(text), len(text), Fate.NOTE)]:
        for chunk in CHUNK.finditer(text, position, bracket_start):
            blocks += _blocks_of(text, chunk.span(), layout)
        if bracket_end > bracket_start:
            blocks.append(Block(start=bracket_start, end=bracket_end, fate=fate))
        position = bracket_end
    return blocks


def read_plain(decoded: Decoded) -> Source:
    """A plain text file."""
    title = GUTENBERG_TITLE.search(decoded.text[:5000])
    return Source(
        text=decoded.text,
        blocks=plain_blocks(decoded.text),
        title=title[1].strip() if title else None,
        assumed=decoded.assumed,
        wrapped=True,
    )


def _markdown_parts(text: str, block: Block) -> Iterator[Block]:
    """A block with its headings cut out; the other lines between two of them are one paragraph."""
    start = block.start
    for a, b in _lines(text, block.start, block.end):
        next_end = text.find("\n", b + 1, block.end)
        setext = SETEXT.fullmatch(text, a, block.end if next_end < 0 else next_end) if b < block.end else None
        hashes = MARKDOWN_HEADING.fullmatch(text, a, b)
        if a < start or not (hashes or (setext and start == a)):
            continue
        if start < a and _trim(text, start, a)[0] < a:
            yield replace(block, start=start, end=_trim(text, start, a)[1])
        stop = b if hashes or setext is None else setext.end()
        level = len(hashes[1]) if hashes else (1 if setext and setext[1][0] == "=" else 2)
        yield replace(block, start=_trim(text, a, stop)[0], end=_trim(text, a, stop)[1], level=level)
        start = min(stop + 1, block.end)
    if _trim(text, start, block.end)[0] < block.end:
        yield replace(block, start=_trim(text, start, block.end)[0])


def read_markdown(decoded: Decoded) -> Source:
    """A Markdown file: plain text with headings; what stands between `---` lines at its top is no text."""
    text = decoded.text
    front = FRONT_MATTER.match(text)
    blocks = plain_blocks(text, start=front.end() if front else 0)
    blocks = [part for block in blocks for part in (_markdown_parts(text, block) if block.fate is None else [block])]
    if front:
        start, end = _trim(text, 0, front.end())
        blocks.insert(0, Block(start=start, end=end, fate=Fate.FRONT))
    titles = [block for block in blocks if block.level == 1]
    title = text[titles[0].start : titles[0].end].split("\n")[0].strip("#*_ \t") if len(titles) == 1 else None
    return Source(text=text, blocks=blocks, title=title, assumed=decoded.assumed, is_markdown=True, wrapped=True)
