"""Made inputs for the reader, each with its truth: name, file, chapters' headings, and what must not be in the text."""

from __future__ import annotations

from dataclasses import dataclass, field

from support.book_files import PROSE, make_epub

# Some 60 words, so that a chapter is longer than a contents entry.
TEXT = (
    "The rain came over the hill before noon and stayed until the lamps were lit. Nobody on the quay looked up, since "
    "the boats had been in since morning and there was nothing to wait for.\n\n"
    '"It will hold," said the ferryman, and he drew the tarpaulin across the flour and sat down on it as if the matter '
    "were settled for the whole of that winter."
)
FRENCH = TEXT.replace("The rain", "La pluie").replace("winter", "hiver, déjà")


@dataclass(frozen=True, kw_only=True)
class MadeBook:
    """One input and its truth."""

    kind: str
    """What it tries, as the table in docs/books.md calls it."""
    text: str | bytes
    heads: tuple[str, ...]
    """The chapters' headings."""
    suffix: str = ".txt"
    regex: str | None = None
    absent: tuple[str, ...] = ()
    """What is in no chapter's text."""
    present: tuple[str, ...] = ()
    """What is in some chapter's text."""
    says: tuple[str, ...] = ()
    """What the report's lines say."""
    assumed: str = ""
    options: dict[str, int] = field(default_factory=dict)


def plain(*heads: str, front: str = "", text: str = TEXT, back: str = "") -> str:
    """Headings with the same text under each."""
    parts = [front, *(f"{head}\n\n{text}" for head in heads), back]
    return "\n\n\n".join(part for part in parts if part) + "\n"


def paragraphs(text: str = TEXT) -> str:
    """The text as HTML."""
    return "".join(f"<p>{paragraph}</p>" for paragraph in text.split("\n\n"))


def same(kind: str, *heads: str, **more: object) -> MadeBook:
    """A book whose headings come back as they are."""
    return MadeBook(kind=kind, text=plain(*heads), heads=heads, **more)  # type: ignore[arg-type]


P = paragraphs()
LISTED = "CONTENTS\n\nCHAPTER I. The Lamp\nCHAPTER II. The Stair\nCHAPTER III. The Well"
THREE = ("The Lamp", "The Stair", "The Well")
NAV_THREE = "<ol>" + "".join(f'<li><a href="c{i}.xhtml">{name}</a></li>' for i, name in enumerate(THREE)) + "</ol>"

PAST_TWENTY = ("Nineteen", "Twenty", "Twenty-One", "Twenty-Two", "Twenty-Three")
INDENTED = (
    "    The rain came over the hill before noon and stayed\nuntil the lamps were lit.\n"
    "    Nobody on the quay looked up, since the boats had\nbeen in since morning."
)
TITLE_PAGE = "THE FERRYMAN OF THE QUAY\n\nby A. N. Author\n\n\n\n"
NUMBERED_PARTS = ("BOOK ONE\n\n\n1", "2", "3", "BOOK TWO\n\n\n1", "2", "3")
SPELLED = tuple(
    f"{number}. The {title}"
    for number, title in zip(
        ("One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight"),
        ("Lamp", "Stair", "Well", "Door", "Quay", "House", "Road", "Boat"),
        strict=True,
    )
)

PARTS = [
    MadeBook(
        kind="BOOK in words, title after a colon",
        text=plain("BOOK ONE: 1805\n\n\nCHAPTER I", "CHAPTER II", "BOOK TWO: 1806\n\n\nCHAPTER I"),
        heads=("BOOK ONE: 1805, CHAPTER I", "BOOK ONE: 1805, CHAPTER II", "BOOK TWO: 1806, CHAPTER I"),
    ),
    MadeBook(
        kind="Part in title case, lower-case title after a dash",
        text=plain("Part One--the old house\n\n1", "2", "Part Two--the new house\n\n3"),
        heads=("Part One: the old house, 1", "Part One: the old house, 2", "Part Two: the new house, 3"),
    ),
    MadeBook(
        kind="VOLUME in Romans, numbers start over",
        text=plain("VOLUME I\n\nCHAPTER I", "CHAPTER II", "VOLUME II\n\nCHAPTER I", "CHAPTER II"),
        heads=("VOLUME I, CHAPTER I", "VOLUME I, CHAPTER II", "VOLUME II, CHAPTER I", "VOLUME II, CHAPTER II"),
    ),
    MadeBook(
        kind="EPOCH THE FIRST, year and title in paragraphs of their own",
        text=plain(
            "EPOCH THE FIRST.\n\n1703.\n\nRAIN.\n\nCHAPTER I.\n\nThe Lamp.",
            "CHAPTER II.\n\nThe Stair.",
            "CHAPTER III.\n\nThe Well.",
            "EPOCH THE SECOND.\n\n1715.\n\nSNOW.\n\nCHAPTER I.\n\nThe Door.",
        ),
        heads=(
            "EPOCH THE FIRST: 1703. RAIN, CHAPTER I: The Lamp",
            "EPOCH THE FIRST: 1703. RAIN, CHAPTER II: The Stair",
            "EPOCH THE FIRST: 1703. RAIN, CHAPTER III: The Well",
            "EPOCH THE SECOND: 1715. SNOW, CHAPTER I: The Door",
        ),
    ),
    MadeBook(
        kind="LETTER THE FIRST around chapters",
        text=plain("LETTER THE FIRST\n\nCHAPTER I", "CHAPTER II", "LETTER THE SECOND\n\nCHAPTER III", "CHAPTER IV"),
        heads=(
            "LETTER THE FIRST, CHAPTER I",
            "LETTER THE FIRST, CHAPTER II",
            "LETTER THE SECOND, CHAPTER III",
            "LETTER THE SECOND, CHAPTER IV",
        ),
    ),
    MadeBook(
        kind="ACT and SCENE",
        text=plain("ACT I\n\nSCENE I", "SCENE II", "ACT II\n\nSCENE I"),
        heads=("ACT I, SCENE I", "ACT I, SCENE II", "ACT II, SCENE I"),
    ),
    MadeBook(
        kind="ordinal before the word",
        text=plain("FIRST PART\n\nI", "II", "SECOND PART\n\nI", "II"),
        heads=("FIRST PART, I", "FIRST PART, II", "SECOND PART, I", "SECOND PART, II"),
    ),
    MadeBook(
        kind="part with its title on the next line",
        text=plain("PART 1\nThe old house\n\nCHAPTER 1", "CHAPTER 2", "PART 2\nThe new house\n\nCHAPTER 3"),
        heads=(
            "PART 1: The old house, CHAPTER 1",
            "PART 1: The old house, CHAPTER 2",
            "PART 2: The new house, CHAPTER 3",
        ),
    ),
    MadeBook(
        kind="volumes with books with chapters",
        text=plain("VOLUME I\n\nBOOK I\n\nCHAPTER I", "BOOK II\n\nCHAPTER I", "VOLUME II\n\nBOOK I\n\nCHAPTER I"),
        heads=("VOLUME I, BOOK I, CHAPTER I", "VOLUME I, BOOK II, CHAPTER I", "VOLUME II, BOOK I, CHAPTER I"),
    ),
    MadeBook(
        kind="parts are all there is",
        text=plain("PART ONE", "PART TWO", "PART THREE"),
        heads=("PART ONE", "PART TWO", "PART THREE"),
    ),
    MadeBook(
        kind="two epilogues as parts",
        text=plain(
            "BOOK ONE\n\nCHAPTER I",
            "CHAPTER II",
            "FIRST EPILOGUE: 1813\n\nCHAPTER I",
            "CHAPTER II",
            "SECOND EPILOGUE\n\nCHAPTER I",
        ),
        heads=(
            "BOOK ONE, CHAPTER I",
            "BOOK ONE, CHAPTER II",
            "FIRST EPILOGUE: 1813, CHAPTER I",
            "FIRST EPILOGUE: 1813, CHAPTER II",
            "SECOND EPILOGUE, CHAPTER I",
        ),
    ),
    same("prologue, interlude, epilogue as chapters", "PROLOGUE", "CHAPTER I", "INTERLUDE", "CHAPTER II", "EPILOGUE"),
    same("prelude, finale, afterword as chapters", "Prelude", "Chapter 1", "Chapter 2", "Finale", "Afterword"),
    MadeBook(
        kind="an epigraph under a part opens its first chapter",
        text=plain(
            "PART I\n\nHe that hath a lamp, let him light it.\n\nCHAPTER I", "CHAPTER II", "PART II\n\nCHAPTER III"
        ),
        heads=("PART I, CHAPTER I", "PART I, CHAPTER II", "PART II, CHAPTER III"),
        present=("He that hath a lamp",),
    ),
]

