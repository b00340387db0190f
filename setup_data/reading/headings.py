"""What one block of a book says: a chapter, a part, a number, a prologue, the contents, or nothing of the kind.

Whether it *is* that, the book as a whole decides (choose.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from setup_data.reading.number_words import number_words
from setup_data.reading.numbers import LAST, Number, Style, fold, number_at
from setup_data.reading.wording import CHAPTER_WORDS, DIVISION_WORDS, SPECIAL_WORDS, Kind, plain_kind

MAX_HEADING_CHARS = 200
MAX_TITLE_CHARS = 90
MAX_TITLE_WORDS = 16
MAX_SMALL_TITLE_WORDS = 8
MAX_LISTED_LINE_CHARS = 110
MIN_LISTED_LINES = 3
MIN_LISTED_SHARE = 0.8

SMALL_WORDS = frozenset(
    "a an and as at but by for from in into nor of on or over that the to under upon with without vs is "
    "de la le les du des et un une en au aux à der die das und ein eine von zu im am el los las y del "
    " di il lo gli e o da "
    "do dos das na no van het een и в на о с у к".split()
)
SENTENCE_END = re.compile(r"[.,;:!?…][\"'”’»)_]*$")
ORNAMENT = " \t~*=_#•·|+<>❦⁂†°^-—–"
SEPARATOR = re.compile(r"[ ]*(?:[.:;)\]]+[ ]*[—–-]*|[—–-]+)[ ]*\n?[ ]*|[ ]*\n\s*")
NUMBER_SIGN = re.compile(r"\A(?:§+|No\.?|N[°º]\.?|Nr\.?|№|#)[ ]*(?=[\dIVXLC])")
GLUED_HYPHEN = re.compile(r"-(?=[^\W\d_])")
TITLE_MARK = re.compile(r"[:—–-]")
WORD_AFTER = re.compile(r"[ ][^\W\d_]")
COMMA = re.compile(r"[ ]*,\s*")
DESCRIPTION = re.compile(r"(?:in which|wherein|containing|being|where|how|of|concerning|dans lequel|о том)\b", re.I)
# ". . . . 12" and "      12": a contents table's line
LEADER = re.compile(r"[ \t]*(?:(?:[.\u2026·_][ ]?){3,}[ \t]*\d{0,4}|[ \t]{3,}\d{1,4})[ \t]*$")
WORD = re.compile(r"[^\W\d_]+")
TITLE_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")  # of "Sea-dog" only the first letter counts


@dataclass(frozen=True, kw_only=True)
class Head:
    """A block that may be a heading."""

    index: int
    """Which block."""
    kind: Kind
    label: str
    """As printed, without its title: `CHAPTER IV`."""
    title: str = ""
    word: str = ""
    """The name of its keyword, the same in all languages; empty for a number or a title alone."""
    number: int | None = None
    style: Style | None = None
    level: int | None = None
    """The level of a heading that the format marks."""

    @property
    def header(self) -> str:
        """Label and title, as the chapter's heading shows them."""
        if not self.title:
            return self.label
        return (
            f"{self.label}: {self.title}"
            if self.kind != "number" and self.label
            else f"{self.label} {self.title}".strip()
        )


def one_line(text: str) -> str:
    """`text` with its white space single, as headings are written into the book."""
    return " ".join(text.split())


def is_title(text: str) -> bool:
    """Whether `text` reads as a title: short, one line, capitals on its words, not a sentence."""
    if not text or len(text) > MAX_TITLE_CHARS or "\n" in text or text[0] in "\"'“‘(*[«":
        return False
    words = TITLE_WORD.findall(text)
    if not words:
        return False
    if text.isupper():
        return True
    if SENTENCE_END.search(text) and not text.endswith(("?", "!")):
        return False
    return words[0][0].isupper() and all(w[0].isupper() or w.lower() in SMALL_WORDS or len(w) == 1 for w in words)


def is_titleish(text: str) -> bool:
    """As `is_title`, but sentence case, quotes and a second line will do: what may follow a number and a stop."""
    text = one_line(text).strip("_ ")
    if not text or len(text) > MAX_TITLE_CHARS or len(text.split()) > MAX_TITLE_WORDS:
        return False
    if text.isupper() or is_title(text.rstrip(".").strip("\"'“”‘’«»")):
        return True
    return text[0].isupper() or text[0] in "\"“‘«'" or text[0].isdigit() if not SENTENCE_END.search(text) else False


def clean_title(text: str) -> str:
    """A title as headings show it: one line, without marks of italics, leaders and a last stop."""
    return one_line(text).strip("_*~= ").rstrip(" .]") if text.strip() else ""


def _clean_label(text: str) -> str:
    return one_line(text).strip(ORNAMENT).rstrip(" .:;,—–-")


