"""What the lines that divide a book look like: chapters, volumes, prologues, and where the story ends."""

# ruff: noqa: RUF001, SIM905  (books print curly quotes and dashes; word lists read best as text)

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

MAX_HEADING_CHARS = 160
MAX_TITLE_CHARS = 80

UNITS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
UNITS += "eighteen nineteen"
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
ORDINALS += "fifteenth sixteenth seventeenth eighteenth nineteenth"
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
TENTH = "twentieth thirtieth fortieth fiftieth sixtieth seventieth eightieth ninetieth"
WORD_VALUES = {
    **{word: value for words in (UNITS, ORDINALS) for value, word in enumerate(words.split(), start=1)},
    **{word: 10 * value for words in (TENS, TENTH) for value, word in enumerate(words.split(), start=2)},
}
ROMAN = re.compile(r"(?=[MDCLXVI])M{0,3}(CM|CD|D?C{0,4})(XC|XL|L?X{0,4})(IX|IV|V?I{0,4})", re.IGNORECASE)
ROMAN_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}

_WORD = "|".join(sorted(WORD_VALUES, key=len, reverse=True))
NUMBER = rf"(?:\d{{1,3}}|(?:the[ ]+)?(?:(?:{_WORD})(?:[ -]+(?:{_WORD}))?|last)|[ivxlc]+)(?![\w'’])"
# After the number: nothing, or a separator and a title, or a title that starts like one.
_REST = r"(?:[ ]*[.:;,)\]—–-]*[ \n]*)(?P<title>.*)"
CHAPTER = re.compile(rf"(?P<name>chapter|chap\.?|letter|stave|canto)[ ]+(?P<number>{NUMBER}){_REST}", re.I | re.S)
DIVISION = re.compile(rf"(?P<name>volume|vol\.?|book|part)[ ]+(?P<number>{NUMBER}){_REST}", re.I | re.S)
NUMBERED_TITLE = re.compile(r"(?P<number>\d{1,3}|[IVXLC]+)[ ]*[.:)—–-]+[ \n]*(?P<title>\S.*)", re.S)
BARE_NUMBER = re.compile(rf"(?P<number>{NUMBER})[ ]*[.:]?", re.I)
STORY_PART = re.compile(r"(prologue|epilogue|interlude|conclusion)\b[ ]*[.:—–-]*[ \n]*(?P<title>.*)", re.I | re.S)
CONTENTS = re.compile(r"(table of )?contents\W*", re.I)
NOT_STORY = re.compile(
    r"(the end|finis|fin)\W*"
    r"|(end ?notes|foot ?notes|notes|glossary|index|acknowledge?ments|bibliography|about the authors?"
    r"|a note on the (text|type)|transcriber['’]s notes?|list of illustrations|copyright|dedication"
    r"|preface|foreword|introduction|appendix|advertisement)\b.*",
    re.I | re.S,
)
SENTENCE_END = re.compile(r"[.,;:!?][\"'”’)_]*$")
SMALL_WORDS = frozenset("a an and as at but by for from in into nor of on or over that the to under upon with".split())

Kind = Literal["chapter", "division", "story_part", "contents", "not_story"]


@dataclass(frozen=True, kw_only=True)
class Heading:
    """A line that divides the book."""

    kind: Kind
    label: str
    """As printed, e.g. `CHAPTER I: The Party`."""
    number: int | None = None
    has_title: bool = False


def parse_number(text: str) -> int | None:
    """12 of `12`, `XII`, `twelve`, `twelfth` and `the Twelfth`; None of anything else, and of `the last`."""
    text = re.sub(r"^the +", "", text.strip().lower())
    if text.isdigit():
        return int(text)
    words = re.split(r"[ -]+", text)
    if all(word in WORD_VALUES for word in words):
        return sum(WORD_VALUES[word] for word in words)
    if ROMAN.fullmatch(text):
        values = [ROMAN_VALUES[letter] for letter in text.upper()]
        return sum(-v if v < max(values[i:]) else v for i, v in enumerate(values))
    return None


def is_title(text: str) -> bool:
    """Whether `text` reads as a title: short, one line, capitals on its words, not a sentence."""
    if not text or len(text) > MAX_TITLE_CHARS or "\n" in text or text[0] in "\"'“‘(*[":
        return False
    words = re.findall(r"[^\W\d_][\w'’]*", text)
    if not words:
        return False
    if text.isupper():
        return True
    if SENTENCE_END.search(text) and not text.endswith(("?", "!")):
        return False
    return words[0][0].isupper() and all(w[0].isupper() or w.lower() in SMALL_WORDS for w in words)


def _label(head: str, title: str) -> str:
    head, title = " ".join(head.split()).rstrip(" .:;,—–-"), " ".join(title.split()).strip("_* ").rstrip(" .]")
    return f"{head}: {title}" if title else head


def _numbered(match: re.Match[str], kind: Kind) -> Heading | None:
    number, title = match["number"], match["title"].strip()
    value = parse_number(number)
    if value is None and not number.lower().endswith("last"):
        return None
    text = match.string
    if title:
        separated = bool(re.search(r"[.:;)\]—–\n-]", text[match.end("number") : match.start("title")]))
        marked = separated and not (len(title) > MAX_TITLE_CHARS and SENTENCE_END.search(title))
        if not (marked or is_title(title)) or title[0].islower():
            return None
    head = text[: match.end("number")]
    return Heading(kind=kind, label=_label(head, title), number=value, has_title=bool(title))


def classify(text: str) -> Heading | None:
    """The heading that a block is by its wording, or None. Numbers and titles alone are not decided here."""
    if len(text) > MAX_HEADING_CHARS:
        return None
    text = text.strip().strip("_*[]").strip()
    if match := CHAPTER.fullmatch(text):
        return _numbered(match, "chapter")
    if match := DIVISION.fullmatch(text):
        return _numbered(match, "division")
    if (match := STORY_PART.fullmatch(text)) and (not match["title"] or is_title(match["title"])):
        return Heading(kind="story_part", label=_label(match[1], match["title"]))
    if CONTENTS.fullmatch(text):
        return Heading(kind="contents", label=text)
    if NOT_STORY.fullmatch(text) and (is_title(text.rstrip(".")) or len(text.split()) == 1):
        return Heading(kind="not_story", label=text)
    return None


def classify_number(text: str) -> Heading | None:
    """A block that is only a number, or a number and a title (`II. The Party`)."""
    text = text.strip().strip("_*[]").strip()
    if len(text) <= MAX_HEADING_CHARS and (match := BARE_NUMBER.fullmatch(text)):
        value = parse_number(match["number"])
        return Heading(kind="chapter", label=match["number"], number=value) if value is not None else None
    if (match := NUMBERED_TITLE.fullmatch(text)) and is_title(match["title"].strip()):
        value = parse_number(match["number"])
        if value is not None:
            label = f"{match['number']}. {' '.join(match['title'].split())}"
            return Heading(kind="chapter", label=label, number=value, has_title=True)
    return None