CHAPTERS = [
    same("CHAPTER in Romans", "CHAPTER I", "CHAPTER II", "CHAPTER III"),
    same("Ch. in digits", "Ch. 1", "Ch. 2", "Ch. 3"),
    MadeBook(
        kind="ADVENTURE with the title on the line",
        text=plain("ADVENTURE I. A LAMP", "ADVENTURE II. A STAIR", "ADVENTURE III. A WELL"),
        heads=("ADVENTURE I: A LAMP", "ADVENTURE II: A STAIR", "ADVENTURE III: A WELL"),
    ),
    MadeBook(
        kind="ornaments around",
        text=plain("~ Chapter 1 ~", "~ Chapter 2 ~", "*** Chapter 3 ***"),
        heads=("Chapter 1", "Chapter 2", "Chapter 3"),
    ),
    same(
        "spelled numbers of any length",
        *(f"Chapter {n}" for n in ("Ninety-Nine", "One Hundred", "One Hundred and One")),
    ),
    same("large numbers", "CHAPTER 1001", "CHAPTER 1002", "CHAPTER 1003"),
    same("digits with a title", "01 My Early Home", "02 The Hunt", "03 How it Ended"),
    MadeBook(
        kind="Romans whose titles have hyphens, quotes, small words, sentence case",
        text=plain(
            "I. The Old Sea-dog",
            'II. "Pieces of Eight"',
            "III. In which the boy goes home",
            "IV. What I heard in the barrel",
        ),
        heads=(
            "I. The Old Sea-dog",
            'II. "Pieces of Eight"',
            "III. In which the boy goes home",
            "IV. What I heard in the barrel",
        ),
    ),
    same("bare Romans", "I", "II", "III", "IV"),
    same("bare spelled numbers", "One", "Two", "Three"),
    MadeBook(
        kind="Finis, Notes, Index, Introduction as titles of chapters",
        text=plain("CHAPTER I\n\nIntroduction", "CHAPTER II\n\nNotes", "CHAPTER III\n\nIndex", "CHAPTER IV\n\nFinis"),
        heads=("CHAPTER I: Introduction", "CHAPTER II: Notes", "CHAPTER III: Index", "CHAPTER IV: Finis"),
    ),
    MadeBook(
        kind="inner numbers never beat the outer ones",
        text=plain(*(f"CHAPTER {n}\n\nI.\n\n{TEXT}\n\nII.\n\n{TEXT}\n\nIII." for n in ("I", "II"))),
        heads=("CHAPTER I", "CHAPTER II"),
        says=("looks like a heading",),
    ),
    MadeBook(
        kind="stories with numbers inside",
        text=plain("THE LAMP\n\nI", "II", "THE STAIR", "THE WELL\n\nI", "II"),
        heads=("THE LAMP", "THE STAIR", "THE WELL"),
    ),
    same("bare spelled numbers past twenty, in title case", *PAST_TWENTY),
    same("bare Italian numbers past thirty", "Trentadue", "Trentatré", "Trentaquattro"),
    same("bare German numbers past a hundred", "Hundertzwei", "Hundertdrei", "Hundertvier"),
    same("a word that nobody taught the reader, spelled numbers", "Day One", "Day Two", "Day Three"),
    same("Romans whose titles begin with a small word", "I. The Lamp", "II. of rain and wells", "III. The Well"),
    MadeBook(
        kind="a spelled number inside a title is none",
        text=plain(
            "Twenty", "Twenty-One", "Twenty-Two", text=f"{TEXT}\n\nOne-Eyed Jack\n\n{TEXT}\n\nTWO-FACED TOM\n\n{TEXT}"
        ),
        heads=("Twenty", "Twenty-One", "Twenty-Two"),
        present=("TWO-FACED TOM",),
    ),
    MadeBook(
        kind="titles with one blank line more than paragraphs have",
        text=plain("The Lamp", "The Stair at Night", "The Well", front="THE FERRYMAN\n\nby A. N. Author"),
        heads=("The Lamp", "The Stair at Night", "The Well"),
    ),
    MadeBook(
        kind="a part's title in capitals below it, far above the number",
        text=plain(
            "PART I.\n\nTHE OLD HOUSE\n\n\n1. The Lamp",
            "2. The Stair",
            "PART II.\n\nTHE NEW HOUSE\n\n\n3. The Well",
            "4. The Door",
        ),
        heads=(
            "PART I: THE OLD HOUSE, 1. The Lamp",
            "PART I: THE OLD HOUSE, 2. The Stair",
            "PART II: THE NEW HOUSE, 3. The Well",
            "PART II: THE NEW HOUSE, 4. The Door",
        ),
    ),
    MadeBook(
        kind="headings at the margin of indented paragraphs, no blank lines",
        text="".join(f"{head}\n{INDENTED}\n" for head in ("CHAPTER I", "CHAPTER II", "CHAPTER III")),
        heads=("CHAPTER I", "CHAPTER II", "CHAPTER III"),
    ),
    same("titles in capitals alone", "THE LAMP", "THE STAIR", "THE WELL"),
    MadeBook(
        kind="the first heading is missing",
        text=plain("Chapter 2 THE STAIR", "Chapter 3 THE WELL", front=TEXT),
        heads=("Chapter 1", "Chapter 2: THE STAIR", "Chapter 3: THE WELL"),
        says=("a first heading is missing",),
    ),
    MadeBook(
        kind="missing first heading above two very short paragraphs",
        text=plain(
            "II",
            "III",
            front=f'LAMPS\n\nA Novel.\n\nLondon, 1871.\n\nTo my dog.\n\nIt began.\n\n"Who is there?"\n\n{TEXT}',
        ),
        heads=("I", "II", "III"),
        present=('It began.\n\n"Who is there?"\n\nThe rain',),
        absent=("London", "my dog"),
    ),
    MadeBook(
        kind="missing first heading under a title page",
        text=plain("II", "III", front=f"THE LAMP\n\nby\n\nAN AUTHOR\n\n\n{TEXT}"),
        heads=("I", "II", "III"),
        absent=("AN AUTHOR",),
        says=("a first heading is missing",),
    ),
    MadeBook(
        kind="a gap in the numbers",
        text=plain("I", "II", "IV", "V"),
        heads=("I", "II", "IV", "V"),
        says=("3 missing, or not marked",),
    ),
    MadeBook(
        kind="numbers of another style count on",
        text=plain(
            "ADVENTURE I. A LAMP",
            "ADVENTURE II. A STAIR",
            "III. THE ADVENTURE OF THE WELL",
            "IV. THE ADVENTURE OF THE DOOR",
        ),
        heads=(
            "ADVENTURE I: A LAMP",
            "ADVENTURE II: A STAIR",
            "III. THE ADVENTURE OF THE WELL",
            "IV. THE ADVENTURE OF THE DOOR",
        ),
    ),
    MadeBook(
        kind="heading without a blank line after it",
        text=plain("CHAPTER I", "CHAPTER II").replace("\n\nThe rain", "\nThe rain"),
        heads=("CHAPTER I", "CHAPTER II"),
    ),
    MadeBook(
        kind="heading run into its paragraph",
        text=plain("CHAPTER I. ", "CHAPTER II. ").replace(". \n\nThe rain", ". The rain"),
        heads=("CHAPTER I", "CHAPTER II"),
    ),
    MadeBook(
        kind="sentences that begin like headings",
        text=plain(
            "CHAPTER I", f"Chapter 3 was the one he liked best.\n\n{TEXT}\n\nPart of it was true.", "CHAPTER II"
        ),
        heads=("CHAPTER I", "CHAPTER II"),
        present=("Chapter 3 was the one", "Part of it was true."),
    ),
    MadeBook(
        kind="page numbers do not count as chapters",
        text=plain("CHAPTER I", "CHAPTER II")
        .replace("stayed until", "stayed\n\n12\n\nuntil", 1)
        .replace("flour and", "flour\n\n13\n\nand", 1)
        .replace("whole of", "whole\n\n14\n\nof", 1),
        heads=("CHAPTER I", "CHAPTER II"),
        absent=("12", "13", "14"),
        present=("stayed until", "flour and sat", "whole of that"),
    ),
]

