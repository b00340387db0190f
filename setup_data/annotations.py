"""What a model (or a person) wrote about one book: `annotations/<story_id>.json`.

{"story_id": "...", "title": "...", "genre": "...", "high_level_plot_summary": "...",
 "chapters": [{"chapter_index": 0, "header": "...", "synopsis": "...",
               "prior_plot_summary": "the story before this chapter",
               "character_sheets": {"name": "what is known of them before this chapter"}}, ...]}
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openrlhf.errors import UserError
from openrlhf.utils.atomic_io import atomic_write
from setup_data.book import Book


@dataclass(frozen=True, kw_only=True)
class ChapterAnnotation:
    """One chapter's synopsis, and what a reader knows before it."""

    chapter_index: int
    header: str
    synopsis: str
    prior_plot_summary: str
    character_sheets: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BookAnnotations:
    """One book's annotations, a `ChapterAnnotation` for each of its chapters in order."""

    story_id: str
    title: str
    genre: str
    high_level_plot_summary: str
    chapters: tuple[ChapterAnnotation, ...]

    def to_json(self) -> str:
        """The file's text."""
        record = {
            "story_id": self.story_id,
            "title": self.title,
            "genre": self.genre,
            "high_level_plot_summary": self.high_level_plot_summary,
            "chapters": [dict(vars(chapter)) for chapter in self.chapters],
        }
        return json.dumps(record, ensure_ascii=False, indent=2) + "\n"


def _take(record: dict[str, Any], name: str, kind: type, where: str) -> Any:
    """Field `name` of `record`, checked: there, of its type, and no blank text."""
    if name not in record:
        raise UserError(f"{where}: field {name!r} is missing")
    value = record[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{where}: field {name!r} must be {kind.__name__}, got {type(value).__name__} {value!r:.60}")
    return value


def _parse_chapter(record: Any, where: str) -> ChapterAnnotation:
    if not isinstance(record, dict):
        raise UserError(f"{where}: must be an object")
    sheets = _take(record, "character_sheets", dict, where)
    for name, sheet in sheets.items():
        if not isinstance(sheet, str) or not sheet.strip() or not name.strip():
            raise UserError(f"{where}: character_sheets[{name!r}] must be a text that is not blank")
    return ChapterAnnotation(
        chapter_index=_take(record, "chapter_index", int, where),
        header=_take(record, "header", str, where),
        synopsis=_take(record, "synopsis", str, where),
        prior_plot_summary=_take(record, "prior_plot_summary", str, where),
        character_sheets=sheets,
    )


def read_annotations(path: Path) -> BookAnnotations:
    """The annotations in `path`. Raises UserError with file, chapter and field."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(record, dict):
        raise UserError(f"{path}: must hold one JSON object")
    chapters = _take(record, "chapters", list, str(path))
    return BookAnnotations(
        story_id=_take(record, "story_id", str, str(path)),
        title=_take(record, "title", str, str(path)),
        genre=_take(record, "genre", str, str(path)),
        high_level_plot_summary=_take(record, "high_level_plot_summary", str, str(path)),
        chapters=tuple(_parse_chapter(each, f"{path}: chapters[{i}]") for i, each in enumerate(chapters)),
    )


def write_annotations(annotations: BookAnnotations, folder: Path) -> Path:
    """Writes `folder/<story_id>.json`."""
    path = folder / f"{annotations.story_id}.json"
    with atomic_write(path) as file:
        file.write(annotations.to_json())
    return path


def check_against_book(annotations: BookAnnotations, book: Book, path: Path) -> None:
    """Raises UserError where the annotations are not those of `book`: id, title, chapters, headings or order."""
    for name in ("story_id", "title", "genre"):
        if getattr(annotations, name) != getattr(book, name):
            raise UserError(
                f"{path}: field {name!r} is {getattr(annotations, name)!r}, the book's is {getattr(book, name)!r}"
            )
    if len(annotations.chapters) != len(book.chapters):
        raise UserError(f"{path}: {len(annotations.chapters)} chapters annotated, the book has {len(book.chapters)}")
    for index, (note, chapter) in enumerate(zip(annotations.chapters, book.chapters, strict=True)):
        where = f"{path}: chapters[{index}]"
        if note.chapter_index != index:
            raise UserError(f"{where}: chapter_index is {note.chapter_index}, expected {index} (0-based, in order)")
        if note.header != chapter.header:
            raise UserError(f"{where}: header is {note.header!r}, the book's is {chapter.header!r}")
        if not note.synopsis.strip():
            raise UserError(f"{where}: field 'synopsis' is blank")
        if index > 0 and not note.prior_plot_summary.strip():
            raise UserError(f"{where}: field 'prior_plot_summary' is blank")
