"""The words that headings are made of, in eight languages: what divides a book, and what is no story.

All words are folded (numbers.fold): lower case, no accents.
"""

from __future__ import annotations

import re
from typing import Literal

from setup_data.reading.numbers import fold

Kind = Literal["chapter", "division", "number", "special", "contents", "front", "back", "end", "title"]
"""What a heading is: a chapter; a part, book or volume around chapters; a number without a word; a prologue, epilogue
or the like; the contents table; front or back matter; the end of the story; a title without number or word."""


def _table(*lines: str) -> dict[str, str]:
    """Every word of a line -> the line's first word, which names them all."""
    return {word: line.split()[0] for line in lines for word in line.split()}


# Those that stand for a chapter before the others are asked: "letter" and the like may also lie inside of chapters.
CHAPTER_WORDS = _table(
    "chapter chap ch chapitre kapitel kap capitulo capitolo cap глава гл hoofdstuk hfdst",
    "letter lettre brief carta lettera письмо",
    "adventure aventure abenteuer aventura avventura",
    "stave",
    "canto chant gesang",
    "scene szene escena scena",
    "section abschnitt seccion sezione",
    "tale story episode",
)
DIVISION_WORDS = _table(
    "volume vol tome tomo band volumen том",
    "book livre buch libro livro книга boek",
    "part pt partie teil parte часть deel",
    "epoch epoque",
    "act acte akt aufzug acto atto ato действие bedrijf",
    "phase period period cycle",
)
SPECIAL_WORDS = _table(
    "prologue prolog prologo пролог proloog",
    "epilogue epilog epilogo эпилог epiloog",
    "prelude praludium preludio vorspiel",
    "interlude intermezzo zwischenspiel interludio",
    "finale",
    "conclusion conclusione",
    "afterword послесловие",
    "postscript",
)

CONTENTS = re.compile(
    r"(?:table of |the )?contents|table(?: des (?:matieres|chapitres))?|inhalt(?:sverzeichnis|sangabe)?|indice"
    r"(?: general)?"
    r"|sommario|sumario|содержание|оглавление|inhoud(?:sopgave)?"
)
FRONT = re.compile(
    r"(?:(?:a |the |sort of |author['’]?s |translator['’]?s |editor['’]?s )*(?:preface|foreword|introduction))"
    r"|(?:preface|introduction|foreword) (?:to|by) .*|dedication|dedicatory letter|copyright|list of illustrations"
    r"|illustrations|acknowledge?ments|a note on (?:the text|pronunciation|the translation)|title page|cover"
    r"|half[- ]?title|epigraph|also by .*|praise for .*|other books by .*|advertisement|by the same author"
    r"|prefatory (?:notes?|remarks)|(?:a (?:note|word) )?to (?:the|my) readers?"
    r"|(?:the )?author['’]?s note|list of plates"
    r"|au lecteur|an den leser|al lector|al lettore|ao leitor|aan den? lezer|к читателю"
    r"|transcriber['’]?s note.*|dramatis personae|avant-propos|preface de .*|vorwort|einleitung|widmung|prefacio"
    r"|introduccion|dedicatoria|prefazione|introduzione|предисловие|введение|от автора|voorwoord|inleiding|introducao"
)
BACK = re.compile(
    r"(?:end ?|foot ?)?notes|glossary|index|acknowledge?ments|bibliography|about the (?:authors?|type|book|publisher)"
    r"|a note on the (?:text|type|translation)|illustrations|transcriber['’]?s notes?.*|appendix(?: [a-z0-9]+)?"
    r"|appendices|errata|colophon|copyright|also by .*|other books by .*|advertisements?|reading group guide"
    r"|(?:the )?author['’]?s note|discussion questions"
    r"|примечания|комментарии|notes et variantes|anmerkungen|nachwort|notas|note|aantekeningen"
    r"|glossar|glossaire|register"
)
END = re.compile(r"(?:the |la )?(?:end|fin|finis|ende|fine|конец|einde|fim)(?: of .{1,40})?")
# A paragraph that begins like this is an editor's, wherever it stands before the story.
CREDITS = re.compile(
    r"(?:this (?:e-?book|e-?text) (?:was )?)?(?:produced|prepared|transcribed|scanned|digiti[sz]ed|proofread)"
    r" (?:by|from)"
    r"|e-?text (?:prepared|produced|transcribed)|transcriber['’]?s note|\[?(?:transcriber|editor|publisher)['’]?s note"
    r"|copyright|all rights reserved|isbn|first published|printed in|\[?note:",
    re.IGNORECASE,
)


MAX_KIND_CHARS = 80


def may_end_story(text: str) -> bool:
    """Whether a heading begins what follows a story, also if it may as well come before one."""
    return bool(BACK.fullmatch(_bare(text)))


def _bare(text: str) -> str:
    return fold(text).strip(" .:;!*_-—–[]()\"'“”")


def plain_kind(text: str) -> Kind | None:
    """What a heading without number says that it is, whatever its case and punctuation."""
    if len(text) > MAX_KIND_CHARS:
        return None
    words = _bare(text)
    for kind, pattern in _KINDS:
        if pattern.fullmatch(words):
            return kind
    return None


_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("contents", CONTENTS),
    ("end", END),
    ("front", FRONT),
    ("back", BACK),
)
