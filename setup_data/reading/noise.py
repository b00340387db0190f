"""What is no part of the story wherever it stands: licences, page numbers, footnotes, illustrations left open."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from setup_data.reading.chains import longest_count
from setup_data.reading.plain import PAGE_LINE
from setup_data.reading.source import Fate, Source

GUTENBERG_START = re.compile(
    r"\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG[^\n]*(?:\n[^\n*]+)?\*\*\*[^\n]*|\*END[* ]*THE SMALL PRINT![^\n]*",
    re.IGNORECASE,
)
GUTENBERG_END = re.compile(
    r"(?:^[ \t]*\*\*\*[* ]*END OF (?:THE|THIS) PROJECT GUTENBERG|^[ \t]*End of (?:the |this )?Project Gutenberg)[^\n]*",
    re.IGNORECASE | re.MULTILINE,
)
GUTENBERG_HEADER = re.compile(
    r"^[ \t]*(?:The )?Project Gutenberg(?:['’]s [A-Z]|(?:['’]s)? e-?(?:book|text)(?:,| of) )[^\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
NOTE_BODY = re.compile(r"[\[{](\d{1,4}|[A-Z])[\]}][ \t]*(?=\S)")
NOTE_MARKER = re.compile(r"(?<=\S)[ ]?[\[{](\d{1,4}|[A-Z])[\]}]")
NAMED_NOTE = re.compile(r"\[foot ?note[ ]*([\dA-Z]{0,4})", re.IGNORECASE)
GLUED_MARKER = re.compile(r"(?<=[^\W\d_])([.,;:!?…»\"”'’)]{0,3})(\d{1,4})(?![\d%]|[.,]\d|[-–]\d)")
STAR_BODY = re.compile(r"[*†‡][ \t]?(?=[^\W_])")
STAR_MARKER = re.compile(r"(?<=[\w.,;:!?\"”'’)])[*†‡](?![*\w])")
MIN_PAGES = 3
# Where this share of a book's lone numbers stand inside a sentence, they are page numbers.
MIN_INSIDE_SENTENCES = 0.25
MIN_GLUED_MARKERS = 5
SENTENCE_STOP = re.compile(r"[.!?…:;][\"'”’»)\]_]*$|[\"”»—-]$")


@dataclass(kw_only=True)
class Noise:
    """What is no story, and how a paragraph's note markers look."""

    fates: list[Fate | None]
    """For every block: why it is left out, or None."""
    works: list[int] = field(default_factory=list)
    """The block at which each Project Gutenberg text of the file begins."""
    markers: frozenset[str] = frozenset()
    """The numbers and letters of notes, whose `[12]` is cut out of the text."""
    glued: frozenset[str] = frozenset()
    """The numbers of notes that stand directly after a word."""
    starred: bool = False
    """Notes are marked with stars and daggers."""


def find_noise(source: Source) -> Noise:
    """Licences, notes and page numbers of the whole file."""
    noise = Noise(fates=[block.fate for block in source.blocks])
    _mark_licences(source, noise)
    _mark_notes(source, noise)
    _mark_glued_notes(source, noise)
    _mark_pages(source, noise)
    return noise


def _licence_ranges(text: str) -> tuple[list[tuple[int, int]], list[int]]:
    """The ranges that are no book, and where each text begins, its header included."""
    starts = [(*match.span(), True) for match in GUTENBERG_START.finditer(text)]
    ends = [(*match.span(), False) for match in GUTENBERG_END.finditer(text)]
    markers = sorted(starts + ends)
    ranges: list[tuple[int, int]] = []
    works: list[int] = []
    outside: int | None = 0  # where what is no book began; None inside of one
    if markers and not markers[0][2]:  # an end, and no start before it
        works, outside = [0], None
    for begin, end, is_start in markers:
        if is_start:
            ranges.append((begin if outside is None else outside, end))
            works.append(_header_start(text, ranges[-1][0], begin))
            outside = None
        elif outside is None:
            outside = begin
    if markers and outside is not None:
        ranges.append((outside, len(text)))
    return ranges, works


def _header_start(text: str, first: int, marker: int) -> int:
    """Where the header of the text begins whose start marker is at `marker`, below another's licence at `first`."""
    headers = list(GUTENBERG_HEADER.finditer(text, first, marker))
    return headers[-1].start() if headers else marker


