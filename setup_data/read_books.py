r"""Reads a folder of books (.txt, .md, .html, .epub), finds their chapters and reports what it found.

    python -m setup_data.read_books BOOKS_DIR --output_dir WORK_DIR

Each book becomes `WORK_DIR/books/<story_id>.md` (see book.py), which can be corrected by hand, and
`WORK_DIR/reports/<story_id>.md` lists its chapters and what looks wrong. Read the reports before spending GPU time.
Where chapters are not found, read that book again with `--chapter_regex`, which must match a heading's whole paragraph:

    python -m setup_data.read_books BOOKS_DIR/ulysses.txt --output_dir WORK_DIR --overwrite --chapter_regex '\[ \d+ \]'

Books that are in WORK_DIR already stay as they are unless `--overwrite` is given.
"""

from __future__ import annotations

import argparse
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tqdm import tqdm

from openrlhf.utils.atomic_io import atomic_write
from openrlhf.utils.logging import init_logger
from setup_data.book import Book, chapter_key, write_book
from setup_data.reading.blocks import READERS, read_document
from setup_data.reading.chapters import SplitResult, split_chapters

logger = init_logger("setup_data.read_books")

MAX_CHAPTER_WORDS = 20_000
MIN_CHAPTER_WORDS = 100
MAX_SHARE_OUTSIDE = 0.1


@dataclass(frozen=True, kw_only=True)
class ReadResult:
    """One book as read, and how its chapters were found."""

    path: Path
    book: Book
    split: SplitResult


def story_id_of(path: Path) -> str:
    """The file's name as an id: ASCII letters, digits and underscores, in lower case."""
    ascii_name = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode()
    story_id = re.sub(r"[^a-z0-9]+", "_", ascii_name.lower()).strip("_")
    if not story_id:
        raise ValueError(f"{path}: no id can be made of this file name; rename it with ASCII letters or digits")
    return story_id


def find_book_files(inputs: Sequence[Path]) -> list[Path]:
    """The book files in folders and among files, sorted. Raises ValueError for none, or two with one story id."""
    paths: list[Path] = []
    for path in inputs:
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder")
        inside = path.rglob("*") if path.is_dir() else [path]
        paths += [each for each in inside if path.is_file() or (each.suffix.lower() in READERS and each.is_file())]
    if not paths:
        raise ValueError(f"{', '.join(map(str, inputs))}: no book found ({', '.join(READERS)})")
    by_id: dict[str, Path] = {}
    for path in sorted(paths):
        other = by_id.setdefault(story_id_of(path), path)
        if other != path:
            raise ValueError(f"{other} and {path} would share the story id {story_id_of(path)!r}; rename or remove one")
    return sorted(paths)


def read_book_file(path: Path, *, chapter_regex: str | None = None, max_chapters: int | None = None) -> ReadResult:
    """One book with its chapters, or the first `max_chapters` of them. Raises ValueError that names the file."""
    document = read_document(path)
    title = document.title or path.stem.replace("_", " ").strip().title()
    try:
        split = split_chapters(document.blocks, title=title, chapter_regex=chapter_regex)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    book = Book(story_id=story_id_of(path), title=" ".join(title.split()), chapters=split.chapters[:max_chapters])
    return ReadResult(path=path, book=book, split=split)


