"""Joins books and annotations into `story_dataset_{train,val,test}.jsonl`, the rows that `setup_rl_data.py` reads.

    python -m setup_data.compile_dataset --source_dir setup_data/sample --output_dir setup_data/sample

`--source_dir` holds `books/<story_id>.md` and `annotations/<story_id>.json` (see book.py and annotations.py). One row
is one chapter to predict, with all that is known before it. Stories are split, never chapters, and the split is kept
in `--splits` so that a later run with more books moves none. The same sources give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from openrlhf.errors import UserError
from openrlhf.utils.atomic_io import atomic_write
from openrlhf.utils.logging import init_logger
from openrlhf.vr_cli.datapoints import Datapoint, baseline_key, check_datapoint
from openrlhf.vr_cli.dataset import Filters, add_filter_arguments, filters_from
from prompt_utils import build_baseline_messages, build_reasoning_messages
from setup_data.annotations import BookAnnotations, check_against_book, read_annotations
from setup_data.book import Book, read_books
from setup_data.splits import SPLITS, Split, load_or_assign_splits

logger = init_logger("setup_data.compile_dataset")


def build_row(book: Book, annotations: BookAnnotations, chapter_index: int, *, num_last_chapters: int) -> Datapoint:
    """The row whose gold chapter is `chapter_index` (0-based: the number of chapters before it)."""
    chapter, note = book.chapters[chapter_index], annotations.chapters[chapter_index]
    genre = book.genre or annotations.genre
    return {
        "story_id": book.story_id,
        "title": book.title,
        **({"genre": genre} if genre else {}),
        "chapter_index": chapter_index,
        "next_chapter_header": chapter.header,
        "high_level_plot_summary": annotations.high_level_plot_summary,
        "prior_plot_summary": note.prior_plot_summary,
        "character_sheets": note.character_sheets,
        "last_n_chapters": book.text_before(chapter_index, last_n=num_last_chapters),
        "next_chapter_synopsis": note.synopsis,
        "story_text": book.text_before(chapter_index),
        "next_chapter": chapter.text,
    }


def read_sources(source_dir: Path) -> list[tuple[Book, BookAnnotations]]:
    """Every book of `source_dir/books` with its annotations, checked against each other."""
    pairs = []
    for book in read_books(source_dir / "books"):
        path = source_dir / "annotations" / f"{book.story_id}.json"
        if not path.exists():
            raise UserError(f"{path}: missing; write it with `python -m setup_data.write_annotations`")
        annotations = read_annotations(path)
        check_against_book(annotations, book, path)
        pairs.append((book, annotations))
    return pairs


def select_rows(rows: Iterable[Datapoint], filters: Filters | None, dropped: Counter[str]) -> list[Datapoint]:
    """The rows that pass, counting the others by reason in `dropped`.

    A synopsis is the row's key in the baseline map, so of rows with one synopsis only the first is kept.
    """
    kept: dict[str, Datapoint] = {}
    for row in rows:
        check_datapoint(row)
        if filters and (reason := filters.reason_to_drop(row, build_reasoning_messages(row))):
            dropped[reason] += 1
        elif kept.setdefault(baseline_key(row), row) is not row:
            dropped["same synopsis as another row"] += 1
    return list(kept.values())


def to_messages_row(row: Datapoint) -> Datapoint:
    """The row as a conversation: what is known before the chapter, then the chapter."""
    return {"messages": build_baseline_messages(row)}


def write_dataset(
    rows: Sequence[Datapoint], split_of: dict[str, Split], output_dir: Path, *, dataset_name: str, as_messages: bool
) -> None:
    """Writes `<dataset_name>_<split>.jsonl` for each split that has rows; an old file of one that has none goes."""
    for split in SPLITS:
        its_rows = [row for row in rows if split_of[row["story_id"]] == split]
        path = output_dir / f"{dataset_name}_{split}.jsonl"
        if not its_rows:
            logger.warning("no rows for %s: add books, or move a story to %r in the splits file", path, split)
            path.unlink(missing_ok=True)
            continue
        with atomic_write(path) as file:
            for row in its_rows:
                record = to_messages_row(row) if as_messages else row
                check_datapoint(record)
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        num_stories = len({row["story_id"] for row in its_rows})
        logger.info("%s: %d rows of %d stories", path, len(its_rows), num_stories)


def compile_dataset(args: argparse.Namespace) -> None:
    """Sources to dataset files."""
    sources = read_sources(args.source_dir)
    rows = (
        build_row(book, annotations, index, num_last_chapters=args.num_last_chapters)
        for book, annotations in sources
        for index in range(len(book.chapters))
    )
    dropped: Counter[str] = Counter()
    kept = select_rows(rows, filters_from(args), dropped)
    if not kept:
        raise UserError(f"the filters drop every chapter ({dict(dropped)}); relax them, or pass --no_filter")
    split_of = load_or_assign_splits(
        [book.story_id for book, _ in sources],
        args.splits or args.output_dir / "splits.json",
        val_share=args.val_share,
        test_share=args.test_share,
        seed=args.seed,
    )
    write_dataset(
        kept, split_of, args.output_dir, dataset_name=args.dataset_name, as_messages=args.format == "messages"
    )
    logger.info("%d rows kept, %d dropped", len(kept), dropped.total())
    for reason, count in sorted(dropped.items()):
        logger.info("  dropped %d: %s", count, reason)


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source_dir", type=Path, required=True, help="folder with books/ and annotations/")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--dataset_name", default="story_dataset", help="output files are <name>_<split>.jsonl")
    parser.add_argument("--format", choices=("ncp", "messages"), default="ncp")
    parser.add_argument("--num_last_chapters", type=int, default=1, help="chapters in last_n_chapters")
    parser.add_argument("--splits", type=Path, help="the split, read if there, else made (OUTPUT_DIR/splits.json)")
    parser.add_argument("--val_share", type=float, default=0.1, help="share of the stories")
    parser.add_argument("--test_share", type=float, default=0.1, help="share of the stories")
    parser.add_argument("--seed", type=int, default=42, help="which stories go where, when the split is made")
    add_filter_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    args = parse_args(argv)
    try:
        compile_dataset(args)
    except UserError as error:
        logger.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
