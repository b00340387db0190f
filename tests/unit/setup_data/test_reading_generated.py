"""Generated books come back exactly, and every account sums up, whatever the file.

    GENERATED_BOOKS=20000 python -m pytest tests/unit/setup_data/test_reading_generated.py

The account is checked inside of every read: a word that is lost is an AccountError.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from openrlhf.errors import UserError
from support.book_files import split_html, split_markdown, split_text
from support.generated_books import SOUPS, GeneratedBook, generated_books

EXAMPLES = settings(
    max_examples=int(os.environ.get("GENERATED_BOOKS", "300")),
    deadline=None,
    derandomize="GENERATED_BOOKS" not in os.environ,
    database=None,
    phases=[Phase.generate],  # a failing book is read as it is; to make it smaller takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@EXAMPLES
@given(generated_books())
def test_a_generated_book_comes_back(book: GeneratedBook) -> None:
    result = split_text(book.text)
    assert [chapter.header for chapter in result.book.chapters] == [header for header, _ in book.chapters]
    assert [chapter.text for chapter in result.book.chapters] == [text for _, text in book.chapters]
    assert sum(result.account.words.values()) == len(book.text.split())


@EXAMPLES
@given(SOUPS, st.sampled_from(("\n\n", "\n", "\n\n\n\n")), st.sampled_from((None, r"\* \* \*", "I+|[A-Z ]+")))
def test_the_account_of_anything_sums_up(pieces: list[str], joint: str, chapter_regex: str | None) -> None:
    text = joint.join(pieces)
    for read in (split_text, split_markdown, split_html):
        try:
            result = read(text, chapter_regex)
        except UserError:  # no text in it, or nothing that matches
            continue
        assert sum(result.account.words.values()) == result.account.num_source_words