# Not designed for: written after the reader was, to see what it makes of them.
UNSEEN = [
    same("letters, then chapters", "Letter 1", "Letter 2", "Chapter 1", "Chapter 2", "Chapter 3"),
    MadeBook(
        kind="etymology and extracts before chapter 1",
        text=plain(
            "CHAPTER 1. Loomings.",
            "CHAPTER 2. The Carpet-Bag.",
            "Epilogue",
            front="ETYMOLOGY.\n\n(Supplied by an Usher)",
        ),
        heads=("CHAPTER 1: Loomings", "CHAPTER 2: The Carpet-Bag", "Epilogue"),
        absent=("Usher",),
    ),
    MadeBook(
        kind="CHAPTER above the number, in a paragraph of its own",
        text=plain("CHAPTER\n\nI", "CHAPTER\n\nII", "CHAPTER\n\nIII"),
        heads=("I", "II", "III"),
        absent=("CHAPTER",),
    ),
    MadeBook(kind="numbers in brackets", text=plain("(1)", "(2)", "(3)"), heads=("1", "2", "3")),
    MadeBook(kind="numbers after a sign", text=plain("\u00a7 1", "\u00a7 2", "\u00a7 3"), heads=("1", "2", "3")),
    same("a word that nobody taught the reader", "Rozdzia\u0142 1", "Rozdzia\u0142 2", "Rozdzia\u0142 3"),
    MadeBook(
        kind="a spelled number, a colon, sentence case",
        text=plain("One: in which it rains", "Two: in which it stops", "Three: the end of it"),
        heads=("One: in which it rains", "Two: in which it stops", "Three: the end of it"),
    ),
    same("Roman numerals of Unicode", "\u2160", "\u2161", "\u2162"),
    MadeBook(
        kind="tomes with books with chapters, titles below",
        text=plain(
            "TOME I\n\nLIVRE PREMIER--UN JUSTE\n\nChapitre I\n\nMonsieur Myriel",
            "Chapitre II\n\nLe soir",
            "LIVRE DEUXI\u00c8ME--LA CHUTE\n\nChapitre I\n\nLa nuit",
        ),
        heads=(
            "TOME I, LIVRE PREMIER: UN JUSTE, Chapitre I: Monsieur Myriel",
            "TOME I, LIVRE PREMIER: UN JUSTE, Chapitre II: Le soir",
            "TOME I, LIVRE DEUXI\u00c8ME: LA CHUTE, Chapitre I: La nuit",
        ),
    ),
    MadeBook(
        kind="a newspaper's headline in capitals inside a chapter",
        text=plain("I", text=f"{TEXT}\n\nTERRIBLE FIRE\n\n{TEXT}") + "\n\n\n" + plain("II", "III"),
        heads=("I", "II", "III"),
        present=("TERRIBLE FIRE",),
    ),
    MadeBook(
        kind="stories with by-lines, contents with pages",
        text=plain(
            "THE LAMP\n\nBy Ann Reed",
            "THE STAIR\n\nBy Tom Hale",
            "THE WELL\n\nBy Ann Reed",
            front="TALES OF THE QUAY\n\nCONTENTS\n\nThe Lamp . . . 1\n\nThe Stair . . . 20\n\nThe Well . . . 40",
        ),
        heads=("THE LAMP", "THE STAIR", "THE WELL"),
    ),
    MadeBook(
        kind="Markdown: the book's title at the level of its parts",
        suffix=".md",
        text=f"# Lamps\n\n# Part One\n\n## Alpha\n\n{TEXT}\n\n### one\n\n{TEXT}\n\n## Beta\n\n{TEXT}\n\n# Part Two\n\n## Gamma\n\n{TEXT}",
        heads=("Part One, Alpha", "Part One, Beta", "Part Two, Gamma"),
    ),
    MadeBook(
        kind="HTML: h2 for chapters and for all around them",
        suffix=".html",
        text=f"<h1>Lamps</h1><h2>by A. N. Author</h2><h2>PREFACE</h2>{P}<h2>CHAPTER I</h2><h3>THE LAMP</h3>{P}<h2>CHAPTER II</h2><h3>THE STAIR</h3>{P}<h2>THE LAST WORD</h2>{P}<h2>FOOTNOTES</h2><p>[1] a</p>",
        heads=("CHAPTER I: THE LAMP", "CHAPTER II: THE STAIR", "THE LAST WORD"),
    ),
]