def find_suspicions(result: ReadResult) -> list[str]:
    """What a person should look at before this book goes further."""
    chapters, numbers = result.split.chapters, result.split.numbers
    found = []
    if len(chapters) == 1:
        found.append("only one chapter was found: are the headings of another kind (--chapter_regex)?")
    for index, chapter in enumerate(chapters):
        key = chapter_key(index, chapter.header)
        if chapter.num_words > MAX_CHAPTER_WORDS:
            found.append(f"{key} has {chapter.num_words:,} words: a heading may have been missed in it")
        if chapter.num_words < MIN_CHAPTER_WORDS:
            found.append(f"{key} has only {chapter.num_words} words: it may be no chapter")
    repeated = [header for header, count in Counter(chapter.header for chapter in chapters).items() if count > 1]
    found += [
        f"the heading {header!r} is repeated: a contents table, or parts without headings?" for header in repeated
    ]
    for index, (before, after) in enumerate(pairwise(numbers)):
        if before is not None and after is not None and after not in (1, before + 1):
            found.append(f"{chapter_key(index + 1, chapters[index + 1].header)}: its number follows {before}")
    num_words = sum(chapter.num_words for chapter in chapters)
    if result.split.num_words_outside > MAX_SHARE_OUTSIDE * num_words:
        found.append(f"{result.split.num_words_outside:,} words are in no chapter")
    return found


def report_book(result: ReadResult) -> str:
    """The book's part of the report, in Markdown."""
    book, split = result.book, result.split
    num_words = sum(chapter.num_words for chapter in book.chapters)
    lines = [
        f"# {book.title} (`{book.story_id}`)\n",
        f"From `{result.path.name}`: {len(book.chapters)} chapters, {num_words:,} words; {split.num_words_outside:,} "
        f"words outside of chapters left out; found by: {split.found_by}.\n",
    ]
    lines += [f"* **Check:** {suspicion}" for suspicion in find_suspicions(result)]
    lines.append("\n| key | heading | words | begins |\n|---|---|---:|---|")
    for index, chapter in enumerate(book.chapters):
        begins = " ".join(chapter.text.split()[:8]).replace("|", "/")
        header = chapter.header.replace("|", "/")
        lines.append(f"| `{chapter_key(index, chapter.header)}` | {header} | {chapter.num_words:,} | {begins} ... |")
    return "\n".join(lines) + "\n"


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=Path, nargs="+", help="book files, or folders of them")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--chapter_regex", help="Python regex that matches the whole paragraph of a chapter's heading")
    parser.add_argument("--max_chapters", type=int, help="keep only a book's first chapters, to try the pipeline")
    parser.add_argument("--overwrite", action="store_true", help="read books again that are in OUTPUT_DIR already")
    args = parser.parse_args(argv)
    if args.max_chapters is not None and args.max_chapters < 1:
        parser.error(f"--max_chapters must be above 0, got {args.max_chapters}")
    return args


def read_all(args: argparse.Namespace) -> list[ReadResult]:
    """Reads every book, then writes the books and their reports."""
    if args.chapter_regex is not None:
        try:
            re.compile(args.chapter_regex)
        except re.error as error:
            raise ValueError(f"--chapter_regex {args.chapter_regex!r} is not a regular expression: {error}") from error
    paths = find_book_files(args.inputs)
    if not args.overwrite:
        kept = [path for path in paths if (args.output_dir / "books" / f"{story_id_of(path)}.md").exists()]
        if kept:
            logger.info("%d books were read before and stay as they are (--overwrite reads them again)", len(kept))
        paths = [path for path in paths if path not in kept]
    results = [
        read_book_file(path, chapter_regex=args.chapter_regex, max_chapters=args.max_chapters)
        for path in tqdm(paths, desc="reading", unit="book", disable=None)
    ]
    for result in results:
        write_book(result.book, args.output_dir / "books")
        with atomic_write(args.output_dir / "reports" / f"{result.book.story_id}.md") as file:
            file.write(report_book(result))
    return results


def main(argv: Sequence[str]) -> int:
    args = parse_args(argv)
    try:
        results = read_all(args)
    except ValueError as error:
        logger.error("%s", error)
        return 1
    for result in results:
        num_words = sum(chapter.num_words for chapter in result.book.chapters)
        print(f"{result.book.story_id}: {len(result.book.chapters)} chapters, {num_words:,} words")
        for suspicion in find_suspicions(result):
            print(f"  check: {suspicion}")
    if results:
        print(
            f"\nLook at {args.output_dir}/reports/*.md before going on; {args.output_dir}/books/*.md may be corrected."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
