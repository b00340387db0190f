"""A book as the pipeline keeps it: a Markdown file that a person can read and correct.

    # Title
    *Genre*

    ## Chapter 1: Its heading

    Paragraphs, separated by blank lines.

The genre line is optional. A line of the story that itself starts with `#` is written as `\\#`.
The file's name, without `.md`, is the story's id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from openrlhf.errors import UserError
from openrlhf.utils.atomic_io import atomic_write


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """One chapter: its heading as printed (with its volume, where numbering restarts) and its text."""

    header: str
    text: str

    @cached_property
    def num_words(self) -> int:
        return len(self.text.split())

    def render(self) -> str:
        """Heading and text, as they stand in `story_text`."""
        return f"{self.header}\n\n{self.text}"


@dataclass(frozen=True, kw_only=True)
class Book:
    """A story and its chapters in reading order."""

    story_id: str
    title: str
    chapters: tuple[Chapter, ...]
    genre: str = ""

    def text_before(self, chapter_index: int, *, last_n: int | None = None) -> str:
        """The chapters before `chapter_index`, or only the last `last_n` of them."""
        first = 0 if last_n is None else max(0, chapter_index - last_n)
        return "\n\n".join(chapter.render() for chapter in self.chapters[first:chapter_index])


def chapter_key(chapter_index: int, header: str) -> str:
    """A key that is unique in its book and sorts in reading order, e.g. `023-volume-ii-chapter-i`."""
    slug = re.sub(r"[^\w]+", "-", header.lower()).strip("-")[:60].rstrip("-")
    return f"{chapter_index:03d}-{slug}"


def parse_markdown(text: str, *, story_id: str, source: str) -> Book:
    """The book in Markdown `text`. Raises UserError with `source` and line where the layout is not the one above."""
    lines = text.removeprefix("\ufeff").split("\n")
    title, genre = "", ""
    headers: list[str] = []
    bodies: list[list[str]] = []
    for number, line in enumerate(lines, start=1):
        if line.startswith("## "):
            headers.append(line[3:].strip())
            bodies.append([])
        elif bodies:
            bodies[-1].append(line[1:] if line.startswith("\\#") else line)
        elif line.startswith("# ") and not title:
            title = line[2:].strip()
        elif re.fullmatch(r"\*[^*]+\*\s*", line) and title and not genre:
            genre = line.strip().strip("*").strip()
        elif line.strip():
            raise UserError(f"{source}:{number}: expected `# Title`, `*Genre*` or `## Chapter`, found {line[:60]!r}")
    if not title or not headers:
        raise UserError(f"{source}: a book needs a `# Title` line and at least one `## Chapter` line")
    chapters = tuple(
        Chapter(header=header, text="\n".join(body).strip()) for header, body in zip(headers, bodies, strict=True)
    )
    for chapter in chapters:
        if not chapter.header or not chapter.text:
            raise UserError(f"{source}: chapter {chapter.header!r} is empty: remove its heading or add its text")
    return Book(story_id=story_id, title=title, genre=genre, chapters=chapters)


def _markdown_parts(book: Book) -> Iterator[str]:
    """The file in pieces, so that a large book is not held twice."""
    yield f"# {book.title}\n"
    if book.genre:
        yield f"\n*{book.genre}*\n"
    for chapter in book.chapters:
        text = re.sub(r"^#", r"\\#", chapter.text, flags=re.MULTILINE) if "#" in chapter.text else chapter.text
        yield f"\n## {chapter.header}\n\n{text}\n"


def to_markdown(book: Book) -> str:
    """The inverse of `parse_markdown`."""
    return "".join(_markdown_parts(book))


def read_book(path: Path) -> Book:
    """The book in `path`. Raises UserError that names the file and, where it can, the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error}); run it through setup_data.read_books first") from error
    return parse_markdown(text, story_id=path.stem, source=str(path))


def write_book(book: Book, folder: Path) -> Path:
    """Writes `folder/<story_id>.md`."""
    path = folder / f"{book.story_id}.md"
    with atomic_write(path) as file:
        file.writelines(_markdown_parts(book))
    return path


def read_books(folder: Path) -> list[Book]:
    """Every book of a folder, by story id. Raises UserError when there is none."""
    paths = sorted(folder.glob("*.md"))
    if not paths:
        raise UserError(f"{folder}: no book (*.md) found; make them with `python -m setup_data.read_books`")
    return [read_book(path) for path in paths]
