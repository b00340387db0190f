"""From a book file to its chapters and its account: decode, blocks, noise, headings, cut, clean, settle."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from openrlhf.errors import UserError
from setup_data.book import Book, Chapter
from setup_data.reading.account import Account, settle
from setup_data.reading.choose import find_outline
from setup_data.reading.clean import Cleaner
from setup_data.reading.cut import Cut, cut_book
from setup_data.reading.decode import decode
from setup_data.reading.epub import read_epub
from setup_data.reading.findings import find_suspicions
from setup_data.reading.markup import read_html
from setup_data.reading.noise import find_noise
from setup_data.reading.plain import read_markdown, read_plain
from setup_data.reading.source import Fate, Source
from setup_data.reading.view import View


@dataclass(frozen=True, kw_only=True)
class ReadResult:
    """One book as read, and how."""

    path: Path
    book: Book
    found_by: str
    """Which kind of heading the chapters were found by."""
    assumed: tuple[str, ...]
    account: Account
    suspicions: tuple[str, ...]


def story_id_of(path: Path) -> str:
    """The file's name as an id: ASCII letters, digits and underscores, in lower case. Raises UserError for no id."""
    ascii_name = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode()
    story_id = re.sub(r"[^a-z0-9]+", "_", ascii_name.lower()).strip("_")
    if not story_id:
        raise UserError(f"{path}: no id can be made of this file name; rename it with ASCII letters or digits")
    return story_id


def read_source(path: Path) -> Source:
    """The text and blocks of a book file. Raises UserError for a format that is not known, or a damaged file."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: not a book format that can be read; convert it to one of {', '.join(READERS)}")
    try:
        return reader(path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def read_book_file(path: Path, *, chapter_regex: str | None = None, max_chapters: int | None = None) -> ReadResult:
    """One book with its chapters, or the first `max_chapters` of them.

    Raises:
        UserError: the file cannot be read, has no text, or `chapter_regex` matches nothing in it.
        AccountError: the words do not sum up.
    """
    story_id = story_id_of(path)
    source = read_source(path)
    title = " ".join((source.title or path.stem.replace("_", " ").strip().title()).split())
    try:
        return split_source(source, path=path, story_id=story_id, title=title, chapter_regex=chapter_regex,
                            max_chapters=max_chapters)  # fmt: skip
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def split_source(
    source: Source, *, path: Path, story_id: str, title: str, chapter_regex: str | None = None,
    max_chapters: int | None = None,
) -> ReadResult:  # fmt: skip
    """The chapters and the account of a source that was read."""
    noise = find_noise(source)
    view = View(source, noise.fates)
    outline = find_outline(view, re.compile(chapter_regex) if chapter_regex is not None else None)
    if chapter_regex is not None and not outline.heads:
        raise UserError(f"no paragraph matches --chapter_regex {chapter_regex!r} as a whole")
    view = view.again()
    cut = cut_book(view, outline, noise, title=title)
    if not cut.sections:
        raise UserError("there is no text in it")
    _limit(view, cut, max_chapters)
    for section in cut.sections:
        for index in section.blocks:
            view.fates[index] = Fate.CHAPTER
    cleaner = Cleaner(source=source, noise=noise)
    chapters = tuple(
        Chapter(header=section.header, text=cleaner.chapter(section.blocks, view.fates)) for section in cut.sections
    )
    account = settle(source, view, cut.sections, chapters, cleaner)
    return ReadResult(
        path=path,
        book=Book(story_id=story_id, title=title, chapters=chapters),
        found_by=outline.found_by,
        assumed=source.assumed,
        account=account,
        suspicions=tuple(find_suspicions(view, outline, cut, chapters, noise)),
    )


def _limit(view: View, cut: Cut, max_chapters: int | None) -> None:
    """Keeps the first chapters only; the words of the others are accounted for."""
    for section in cut.sections[max_chapters:] if max_chapters is not None else []:
        for index in [*section.blocks, *([section.head] if section.head is not None else [])]:
            view.fates[index] = Fate.LIMIT
    if max_chapters is not None:
        del cut.sections[max_chapters:]


READERS: dict[str, Callable[[Path], Source]] = {
    ".txt": lambda path: read_plain(decode(path.read_bytes())),
    ".md": lambda path: read_markdown(decode(path.read_bytes())),
    ".markdown": lambda path: read_markdown(decode(path.read_bytes())),
    ".html": lambda path: read_html(path.read_bytes()),
    ".htm": lambda path: read_html(path.read_bytes()),
    ".xhtml": lambda path: read_html(path.read_bytes()),
    ".epub": read_epub,
}