LANGUAGES = [
    same("French", "Chapitre premier", "Chapitre deuxième", "Chapitre vingt et unième"),
    MadeBook(
        kind="French parts, contents at the end",
        text=plain(
            "PREMIÈRE PARTIE\n\nI",
            "II",
            "DEUXIÈME PARTIE\n\nI",
            "II",
            text=FRENCH,
            back="FIN\n\nTABLE DES MATIÈRES\n\nPREMIÈRE PARTIE\n\nI. 3\n\nII. 9\n\nDEUXIÈME PARTIE\n\nI. 20\n\nII. 31",
        ),
        heads=("PREMIÈRE PARTIE, I", "PREMIÈRE PARTIE, II", "DEUXIÈME PARTIE, I", "DEUXIÈME PARTIE, II"),
        absent=("TABLE", "31"),
    ),
    same("German, word last", "Erstes Kapitel", "Zweites Kapitel", "Einundzwanzigstes Kapitel"),
    same("German, digits", "Kapitel 1", "Kapitel 2", "Kapitel 3"),
    MadeBook(
        kind="German parts",
        text=plain("Erster Teil\n\n1. Kapitel", "2. Kapitel", "Zweiter Teil\n\n1. Kapitel"),
        heads=("Erster Teil, 1. Kapitel", "Erster Teil, 2. Kapitel", "Zweiter Teil, 1. Kapitel"),
    ),
    same("Spanish", "Capítulo primero", "Capítulo segundo", "Capítulo vigésimo primero"),
    same("Italian", "Capitolo I", "Capitolo II", "Capitolo ventunesimo"),
    MadeBook(
        kind="Russian",
        text=plain("ЧАСТЬ ПЕРВАЯ\n\nГЛАВА I", "ГЛАВА II", "ЧАСТЬ ВТОРАЯ\n\nГлава первая", "ЭПИЛОГ"),
        heads=("ЧАСТЬ ПЕРВАЯ, ГЛАВА I", "ЧАСТЬ ПЕРВАЯ, ГЛАВА II", "ЧАСТЬ ВТОРАЯ, Глава первая", "ЭПИЛОГ"),
    ),
    same("Portuguese", "Capítulo primeiro", "Capítulo segundo", "Capítulo terceiro"),
    same("Dutch", "Eerste hoofdstuk", "Tweede hoofdstuk", "Eenentwintigste hoofdstuk"),
]

