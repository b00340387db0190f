r"""Reads a folder of books (.txt, .md, .html, .epub), finds their chapters and reports what it found.

    python -m setup_data.read_books BOOKS_DIR --output_dir WORK_DIR

Each book becomes `WORK_DIR/books/<story_id>.md` (see book.py), which can be corrected by hand, and
`WORK_DIR/reports/<story_id>.md` says what looks wrong and where every word of the file went: in a chapter, or left out
with the reason. Read the reports before spending GPU time; docs/books.md says what to do about each of their lines.
Where chapters are not found, read that book again with `--chapter_regex`, which must match a heading's whole paragraph:

    python -m setup_data.read_books BOOKS_DIR/ulysses.txt --output_dir WORK_DIR --overwrite --chapter_regex '\[ \d+ \]'

Books that are in WORK_DIR already stay as they are unless `--overwrite` is given. Files that cannot be read are named
and passed over. Exit code: 0 all was read, 2 something is to be mended, 1 a fault of this program.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from openrlhf.errors import UserError
from openrlhf.utils.atomic_io import atomic_write
from openrlhf.utils.logging import init_logger
from setup_data.book import write_book
from setup_data.progress import Progress
from setup_data.reading.read import READERS, ReadResult, read_book_file, story_id_of
from setup_data.reading.report import report_book, summary
from setup_data.reading.source import AccountError

logger = init_logger("setup_data.read_books")

DONE, FAULT, TO_MEND = 0, 1, 2


@dataclass(kw_only=True)
class Outcome:
    """What became of a run's files."""

    summaries: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What the user can mend, one line a file."""
    faults: list[str] = field(default_factory=list)
    """Accounts that do not sum up."""

    @property
    def exit_code(self) -> int:
        return FAULT if self.faults else TO_MEND if self.problems else DONE


def _files_in(folder: Path) -> Iterator[Path]:
    """The book files in a folder, also links that lead nowhere; what begins with a dot, file or folder, is none."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        is_file = path.is_file() or (path.is_symlink() and not path.exists())
        if not hidden and path.suffix.lower() in READERS and is_file:
            yield path


def find_book_files(inputs: Sequence[Path], outcome: Outcome) -> list[Path]:
    """The book files in folders and among files, sorted; those without an id of their own are named in `outcome`.

    Raises:
        UserError: there is none.
    """
    paths: list[Path] = []
    for path in inputs:
        if not path.exists():
            outcome.problems.append(f"{path}: no such file or folder")
        else:
            paths += _files_in(path) if path.is_dir() else [path]
    if not paths:
        nothing = f"{', '.join(map(str, inputs))}: no book found ({', '.join(READERS)})"
        raise UserError("\n".join([*outcome.problems, nothing]))
    by_id: dict[str, Path] = {}
    for path in sorted(set(paths)):
        try:
            other = by_id.setdefault(story_id_of(path), path)
        except UserError as error:
            outcome.problems.append(str(error))
            continue
        if other != path:
            outcome.problems.append(f"{path}: its story id would be that of {other}, {story_id_of(path)!r}; rename it")
    return list(by_id.values())


def read_one(path: Path, args: argparse.Namespace, outcome: Outcome) -> ReadResult | None:
    """Reads one book; what stops it is noted."""
    try:
        return read_book_file(path, chapter_regex=args.chapter_regex, max_chapters=args.max_chapters)
    except (UserError, OSError) as error:
        outcome.problems.append(str(error))
    except AccountError as error:
        outcome.faults.append(
            f"{path}: the words do not sum up ({error}); this is a fault of the reader, please report it"
        )
    return None


def read_all(args: argparse.Namespace) -> Outcome:
    """Reads every book and writes it with its report, one after the other."""
    outcome = Outcome()
    paths = find_book_files(args.inputs, outcome)
    if not args.overwrite:
        kept = {path for path in paths if (args.output_dir / "books" / f"{story_id_of(path)}.md").exists()}
        if kept:
            logger.info("%d books were read before and stay as they are (--overwrite reads them again)", len(kept))
        paths = [path for path in paths if path not in kept]
    with closing(Progress("reading", unit="book")) as progress:
        progress.add(len(paths))
        for path in paths:
            if (result := read_one(path, args, outcome)) is not None:
                _write(result, args.output_dir)
                outcome.summaries += [summary(result), *(f"  check: {suspicion}" for suspicion in result.suspicions)]
            progress.done()
    return outcome


def _write(result: ReadResult, output_dir: Path) -> None:
    write_book(result.book, output_dir / "books")
    with atomic_write(output_dir / "reports" / f"{result.book.story_id}.md") as file:
        file.write(report_book(result))


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
    if args.chapter_regex is not None:
        try:
            re.compile(args.chapter_regex)
        except re.error as error:
            parser.error(f"--chapter_regex {args.chapter_regex!r} is not a regular expression: {error}")
    return args


def main(argv: Sequence[str]) -> int:
    args = parse_args(argv)
    try:
        outcome = read_all(args)
    except UserError as error:
        logger.error("%s", error)
        return TO_MEND
    for line in outcome.summaries:
        print(line)
    if outcome.summaries:
        print(
            f"\nLook at {args.output_dir}/reports/*.md before going on; {args.output_dir}/books/*.md may be corrected."
        )
    for line in outcome.problems + outcome.faults:
        logger.error("not read: %s", line)
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