def _title_after(text: str, end: int) -> str | None:
    """The title after a number that ends at `end`; "" where there is none, None where a sentence goes on."""
    rest = text[end:].strip(ORNAMENT + ".:;,)]\n")
    if not rest:
        return ""
    if separator := SEPARATOR.match(text, end):
        title = text[separator.end() :].strip()
        too_long = len(title) > MAX_TITLE_CHARS and SENTENCE_END.search(title)
        lower_sentence = title[0].islower() and (SENTENCE_END.search(title) or len(title.split()) > MAX_TITLE_WORDS)
        return None if too_long or lower_sentence else title
    if comma := COMMA.match(text, end):
        title = text[comma.end() :].strip()
        return (
            title if is_title(title.rstrip(".")) or title.rstrip(" .").isdigit() or DESCRIPTION.match(title) else None
        )
    title = text[end:].strip()
    bare = title.strip("\"'“”‘’«»").rstrip(".")
    return title if is_title(bare) and text[end].isspace() else None


def _keyword_kind(word: str) -> tuple[Kind, str] | None:
    if word in CHAPTER_WORDS:
        return "chapter", CHAPTER_WORDS[word]
    if word in DIVISION_WORDS:
        return "division", DIVISION_WORDS[word]
    return ("special", SPECIAL_WORDS[word]) if word in SPECIAL_WORDS else None


def _numbered_head(index: int, text: str, level: int | None) -> Head | None:
    """`Chapter IV`, `PART THE FIRST: Rain`, `Erstes Kapitel`, `SECOND EPILOGUE: 1813`."""
    first = WORD.match(text)
    found = _keyword_kind(fold(first[0])) if first else None
    if found and first:
        start = re.compile(r"\.?[ \n]*[ \n—–:-]*[ \n]*").match(text, first.end())
        number = number_at(text, start.end() if start else first.end())
        end = number.end if number else 0
        if number and number.style == "word" and start and TITLE_MARK.search(start[0]) and WORD_AFTER.match(text, end):
            return None  # Epilogue: Ten Years After
    else:
        number = number_at(text)
        if number is None or (
            number.style == "digit" and text[: number.end].isdigit() and text[number.end : number.end + 1] != "."
        ):
            return None
        second = WORD.match(text, re.compile(r"\.?[ -]*").match(text, number.end).end())  # type: ignore[union-attr]
        found = _keyword_kind(fold(second[0])) if second else None
        end = second.end() if second else 0
    if not found or number is None or (title := _title_after(text, end)) is None:
        return None
    kind, word = found
    return Head(
        index=index, kind=kind, word=word, number=number.value, style=number.style, level=level,
        label=_clean_label(text[:end]), title=clean_title(title),
    )  # fmt: skip


def _special_head(index: int, text: str, level: int | None) -> Head | None:
    """`PROLOGUE`, `Epilogue: Ten Years After`."""
    first = WORD.match(text)
    word = SPECIAL_WORDS.get(fold(first[0])) if first else None
    if word is None or first is None or (title := _title_after(text, first.end())) is None:
        return None
    if title and not is_title(title.rstrip(".")) and not title[0].isdigit():
        return None
    return Head(
        index=index, kind="special", word=word, level=level, label=_clean_label(first[0]), title=clean_title(title)
    )


def _lists_several(text: str) -> bool:
    """Whether a later line is a heading, too: a contents table."""
    if "\n" not in text:
        return False
    lines = [line for line in text.split("\n")[1:] if may_be_heading(line)]
    return any(worded_head(0, line) or number_head(0, line) for line in lines)


def is_heading(line: str) -> bool:
    """Whether a line says that it is a chapter, a part, a prologue or a number."""
    return _story_head(line) is not None


def _story_head(line: str) -> Head | None:
    head = (worded_head(0, line) or number_head(0, line)) if may_be_heading(line) else None
    return head if head and head.kind in ("chapter", "division", "special", "number") else None


def _entry_head(line: str) -> Head | None:
    """The chapter, part or number that a line of a contents table lists."""
    if len(line) > MAX_LISTED_LINE_CHARS or not may_be_heading(line):
        return None
    return _story_head(line) or spaced_head(0, line)


def spaced_head(index: int, line: str) -> Head | None:
    """`IV The Well`: a number and a title without a stop, which only what stands around tells from a sentence."""
    line = _stripped(line)
    number = number_at(line)
    title = line[number.end :].strip() if number and line[number.end : number.end + 1] == " " else ""
    if number is None or number.value is None or not is_title(title):
        return None
    return Head(
        index=index, kind="number", number=number.value, style=number.style, label=line[: number.end], title=title
    )


def listed_heads(text: str) -> list[Head]:
    """The headings that the lines of a paragraph list, if it is three lines or more and nearly all of them do."""
    lines = text.split("\n")
    if len(lines) < MIN_LISTED_LINES or not (_entry_head(lines[0]) and _entry_head(lines[1])):
        return []
    heads = [head for line in lines if (head := _entry_head(line))]
    return heads if len(heads) >= MIN_LISTED_SHARE * len(lines) else []