LEFT_OUT = [
    MadeBook(
        kind="contents table in one paragraph",
        text=plain("CHAPTER I\n\nThe Lamp", "CHAPTER II\n\nThe Stair", "CHAPTER III\n\nThe Well", front=LISTED),
        heads=("CHAPTER I: The Lamp", "CHAPTER II: The Stair", "CHAPTER III: The Well"),
        absent=("CONTENTS",),
    ),
    MadeBook(
        kind="contents with other words than the text",
        text=plain("I.", "II.", "III.", front=LISTED.replace("\n", "\n\n")),
        heads=("I", "II", "III"),
        absent=("CONTENTS",),
    ),
    MadeBook(
        kind="contents without a heading",
        text=plain("CHAPTER I", "CHAPTER II", "CHAPTER III", front="CHAPTER I\n\nCHAPTER II\n\nCHAPTER III"),
        heads=("CHAPTER I", "CHAPTER II", "CHAPTER III"),
    ),
    MadeBook(
        kind="contents of bare numbers in one paragraph, a preface after them",
        text=plain(
            "PROLOGUE",
            *NUMBERED_PARTS,
            "EPILOGUE",
            front="CONTENTS\n\nPROLOGUE\nBOOK ONE\n1\n2\n3\nBOOK TWO\n1\n2\n3\nEPILOGUE\n\n\n\nPREFACE\n\nNobody asked twice.",
        ),
        heads=(
            "PROLOGUE",
            "BOOK ONE, 1",
            "BOOK ONE, 2",
            "BOOK ONE, 3",
            "BOOK TWO, 1",
            "BOOK TWO, 2",
            "BOOK TWO, 3",
            "EPILOGUE",
        ),
        absent=("asked twice",),
    ),
    MadeBook(
        kind="contents of bare Romans in one paragraph, without a heading, a word to the reader after them",
        text=plain("I", "II", "III", front=TITLE_PAGE + "I\nII\nIII\n\n\n\nTO THE READER\n\nNobody asked twice."),
        heads=("I", "II", "III"),
        absent=("asked twice",),
    ),
    MadeBook(
        kind="contents with leaders and pages, without a heading, a foreword before them",
        text=plain(
            "I",
            "II",
            "III",
            front=TITLE_PAGE
            + "FOREWORD\n\nNobody asked twice.\n\n\n\nI. . . . . . 7\nII. . . . . . 18\nIII. . . . . . 29",
        ),
        heads=("I", "II", "III"),
        absent=("asked twice", "29"),
    ),
    MadeBook(
        kind="contents of spelled numbers with titles in one paragraph, longer than a heading",
        text=plain(
            *SPELLED, front="CONTENTS\n\n" + "\n".join(SPELLED) + "\n\n\n\nINTRODUCTION\n\n" + f"{TEXT}\n\n" * 4
        ),
        heads=SPELLED,
    ),
    MadeBook(
        kind="contents right before the first chapter, in one paragraph, numbers starting over",
        text=plain(*NUMBERED_PARTS, front=TITLE_PAGE + "BOOK ONE\n1\n2\n3\nBOOK TWO\n1\n2\n3"),
        heads=("BOOK ONE, 1", "BOOK ONE, 2", "BOOK ONE, 3", "BOOK TWO, 1", "BOOK TWO, 2", "BOOK TWO, 3"),
    ),
    MadeBook(
        kind="contents without a heading, Romans without a stop before their titles",
        text=plain(
            *("EPOCH ONE\n\n\nI\n\nThe Horse's", "II\n\nThe Quay", "EPOCH TWO\n\n\nIII\n\nThe Well"),
            *("IV\n\nThe Sea-dog", "V\n\nThe Rain", "VI\n\nThe Lamp"),
            front=f"{TITLE_PAGE}EPOCH ONE\n\nI The Horse's\n\nII The Quay\n\nEPOCH TWO\n\nIII The Well\n\nIV The Sea-dog\n\nV The Rain\n\nVI The Lamp",
        ),
        heads=(
            *("EPOCH ONE, I The Horse's", "EPOCH ONE, II The Quay", "EPOCH TWO, III The Well"),
            *("EPOCH TWO, IV The Sea-dog", "EPOCH TWO, V The Rain", "EPOCH TWO, VI The Lamp"),
        ),
    ),
    MadeBook(
        kind="contents with leaders and pages, parts among them",
        text=plain(
            "PART ONE\n\n1",
            "2",
            "PART TWO\n\n3",
            front="CONTENTS\n\nPART ONE\n\n1. THE LAMP . . . . . 3\n2. THE STAIR . . . . . 9\n\nPART TWO\n\n3. THE WELL . . . . . 21",
        ),
        heads=("PART ONE, 1", "PART ONE, 2", "PART TWO, 3"),
        absent=("LAMP",),
    ),
    MadeBook(
        kind="titles known from the contents alone",
        text=plain("The Lamp", "The Stair", "The Well", front="CONTENTS\n\nThe Lamp\n\nThe Stair\n\nThe Well"),
        heads=THREE,
    ),
    MadeBook(
        kind="Project Gutenberg's header and licence",
        text="The Project Gutenberg eBook of Lamps\n\nTitle: Lamps\n\n*** START OF THE PROJECT GUTENBERG EBOOK LAMPS ***\n\nProduced by someone\n\n"
        + plain("CHAPTER I", "CHAPTER II")
        + "\n\n*** END OF THE PROJECT GUTENBERG EBOOK LAMPS ***\n\nSection 1. General Terms of Use",
        heads=("CHAPTER I", "CHAPTER II"),
        absent=("General Terms", "Produced"),
    ),
    MadeBook(
        kind="preface, dedication, notes, glossary",
        text=plain(
            "CHAPTER I",
            "CHAPTER II",
            front=f"DEDICATION\n\nTo the ferryman.\n\nPREFACE\n\n{PROSE}",
            back="THE END\n\nNOTES\n\n1. A note.\n\nGLOSSARY\n\nquay: a place",
        ),
        heads=("CHAPTER I", "CHAPTER II"),
        absent=("ferryman.\n", "A note", "quay: a place", "lit it"),
    ),
    MadeBook(
        kind="illustration over several lines, also between paragraphs",
        text=plain("CHAPTER I", "CHAPTER II").replace('\n\n"It', '\n\n[Illustration: A lamp\n\non a quay]\n\n"It', 1),
        heads=("CHAPTER I", "CHAPTER II"),
        absent=("Illustration", "on a quay"),
    ),
    MadeBook(
        kind="an epilogue whose title begins with a number in words",
        text=plain("CHAPTER I", "CHAPTER II", "EPILOGUE: Ten Years After"),
        heads=("CHAPTER I", "CHAPTER II", "EPILOGUE: Ten Years After"),
    ),
    MadeBook(
        kind="page and note marks glued to the word after them",
        text=plain(
            "CHAPTER I",
            "CHAPTER II",
            text=f"The well {{12}}was[A] deep; the [B]rope was long.\n\n{TEXT}\n\n[A] Very.\n\n[B] Of hemp.",
        ),
        heads=("CHAPTER I", "CHAPTER II"),
        present=("The well was deep; the rope was long.",),
        absent=("{12}", "hemp"),
    ),
    MadeBook(
        kind="compounds broken at a line's end",
        text=plain(
            "CHAPTER I",
            "CHAPTER II",
            text="On the wall of the ferry house there hung, as everybody knew, a twenty-\nfive-year-old whip, which the ferryman always called his cat-o'-\nnine-tails, and beside it hung the lantern of his good old mother-\nin-law, which was more than half as old; beside the lan-\ntern hung nothing.",
        ),
        heads=("CHAPTER I", "CHAPTER II"),
        present=("a twenty-five-year-old whip", "cat-o'-nine-tails", "mother-in-law", "the lantern hung"),
    ),
    MadeBook(
        kind="illustrations glued to what follows them",
        text=plain(
            "[Illustration]CHAPTER I",
            "CHAPTER II",
            text=f"[Illustration: A lamp].\n\n[Illustration:\nA well]Well, it rained.\n\n{TEXT}",
        ),
        heads=("CHAPTER I", "CHAPTER II"),
        absent=("Illustration", "A lamp", "\n.\n"),
        present=("Well, it rained.",),
    ),
    MadeBook(
        kind="heading run into its paragraph with a stop and a dash",
        text="\n\n".join(
            f"CHAPTER {n}.—The rain came over the hill before noon and stayed until all of the lamps were lit, and for a good while longer.\n\n{TEXT}"
            for n in ("I", "II")
        ),
        heads=("CHAPTER I", "CHAPTER II"),
        absent=("—",),
    ),
    MadeBook(
        kind="note markers and note bodies",
        text=plain("CHAPTER I", "CHAPTER II")
        .replace("noon and", "noon[1] and", 1)
        .replace("lit. N", "lit.[2] N", 1)
        .replace('\n\n"It', '\n\n[1] About twelve.\n\n[2] With oil.\n\n"It', 1),
        heads=("CHAPTER I", "CHAPTER II"),
        absent=("[1]", "twelve", "With oil"),
        present=("noon and stayed",),
    ),
    MadeBook(
        kind="a bracket of the story's own stays",
        text=plain("CHAPTER I", "CHAPTER II").replace("noon", "14 [their house number on their street]", 1),
        heads=("CHAPTER I", "CHAPTER II"),
        present=("14 [their house number on their street] and",),
    ),
    MadeBook(
        kind="[Footnote 1: ...] and _italics_",
        text=plain("CHAPTER I", "CHAPTER II")
        .replace("noon", "_noon_[1]", 1)
        .replace('\n\n"It', '\n\n[Footnote 1: About twelve,\nor so.]\n\n"It', 1),
        heads=("CHAPTER I", "CHAPTER II"),
        absent=("_", "[1]", "About twelve"),
        present=("before noon and",),
    ),
    MadeBook(
        kind="words broken at a line's end",
        text=plain("CHAPTER I", "CHAPTER II").replace(
            "there was nothing to wait for",
            "there was something so extra-\nordinary and well-\nknown, yes, well-known",
            1,
        ),
        heads=("CHAPTER I", "CHAPTER II"),
        present=("so extraordinary and well-known, yes",),
    ),
    MadeBook(
        kind="indented paragraphs without blank lines",
        text=plain(
            "CHAPTER I",
            "CHAPTER II",
            text="  The rain came over the hill before noon and\nstayed until the lamps were lit.\n  Nobody on the quay looked up, for the boats\nhad been in since morning.\n  So it went.",
        ),
        heads=("CHAPTER I", "CHAPTER II"),
        present=(
            "before noon and stayed until the lamps were lit.\n\nNobody on the quay looked up, for the boats had been",
        ),
    ),
    MadeBook(
        kind="one paragraph a line, not wrapped",
        text=plain("CHAPTER I", "CHAPTER II").replace('.\n\n"It', '.\n"It'),
        heads=("CHAPTER I", "CHAPTER II"),
        present=('.\n\n"It will hold',),
    ),
    MadeBook(
        kind="soft hyphens",
        text=plain("CHAPTER I", "CHAPTER II").replace("tarpaulin", "tar\xadpau\xadlin"),
        heads=("CHAPTER I", "CHAPTER II"),
        present=("tarpaulin",),
    ),
    MadeBook(
        kind="two Project Gutenberg files in one",
        text="".join(
            f"The Project Gutenberg eBook of {name}\n\n*** START OF THE PROJECT GUTENBERG EBOOK {name} ***\n\n{name}\n\n\n{plain('CHAPTER I', 'CHAPTER II')}\n\n*** END OF THE PROJECT GUTENBERG EBOOK {name} ***\n\nLicence text\n\n"
            for name in ("LAMPS", "WELLS")
        ),
        heads=("LAMPS, CHAPTER I", "LAMPS, CHAPTER II", "WELLS, CHAPTER I", "WELLS, CHAPTER II"),
        absent=("Licence text",),
        says=("2 Project Gutenberg texts", "line 1, line 26: cut it there"),
    ),
    MadeBook(
        kind="two works under their titles",
        text=plain("LAMPS\n\nCHAPTER I", "CHAPTER II", "WELLS\n\nCHAPTER I", "CHAPTER II"),
        heads=("LAMPS, CHAPTER I", "LAMPS, CHAPTER II", "WELLS, CHAPTER I", "WELLS, CHAPTER II"),
        says=("'LAMPS' at line 1, 'WELLS' at line 17",),
    ),
    MadeBook(
        kind="two works under their titles and authors",
        text=plain(
            "LAMPS\n\nby A. N. Author\n\n\nCHAPTER I",
            "CHAPTER II",
            "WELLS\n\nby A. N. Other\n\n\nCHAPTER I",
            "CHAPTER II",
        ),
        heads=("LAMPS, CHAPTER I", "LAMPS, CHAPTER II", "WELLS, CHAPTER I", "WELLS, CHAPTER II"),
        absent=("Author", "Other"),
        says=("'LAMPS' at line 1, 'WELLS' at line 20",),
    ),
    MadeBook(
        kind="the second work of a file has a preface",
        text=plain("CHAPTER I", "CHAPTER II", "PREFACE\n\nA word about wells.\n\n\nCHAPTER I", "CHAPTER II"),
        heads=("CHAPTER I", "CHAPTER II", "CHAPTER I", "CHAPTER II"),
        absent=("about wells",),
        says=("the numbers start over after 2",),
    ),
    MadeBook(
        kind="a section that starts over without a word",
        text=plain("CHAPTER I", "CHAPTER II", "CHAPTER I", "CHAPTER II"),
        heads=("CHAPTER I", "CHAPTER II", "CHAPTER I", "CHAPTER II"),
        says=("002-chapter-i (line 15): the numbers start over after 2", "cut the file above its title"),
    ),
]

