"""Numbers as headings write them: digits, Roman numerals, and words and ordinals of eight languages.

A number in words may be of any length (`One Hundred and One`, `vingt-deuxième`, `einundzwanzigstes`).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from setup_data.reading.number_words import CONNECTORS, number_words

Style = Literal["digit", "ROMAN", "roman", "word", "last"]

ROMAN = re.compile(r"(?=[MDCLXVI])M{0,4}(CM|CD|D?C{0,4})(XC|XL|L?X{0,4})(IX|IV|V?I{0,4})")
ROMAN_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
# 12, 1st, 2nd, 1er, 2e, 3º
DIGITS = re.compile(r"(\d{1,5})(?:st|nd|rd|th|er|ère|re|eme|ème|e|º|ª|°|-?[йяе]|-?ая)?(?![\w])", re.IGNORECASE)
TOKEN = re.compile(r"[^\W\d_]+(?:['’](?=[^\W\d_]))?")
BETWEEN_WORDS = re.compile(r"[ \n]*[ \n-][ \n]*")
ARTICLE = re.compile(r"(?:the|la|le|les|el|il|o|a|der|die|das|de|het)[ ]+", re.IGNORECASE)
LAST = frozenset(
    "last dernier derniere letzte letzter letztes ultimo ultima последняя последнии последнее laatste".split()
)  # as fold() leaves them


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number at some place of a text."""

    value: int | None
    """None for `the last`."""
    end: int
    """Where it ends in the text."""
    style: Style


@lru_cache(maxsize=10_000)
def fold(word: str) -> str:
    """Lower case without accents: the form in which words are looked up."""
    if word.isascii():
        return word.lower()
    decomposed = unicodedata.normalize("NFKD", word.lower())
    return "".join(char for char in decomposed if not unicodedata.combining(char))


@cache
def roman_value(text: str) -> int | None:
    """14 of `XIV`, 4 of `IIII`; None of anything else."""
    if not ROMAN.fullmatch(text):
        return None
    values = [ROMAN_VALUES[letter] for letter in text]
    return sum(value if value >= max(values[i:]) else -value for i, value in enumerate(values))


def combine(value: int, word_value: int) -> int | None:
    """`value` read on by one more word: 20 and 1 make 21, 2 and 100 make 200; None where they do not join."""
    if word_value in (100, 1000):
        below = value % 1000  # two thousand [three] hundred
        return value + below * (word_value - 1) if 0 < below < word_value else None
    if value == 4 and word_value == 20:  # quatre-vingts
        return 80
    ten, hundred = value % 10 == 0, value % 100 == 0
    if word_value < 10 and ten and value != 10:
        return value + word_value
    if 7 <= word_value <= 9 and value % 100 == 10:  # dix-sept
        return value + word_value
    if 10 <= word_value < 20 and value % 100 in (60, 80):  # soixante-quinze, quatre-vingt-dix
        return value + word_value
    return value + word_value if word_value < 100 and hundred else None


def _words_at(text: str, start: int) -> Number | None:
    words = number_words()
    token = TOKEN.match(text, start)
    if token is None or (value := words.get(fold(token[0]))) is None:
        return None
    end = token.end()
    while gap := BETWEEN_WORDS.match(text, end):
        token = TOKEN.match(text, gap.end())
        if token and fold(token[0]) in CONNECTORS and (gap := BETWEEN_WORDS.match(text, token.end())):
            token = TOKEN.match(text, gap.end())
        next_value = words.get(fold(token[0])) if token else None
        joined = combine(value, next_value) if next_value is not None else None
        if token is None or joined is None:
            break
        value, end = joined, token.end()
    return Number(value=value, end=end, style="word")


def number_at(text: str, start: int = 0) -> Number | None:
    """The number that begins at `start`, as long as it goes; None if none does."""
    if digits := DIGITS.match(text, start):
        return Number(value=int(digits[1]), end=digits.end(), style="digit")
    if number := _words_at(text, start):
        return number
    if (token := TOKEN.match(text, start)) is None:
        return None
    if fold(token[0]) in LAST:
        return Number(value=None, end=token.end(), style="last")
    upper = token[0].isupper()
    if (upper or token[0].islower()) and (value := roman_value(token[0].upper())) and _ends_word(text, token.end()):
        return Number(value=value, end=token.end(), style="ROMAN" if upper else "roman")
    if article := ARTICLE.match(text, start):
        return number_at(text, article.end())
    return None


def _ends_word(text: str, end: int) -> bool:
    """No apostrophe or digit may follow a Roman numeral: `I'm`, `C4`."""
    return end >= len(text) or not (text[end].isalnum() or text[end] in "'’")


def parse_number(text: str) -> int | None:
    """12 of `12`, `XII`, `twelve`, `twelfth` and `the Twelfth`; None of anything else, and of `the last`."""
    text = text.strip()
    number = number_at(text)
    return number.value if number and number.end == len(text) else None