def _stripped(text: str) -> str:
    """Without the ornaments around, and what a contents table adds."""
    text = text.strip()
    if text[-1:].isdigit() or text.endswith(("..", ". .", "…", "·", "_ _")):
        text = LEADER.sub("", text)
    return text.strip(ORNAMENT + "[]").strip()


def may_be_heading(text: str) -> bool:
    """Whether `text` begins like a heading with a number or a keyword. Quick, for lines that are mostly none."""
    first = text.lstrip(ORNAMENT + "[")[:40].split(None, 2)[:2]
    if not first or first[0][0] in "\"'“‘«":
        return False
    if first[0][0].isdigit() or (first[0].isupper() and len(first[0]) < 12):
        return True
    return any((letters := WORD.search(word)) and fold(letters[0]) in _starts() for word in first)


@cache
def _starts() -> frozenset[str]:
    return frozenset((*CHAPTER_WORDS, *DIVISION_WORDS, *SPECIAL_WORDS, *number_words(), *LAST))


def worded_head(index: int, text: str, level: int | None = None) -> Head | None:
    """The heading that a block is by its words, or None."""
    text = _stripped(text)
    if not text or len(text) > MAX_HEADING_CHARS or text.count("\n") > 3:
        return None
    begins = may_be_heading(text)
    is_alone = level is not None or " " not in text or is_title(one_line(text).rstrip(".:"))
    if not (begins or is_alone) or _lists_several(text):
        return None
    if begins and (head := _numbered_head(index, text, level) or _special_head(index, text, level)):
        return head
    if is_alone and (kind := plain_kind(one_line(text))):
        return Head(index=index, kind=kind, label=one_line(text), level=level)
    return None


def number_head(index: int, text: str, level: int | None = None) -> Head | None:
    """A block that is only a number, or a number and a title (`II. The Party`, `01 My Early Home`)."""
    text = text.strip()
    text = NUMBER_SIGN.sub("", text) if text[:1] in ("§", "N", "№", "#") else text
    text = text[1:-1] if text[:1] == "(" and text[-1:] == ")" else text
    if not may_be_heading(text):
        return None
    text = _stripped(text)
    if (
        not text
        or len(text) > MAX_HEADING_CHARS
        or _lists_several(text)
        or not (number := number_at(text))
        or number.value is None
    ):
        return None
    rest = text[number.end :].strip(" .:;)]—–-\n")
    title = _numbered_title(text, number) if rest else ""
    if title is None or (not rest and number.style == "roman"):
        return None
    label = text[: number.end] if not rest else one_line(text[: len(text) - len(title)])
    return Head(
        index=index, kind="number", number=number.value, style=number.style, level=level, label=label.strip(),
        title=clean_title(title),
    )  # fmt: skip


def counted_head(index: int, text: str) -> Head | None:
    """`Day 3`, `Rozdział 1`: a number after a word that is no keyword; a heading if others count on from it."""
    text = _stripped(text)
    word = WORD.match(text)
    number = number_at(text, word.end() + 1) if word and text[word.end() : word.end() + 1] == " " else None
    if word is None or number is None or not word[0][0].isupper() or number.style in ("roman", "last"):
        return None
    title = _title_after(text, number.end)
    if title is None or len(text) > MAX_HEADING_CHARS:
        return None
    return Head(
        index=index, kind="chapter", word=fold(word[0]), number=number.value, style=number.style,
        label=_clean_label(text[: number.end]), title=clean_title(title),
    )  # fmt: skip


def _long_words_are_capitals(text: str) -> bool:
    """`How it Ended`: what may follow a number without a stop."""
    words = TITLE_WORD.findall(text)
    is_short = len(words) <= 10 and "\n" not in text and not SENTENCE_END.search(text)
    return is_short and text[0].isupper() and all(word[0].isupper() for word in words if len(word) > 3)


def _numbered_title(text: str, number: Number) -> str | None:
    if number.style == "roman":
        return None
    separator = SEPARATOR.match(text, number.end)
    if separator is None:
        title = text[number.end :].strip()
        is_plain = number.style == "digit" and number.end <= 3 and text[number.end].isspace()
        return title if is_plain and (is_title(title) or _long_words_are_capitals(title)) else None
    if number.style == "word" and GLUED_HYPHEN.match(text, number.end):
        return None  # One-Eyed Jack
    title = text[separator.end() :].strip()
    if ":" in text[number.end : separator.end()] and not SENTENCE_END.search(title):
        return title if len(title.split()) <= MAX_TITLE_WORDS else None
    dashed = text[number.end : separator.end()].strip(" ")[:1] in "—–-"
    accepts = is_title if number.style == "word" or dashed else is_titleish
    is_small = number.style == "ROMAN" and title[:1].islower() and not SENTENCE_END.search(title)
    if is_small and "\n" not in title and len(title.split()) <= MAX_SMALL_TITLE_WORDS:
        return title  # V. of frost and thaw
    return title if accepts(one_line(title)) else None
