"""Books made by Hypothesis: chapters, parts, contents table, front matter and noise that are known."""

from __future__ import annotations

import random
import textwrap
from dataclasses import dataclass

from hypothesis import strategies as st

WORDS = (
    "the a lamp rain boat quay ferryman winter stair well door house road field horse letter window kettle bread coat "
    "and but so then while under over before after beside took held saw heard left kept went stood asked said would had "
    "was were not never always slowly again together"
).split()
TITLE_WORDS = ("Lamp", "Rain", "Boat", "Quay", "Winter", "Stair", "Well", "Door", "House", "Road", "Sea-dog", "Horse's")
SMALL = ("One Two Three Four Five Six Seven Eight Nine Ten Eleven Twelve Thirteen Fourteen Fifteen Sixteen Seventeen "
         "Eighteen Nineteen Twenty").split()  # fmt: skip
ROMANS = "I II III IV V VI VII VIII IX X XI XII XIII XIV XV XVI XVII XVIII XIX XX".split()
LOOK_ALIKES = (
    "Chapter 3 was the one that everybody had liked best of all.",
    "Part of it was true, and the other part was kept in a drawer.",
    "I am not sure of it, he said, and two is not enough.",
    "Book learning was never worth a loaf on that side of the river.",
)


@dataclass(frozen=True)
class GeneratedBook:
    """A file's text, and what must come back."""

    text: str
    chapters: tuple[tuple[str, str], ...]
    """(heading, text)"""


@dataclass(frozen=True)
class Style:
    """How a book writes its chapters' headings."""

    word: str
    numbers: tuple[str, ...]
    title: str
    """`none`, `line` (on the heading's line) or `below` (a paragraph of its own)."""

    def printed(self, number: int, title: str) -> tuple[str, str]:
        """(what the file has, what the chapter's heading is)"""
        label = f"{self.word} {self.numbers[number - 1]}".strip()
        if self.title == "none":
            return label, label
        if self.title == "below":
            return f"{label}\n\n{title}", f"{label}: {title}" if self.word else f"{label} {title}"
        return f"{label}. {title}", f"{label}: {title}" if self.word else f"{label}. {title}"


DIGITS = tuple(map(str, range(1, 21)))
PREFACES = st.sampled_from(("PREFACE", "PREFACE", "FOREWORD", "Introduction", "TO THE READER", "AUTHOR'S NOTE"))
STYLES = st.builds(
    Style,
    st.sampled_from(
        ("CHAPTER", "Chapter", "Ch.", "LETTER", "ADVENTURE", "Chapitre", "Kapitel", "Capítulo", "ГЛАВА", "")
    ),
    st.sampled_from((tuple(ROMANS), DIGITS, tuple(SMALL))),
    st.sampled_from(("none", "line", "below")),
)


def sentence(rng: random.Random) -> str:
    """A sentence of 6 to 20 words."""
    text = " ".join(rng.choices(WORDS, k=rng.randint(6, 20))) + rng.choice("...?!")
    text = text[0].upper() + text[1:]
    return f'"{text}"' if rng.random() < 0.2 else text


def paragraph(rng: random.Random) -> str:
    """A paragraph of one to four sentences."""
    return " ".join(sentence(rng) for _ in range(rng.randint(1, 4)))


@dataclass(frozen=True)
class Noise:
    """What is sprinkled over the chapters."""

    pictures: bool
    pages: bool
    notes: bool
    look_alikes: bool
    italics: bool


def chapter_body(rng: random.Random, noise: Noise, count: list[int]) -> tuple[str, str]:
    """(as printed, as it must come back); `count` numbers the notes through the book."""
    printed, expected = [], []
    for text in [paragraph(rng) for _ in range(rng.randint(3, 6))]:
        shown, notes = text, []
        if noise.italics and rng.random() < 0.5:
            first, _, rest = shown.partition(" ")
            shown = f"_{first}_ {rest}" if first[0].isalpha() else shown
        if noise.notes and rng.random() < 0.5:
            count[0] += 1
            shown += f"[{count[0]}]"
            notes.append(f"[{count[0]}] {sentence(rng)}")
        if noise.pages and rng.random() < 0.3:
            shown += f" [Pg {rng.randint(1, 400)}]"
        printed += [shown, *notes]
        expected.append(text)
        if noise.pictures and rng.random() < 0.3:
            printed.append(f"[Illustration: {sentence(rng)}]")
        if noise.look_alikes and rng.random() < 0.3:
            like = rng.choice(LOOK_ALIKES)
            printed.append(like)
            expected.append(like)
    return "\n\n".join(printed), "\n\n".join(expected)


def make_titles(rng: random.Random, number: int) -> list[str]:
    """Titles that differ, of two or three words."""
    made: list[str] = []
    for _ in range(number):
        title = f"The {' '.join(rng.choices(TITLE_WORDS, k=rng.randint(1, 2)))}"
        made.append(title if title not in made else f"{title} {SMALL[len(made) % 20]}")
    return made


