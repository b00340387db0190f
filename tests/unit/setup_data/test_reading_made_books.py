"""The made books: headings come back, noise is out of the text, the report says what it should, the account sums up."""

from __future__ import annotations

from pathlib import Path

import pytest

from setup_data.reading.read import read_book_file
from support.made_books import MADE_BOOKS, MadeBook

DOCS = Path(__file__).resolve().parents[3] / "docs" / "books.md"


@pytest.mark.parametrize("made", MADE_BOOKS, ids=lambda made: made.kind)
def test_made_book(made: MadeBook, tmp_path: Path) -> None:
    path = tmp_path / f"untitled{made.suffix}"
    path.write_bytes(made.text if isinstance(made.text, bytes) else made.text.encode())
    result = read_book_file(path, chapter_regex=made.regex)
    assert tuple(chapter.header for chapter in result.book.chapters) == made.heads
    text = "\n\n".join(chapter.text for chapter in result.book.chapters)
    assert [each for each in made.absent if each in text] == []
    assert [each for each in made.present if each not in text] == []
    found = "\n".join(result.suspicions)
    assert [each for each in made.says if each not in found] == []
    assert made.assumed in " ".join(result.assumed)
    assert sum(result.account.words.values()) == result.account.num_source_words


def test_the_table_in_the_docs_is_complete() -> None:
    table = DOCS.read_text(encoding="utf-8")
    assert [made.kind for made in MADE_BOOKS if f"| {made.kind} |" not in table] == []
    assert f"{len(MADE_BOOKS)} made inputs" in table
