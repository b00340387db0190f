"""A book's report: what was read, what looks wrong, and where every word went."""

from __future__ import annotations

from collections.abc import Sequence

from setup_data.book import chapter_key
from setup_data.reading.account import Account
from setup_data.reading.read import ReadResult

FIRST_WORDS = 8


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


def _account_lines(account: Account) -> list[str]:
    rows = [f"| {fate} | {words:,} |" for fate, words in account.words.items()]
    lines = ["\n## Where the words went\n", "| | words |", "|---|---:|", *rows]
    lines.append(f"| **all of the source** | **{account.num_source_words:,}** |")
    if account.num_joined:
        lines.append(f"\n{account.num_joined:,} words were broken at a line's end and put together again.")
    return lines


def _stretch_lines(account: Account) -> list[str]:
    if not account.stretches:
        return []
    rows = [
        f"| {stretch.fate} | {stretch.num_words:,} | {_cell(stretch.place)} | {_cell(stretch.first_words)} ... |"
        for stretch in account.stretches
    ]
    return [
        "\n## Left out: every piece of more than 100 words\n",
        "| as | words | where | begins |",
        "|---|---:|---|---|",
        *rows,
    ]


def _chapter_lines(result: ReadResult) -> list[str]:
    lines = ["\n## Chapters\n", "| key | heading | words | begins |", "|---|---|---:|---|"]
    for index, chapter in enumerate(result.book.chapters):
        begins = _cell(" ".join(chapter.text.split(None, FIRST_WORDS)[:FIRST_WORDS]))
        key = chapter_key(index, chapter.header)
        lines.append(f"| `{key}` | {_cell(chapter.header)} | {chapter.num_words:,} | {begins} ... |")
    return lines


def summary(result: ReadResult) -> str:
    """One line: how many chapters and words, and how many words are left out."""
    words = sum(chapter.num_words for chapter in result.book.chapters)
    return (
        f"{result.book.story_id}: {len(result.book.chapters)} chapters, {words:,} words; "
        f"{result.account.num_left_out:,} of {result.account.num_source_words:,} words of the file left out"
    )


def report_book(result: ReadResult) -> str:
    """The report in Markdown; docs/books.md explains each of its lines."""
    book = result.book
    words = sum(chapter.num_words for chapter in book.chapters)
    lines = [
        f"# {book.title} (`{book.story_id}`)\n",
        f"From `{result.path.name}`: {len(book.chapters)} chapters, {words:,} words; found by: {result.found_by}.\n",
        *(f"* Assumed: {note}" for note in _few(result.assumed)),
        *(f"* **Check:** {suspicion}" for suspicion in result.suspicions),
        *_account_lines(result.account),
        *_stretch_lines(result.account),
        *_chapter_lines(result),
    ]
    return "\n".join(lines) + "\n"


def _few(notes: Sequence[str]) -> list[str]:
    """At most ten notes, and how many more there are."""
    more = len(notes) - 10
    return [*notes[:10], f"... and {more} more"] if more > 0 else list(notes)