def contents_table(entries: list[tuple[str, str]], *, with_pages: bool, in_one: bool, is_announced: bool) -> str:
    """A table of the headings as they are printed, mostly below its own title."""
    lines = [" ".join(printed.split()) for printed, _ in entries]
    if with_pages:
        lines = [f"{line} . . . . . {7 + 11 * i}" for i, line in enumerate(lines)]
    return ("CONTENTS\n\n" if is_announced else "") + ("\n" if in_one else "\n\n").join(lines)


def wrapped(text: str, width: int) -> str:
    """The text with every paragraph wrapped."""
    if not width:
        return text
    return "\n\n".join(
        "\n".join(textwrap.wrap(part, width, break_long_words=False, break_on_hyphens=False))
        if "\n" not in part
        else part
        for part in text.split("\n\n")
    )


@st.composite
def generated_books(draw: st.DrawFn) -> GeneratedBook:
    """A plain text book and its chapters."""
    rng = random.Random(draw(st.integers(0, 1 << 32)))
    style = draw(STYLES)
    noise = Noise(*(draw(st.booleans()) for _ in range(5)))
    num_parts = draw(st.sampled_from((0, 0, 2, 3)))
    restarts = draw(st.booleans())
    sizes = [draw(st.integers(3, 7)) for _ in range(max(1, num_parts))]
    sizes = sizes if sum(sizes) <= 20 else [3] * len(sizes)
    names = make_titles(rng, sum(sizes))
    part_word = draw(st.sampled_from(("PART", "BOOK", "VOLUME", "Part", "EPOCH")))
    prologue, epilogue = draw(st.booleans()), draw(st.booleans())
    count = [0]
    entries: list[tuple[str, str]] = []
    pieces: list[str] = []
    chapters: list[tuple[str, str]] = []

    def add(printed: str, header: str) -> None:
        body, expected = chapter_body(rng, noise, count)
        pieces.append(f"{printed}\n\n{body}")
        chapters.append((header, expected))
        entries.append((printed, header))

    if prologue:
        add("PROLOGUE", "PROLOGUE")
    number = done = 0
    for part, size in enumerate(sizes):
        label = f"{part_word} {SMALL[part].upper() if part_word.isupper() else SMALL[part]}" if num_parts else ""
        number = 0 if restarts and label else number
        if label:
            pieces.append(label)
            entries.append((label, label))
        for _ in range(size):
            number, done = number + 1, done + 1
            printed, header = style.printed(number, names[done - 1])
            add(printed, f"{label}, {header}" if label else header)
    if epilogue:
        add("EPILOGUE", "EPILOGUE")
    front = ["THE FERRYMAN OF THE QUAY", "by A. N. Author"]
    if draw(st.booleans()):
        table = contents_table(
            entries,
            with_pages=draw(st.booleans()),
            in_one=draw(st.booleans()),
            is_announced=draw(st.sampled_from((True, True, True, False))),
        )
        front.append(table)
    if draw(st.booleans()):
        front.insert(draw(st.integers(2, len(front))), f"{draw(PREFACES)}\n\n{paragraph(rng)}")
    back = ["THE END"] if draw(st.booleans()) else []
    back += [f"GLOSSARY\n\n{paragraph(rng)}"] if draw(st.booleans()) else []
    text = "\n\n\n\n".join([*front, *pieces, *back])
    text = wrapped(text, draw(st.sampled_from((0, 60, 72))))
    if draw(st.integers(0, 3)) == 0:
        text = (
            f"Title: The Ferryman\n\n*** START OF THE PROJECT GUTENBERG EBOOK THE FERRYMAN ***\n\n{text}\n\n"
            f"*** END OF THE PROJECT GUTENBERG EBOOK THE FERRYMAN ***\n\n{paragraph(rng)}"
        )
    return GeneratedBook(text=text, chapters=tuple(chapters))


SOUP = st.sampled_from(
    (*LOOK_ALIKES, "CHAPTER I", "CHAPTER II", "Chapter 9: The Lamp", "I", "II.", "3", "12", "PART ONE", "EPILOGUE", "NOTES", "CONTENTS",
     "THE END", "PREFACE", "THE LAMP", "* * *", "[Illustration: a", "b]", "[1] A note.", "so[1] it", "extra-\nordinary", "_a_ b_",
     "{12}", "[Pg 4]", "*** START OF THE PROJECT GUTENBERG EBOOK X ***", "*** END OF THE PROJECT GUTENBERG EBOOK X ***", "* star",
     "word* and", "lamp.1 He", "1 body", "    indented\nand not\n    indented", "\x0c", "\u2028x", "I. A\nII. B\nIII. C", "[", "]", "#", "## x",
     "The rain came over the hill before noon and stayed until the lamps were lit, and nobody on the quay looked up for it."),
)  # fmt: skip
SOUPS = st.lists(st.one_of(SOUP, st.text(max_size=30)), min_size=1, max_size=40)