def _mark_licences(source: Source, noise: Noise) -> None:
    if "utenberg" not in source.text and "UTENBERG" not in source.text and "SMALL PRINT" not in source.text:
        return
    ranges, works = _licence_ranges(source.text)
    for index, block in enumerate(source.blocks):
        if any(start <= block.start < end for start, end in ranges):
            noise.fates[index] = Fate.LICENCE
    ends = [block.end for block in source.blocks]
    noise.works = [min(bisect_right(ends, start), len(ends) - 1) for start in works]


def _live(noise: Noise) -> list[int]:
    return [index for index, fate in enumerate(noise.fates) if fate is None]


def _mark_notes(source: Source, noise: Noise) -> None:
    """Notes with a number in brackets: those whose marker is in the text."""
    text = source.text
    named = {match[1].upper() for match in NAMED_NOTE.finditer(text)} - {""} if "[" in text else set()
    bodies: dict[int, str] = {}
    for index in _live(noise):
        start = source.blocks[index].start
        if text[start : start + 1] in ("[", "{") and (match := NOTE_BODY.match(text, start)):
            bodies[index] = match[1]
        elif text[start : start + 1] in ("*", "†", "‡") and STAR_BODY.match(text, start):
            before = "\n".join(source.raw(i) for i in range(max(0, index - 3), index))
            if STAR_MARKER.search(before):
                noise.fates[index], noise.starred = Fate.NOTE, True
    if not bodies and not named:
        return
    body_starts = {source.blocks[index].start for index in bodies}
    seen = {match[1] for match in NOTE_MARKER.finditer(text) if match.start(1) - 1 not in body_starts}
    for index, name in bodies.items():
        if name in seen:
            noise.fates[index] = Fate.NOTE
    noise.markers = frozenset(seen & (set(bodies.values()) | named))


def _mark_glued_notes(source: Source, noise: Noise) -> None:
    """Note numbers directly after a word, if they count up and as many blocks begin with these numbers."""
    text = source.text
    digits = (match.start() for match in re.finditer(r"\d", text))
    near = (at for at in digits if not (before := text[at - 1 : at]).isspace() and not before.isdigit())
    matches = [GLUED_MARKER.search(text, max(0, at - 5), at + 8) for at in near]
    found = [int(match[2]) for match in matches if match]
    chain = {found[i] for i in longest_count(found, restarts=False)}
    if len(chain) < MIN_GLUED_MARKERS:
        return
    numbered = {}
    for index in _live(noise):
        block = source.blocks[index]
        head = source.text[block.start : min(block.end, block.start + 8)]
        if head[:1].isdigit() and (match := re.match(r"(\d{1,4})(?=\W|$)", head)):
            numbered[int(match[1])] = index
    bodies = chain & set(numbered)
    if len(bodies) < 0.6 * len(chain):
        return
    noise.glued = frozenset(map(str, chain))
    for number in bodies:
        noise.fates[numbered[number]] = Fate.NOTE


def is_inside_sentence(before: str, after: str) -> bool:
    return bool(after) and after.lstrip("\"'“‘«—-")[:1].islower() and not SENTENCE_STOP.search(before)


def interrupts(source: Source, live: Sequence[int], position: int) -> bool:
    """Whether the block at `live[position]` stands in the middle of a sentence."""
    if not 0 < position < len(live) - 1:
        return False
    return is_inside_sentence(source.raw(live[position - 1]), source.raw(live[position + 1]))


def page_numbers(source: Source, live: Sequence[int]) -> list[tuple[int, int]]:
    """(position in `live`, number) of the lone numbers in digits."""
    found = []
    for position, index in enumerate(live):
        block = source.blocks[index]
        is_lone = block.end - block.start < 16 and block.level is None and not block.name
        if is_lone and (match := PAGE_LINE.fullmatch(source.text, block.start, block.end)):
            found.append((position, int(match["number"])))
    return found


def _mark_pages(source: Source, noise: Noise) -> None:
    """Lone numbers that count up and stand inside of sentences."""
    live = _live(noise)
    found = page_numbers(source, live)
    if len(found) < MIN_PAGES:
        return
    chain = longest_count([number for _, number in found], restarts=False)
    inside = sum(interrupts(source, live, found[i][0]) for i in chain)
    if len(chain) >= MIN_PAGES and inside >= MIN_INSIDE_SENTENCES * len(chain):
        for i in chain:
            noise.fates[live[found[i][0]]] = Fate.PAGE