REGEX = [
    MadeBook(kind="--chapter_regex", text=plain("[ 1 ]", "[ 2 ]"), regex=r"\[ \d+ \]", heads=("[ 1 ]", "[ 2 ]")),
    MadeBook(
        kind="--chapter_regex for scene breaks",
        text=f"{TEXT}\n\n* * *\n\n{TEXT}\n\n* * *\n\n{TEXT}",
        regex=r"\* \* \*",
        heads=("1", "2", "3"),
    ),
    MadeBook(
        kind="--chapter_regex for what the rules reject",
        text=plain("the lamp, again", "the stair, again"),
        regex=r"the \w+, again",
        heads=("the lamp, again", "the stair, again"),
    ),
    MadeBook(
        kind="--chapter_regex keeps the text before the first match",
        text=plain("== Stair ==", "== Well ==", front=f"A TITLE\n\n{TEXT}"),
        regex="== .* ==",
        heads=("Untitled", "== Stair ==", "== Well =="),
    ),
]

MARKUP = [
    MadeBook(
        kind="HTML: chapters by nesting, sections stay text",
        suffix=".html",
        text=f"<h1>Lamps</h1><h2>Alpha</h2>{P}<h3>a</h3>{P}<h3>b</h3>{P}<h3>c</h3>{P}<h2>Beta</h2>{P}",
        heads=("Alpha", "Beta"),
    ),
    MadeBook(
        kind="HTML: titles above the chapters survive",
        suffix=".html",
        text=f"<h1>Lamps</h1><h2>The Old House</h2><h3>Alpha</h3>{P}<h3>Beta</h3>{P}<h2>The New House</h2><h3>Gamma</h3>{P}",
        heads=("The Old House, Alpha", "The Old House, Beta", "The New House, Gamma"),
    ),
    MadeBook(
        kind="HTML: an image is the heading",
        suffix=".html",
        text=f'<h2><img src="1" alt="CHAPTER I"/></h2>{P}<h2><img src="2" alt="CHAPTER II"/></h2>{P}',
        heads=("CHAPTER I", "CHAPTER II"),
    ),
    MadeBook(
        kind="HTML: contents in a table",
        suffix=".html",
        text='<table><tr><td>I.</td><td><a href="#a">The Lamp</a></td><td>1</td></tr><tr><td>II.</td><td><a href="#b">The Stair</a></td><td>9</td></tr></table>'
        + f"<h2>I. The Lamp</h2>{P}<h2>II. The Stair</h2>{P}",
        heads=("I. The Lamp", "II. The Stair"),
    ),
    MadeBook(
        kind="HTML: contents as links",
        suffix=".html",
        text="".join(f'<p><a href="#{i}">Chapter {i}</a></p>' for i in (1, 2, 3))
        + "".join(f"<h2>Chapter {i}</h2>{P}" for i in (1, 2, 3)),
        heads=("Chapter 1", "Chapter 2", "Chapter 3"),
    ),
    MadeBook(
        kind="HTML: the whole book preformatted",
        suffix=".html",
        text=f"<pre>{plain('CHAPTER I', 'CHAPTER II', text=TEXT.replace('.', '.<b></b>'))}</pre>",
        heads=("CHAPTER I", "CHAPTER II"),
    ),
    MadeBook(
        kind="HTML: headings as paragraphs",
        suffix=".html",
        text=f"<p>CHAPTER I</p>{P}<p>CHAPTER II</p>{P}",
        heads=("CHAPTER I", "CHAPTER II"),
    ),
    MadeBook(
        kind="HTML: notes and pages inside paragraphs",
        suffix=".html",
        text=f'<h2>Chapter 1</h2><p>He said<a class="noteref" href="#n">1</a> so, <span class="pagenum">[Pg 12]</span>then left.</p>{P}<h2>Chapter 2</h2>{P}<div class="footnotes"><p id="n">1. A note.</p></div>',
        heads=("Chapter 1", "Chapter 2"),
        present=("He said so, then left.",),
        absent=("A note", "Pg 12"),
    ),
    MadeBook(
        kind="HTML: a picture alone in a paragraph is the heading",
        suffix=".html",
        text=f"<p><img alt='CHAPTER I'></p>{P}<p><img alt='A lamp, burning'></p><p><img alt='CHAPTER II'></p>{P}",
        heads=("CHAPTER I", "CHAPTER II"),
        absent=("burning",),
    ),
    MadeBook(
        kind="HTML: two line breaks end a paragraph",
        suffix=".html",
        text="<div>" + "<br><br>".join(f"CHAPTER {n}<br>\n<br>{TEXT}" for n in ("I", "II")) + "</div>",
        heads=("CHAPTER I", "CHAPTER II"),
    ),
    MadeBook(
        kind="HTML: private-use characters that the reader itself uses as marks",
        suffix=".html",
        text=f"<h2>I</h2><p>A lamp\ue010\ue011 &#xE000; was\ue012 lit.</p>{P}<h2>II</h2>{P}",
        heads=("I", "II"),
        present=("was\ufffd lit.",),
    ),
    MadeBook(
        kind="HTML: soft hyphens as entities",
        suffix=".html",
        text=f"<h2>I</h2><p>The fer&shy;ry&#173;man&#xAD;'s lamp&#8203; was lit.</p>{P}<h2>II</h2>{P}",
        heads=("I", "II"),
        present=("The ferryman's lamp was lit.",),
    ),
    MadeBook(
        kind="EPUB: pages without marked headings, of which the navigation names the first alone",
        suffix=".epub",
        text=make_epub(
            [(f"c{i}.xhtml", f"<p>CHAPTER {number}</p>{P}") for i, number in enumerate(("ONE", "TWO", "THREE"))],
            nav="<ol><li><a href='c0.xhtml'>Start</a></li></ol>",
        ),
        heads=("CHAPTER ONE", "CHAPTER TWO", "CHAPTER THREE"),
    ),
    MadeBook(
        kind="EPUB: navigation names pages without headings",
        suffix=".epub",
        text=make_epub([(f"c{i}.xhtml", P) for i in range(3)], nav=NAV_THREE),
        heads=THREE,
    ),
    MadeBook(
        kind="EPUB: pages without headings or navigation",
        suffix=".epub",
        text=make_epub([(f"c{i}.xhtml", P) for i in range(3)]),
        heads=("1", "2", "3"),
    ),
    MadeBook(
        kind="EPUB: parts and chapters by the nested ncx",
        suffix=".epub",
        text=make_epub(
            [
                ("p.xhtml", "<h1>The Old House</h1>"),
                ("a.xhtml", f"<h1>Alpha</h1>{P}<h2>x</h2>{P}<h2>y</h2>{P}"),
                ("b.xhtml", f"<h1>Beta</h1>{P}"),
            ],
            ncx='<navPoint><navLabel><text>The Old House</text></navLabel><content src="p.xhtml"/><navPoint><navLabel><text>Alpha</text></navLabel><content src="a.xhtml"/></navPoint><navPoint><navLabel><text>Beta</text></navLabel><content src="b.xhtml"/></navPoint></navPoint>',
        ),
        heads=("The Old House, Alpha", "The Old House, Beta"),
    ),
    MadeBook(
        kind="EPUB: cover, title page and copyright in the navigation",
        suffix=".epub",
        text=make_epub(
            [
                ("t.xhtml", "<p>Lamps</p>"),
                ("c.xhtml", "<p>Copyright 1999. All rights reserved.</p>"),
                *((f"c{i}.xhtml", f"<h1>{name}</h1>{P}") for i, name in enumerate(THREE)),
            ],
            nav='<ol><li><a href="t.xhtml">Title Page</a></li><li><a href="c.xhtml">Copyright</a></li>'
            + NAV_THREE.removeprefix("<ol>"),
        ),
        heads=THREE,
        absent=("1999",),
    ),
    MadeBook(
        kind="Markdown",
        suffix=".md",
        text=f"---\nauthor: x\n---\n# Lamps\n\n## The Lamp\n{TEXT}\n\n## The Stair\n\n{TEXT}",
        heads=("The Lamp", "The Stair"),
    ),
]

ENCODINGS = [
    MadeBook(
        kind="UTF-8 with few letters beyond ASCII and as many bad bytes as half of them",
        text=plain("I", "II", text=TEXT + " Hélène déjà vu.").encode() + b"caf\xe9 \x93noir.\x94",
        heads=("I", "II"),
        present=("Hélène déjà vu.", "café “noir.”"),
        assumed="UTF-8",
    ),
    MadeBook(
        kind="UTF-8 with a bad byte",
        text=plain("Chapitre I", "Chapitre II", text=FRENCH + " Été, forêt, garçon.").encode() + b"caf\xe9 noir.",
        heads=("Chapitre I", "Chapitre II"),
        present=("déjà", "café noir"),
        assumed="UTF-8",
    ),
    MadeBook(
        kind="Windows-1252",
        text=plain("Chapitre I", "Chapitre II", text=FRENCH).encode("cp1252"),
        heads=("Chapitre I", "Chapitre II"),
        present=("déjà",),
        assumed="cp1252",
    ),
    MadeBook(
        kind="Windows-1251",
        text=plain(
            "Глава 1",
            "Глава 2",
            text="Дождь пришёл из-за холма ещё до полудня и остался до самого вечера, когда зажгли лампы.",
        ).encode("cp1251"),
        heads=("Глава 1", "Глава 2"),
        present=("Дождь пришёл",),
        assumed="cp1251",
    ),
    MadeBook(
        kind="UTF-16 without its mark",
        text=plain("Chapitre I", "Chapitre II", text=FRENCH).encode("utf-16-le"),
        heads=("Chapitre I", "Chapitre II"),
        present=("déjà",),
        assumed="utf-16-le",
    ),
    MadeBook(
        kind="UTF-32 with its mark",
        text=plain("Chapitre I", "Chapitre II", text=FRENCH).encode("utf-32"),
        heads=("Chapitre I", "Chapitre II"),
        present=("déjà",),
    ),
    MadeBook(
        kind="NULs and CR LF",
        text=plain("CHAPTER I", "CHAPTER II").replace("\n", "\r\n").replace("rain", "ra\x00in").encode(),
        heads=("CHAPTER I", "CHAPTER II"),
        present=("The rain came",),
        assumed="NULs",
    ),
]

MADE_BOOKS = [*PARTS, *UNSEEN, *CHAPTERS, *LANGUAGES, *LEFT_OUT, *REGEX, *MARKUP, *ENCODINGS]
