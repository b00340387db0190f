"""The dataset on disk: `N_{train,val,test}.jsonl`, its rows with where they stand, and which of them become prompts."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from openrlhf.errors import UserError
from openrlhf.utils.jsonl import read_jsonl
from openrlhf.utils.logging import init_logger
from openrlhf.vr_cli.baseline_map import PROVENANCE_KEY
from openrlhf.vr_cli.datapoints import (
    Datapoint,
    baseline_key,
    check_datapoint,
    datapoint_id,
    gold_text,
    is_messages_row,
)

logger = init_logger(__name__)

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One checked line of a JSONL dataset file."""

    path: Path
    line: int
    """From 1."""
    datapoint: Datapoint

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"

    @property
    def datapoint_id(self) -> str:
        return datapoint_id(self.datapoint)


def read_dataset(dataset_dir: Path, dataset_name: str) -> dict[str, list[Row]]:
    """The rows of each split that has a file.

    Raises:
        UserError: a bad row, two rows with one id or one key in the baseline map, or no file at all.
    """
    paths = {split: dataset_dir / f"{dataset_name}_{split}.jsonl" for split in SPLITS}
    present = {split: path for split, path in paths.items() if path.is_file()}
    if not present:
        names = ", ".join(path.name for path in paths.values())
        raise UserError(
            f"no dataset in {dataset_dir.resolve()}: expected at least one of {names}; "
            "give --dataset_dir and --dataset_name"
        )
    for split, path in paths.items():
        if split not in present:
            logger.warning("no %s: the %s split is left out", path, split)
    rows_by_split = {split: read_rows(path) for split, path in present.items()}
    check_unique_ids(row for rows in rows_by_split.values() for row in rows)
    return rows_by_split


def read_rows(path: Path) -> list[Row]:
    """Reads and checks a dataset file, one JSON object a line; blank lines are skipped.

    Raises:
        UserError: naming file, line, field and what to do.
    """
    rows = []
    for number, value in read_jsonl(path):
        try:
            check_datapoint(value)
        except UserError as error:
            raise UserError(f"{path}:{number}: {error}") from None
        rows.append(Row(path=path, line=number, datapoint=value))
    return rows


def check_unique_ids(rows: Iterable[Row]) -> None:
    """Raises UserError naming both rows where two share an id."""
    first: dict[str, Row] = {}
    for row in rows:
        other = first.setdefault(row.datapoint_id, row)
        if other is not row:
            raise UserError(
                f"{row.where} and {other.where} are the same datapoint ({row.datapoint_id!r}): story_id and "
                "chapter_index, or the whole content, must differ; remove one"
            )


def index_by_key(rows: Sequence[Row]) -> dict[str, Row]:
    """The rows by their key in the baseline map.

    Conversations may end in the same user turn (`Go on.`, or one question with several answers). That turn is then the
    key of none of them; each stands under its id.

    Raises:
        UserError: two chapters share a synopsis; the message names both rows.
    """
    counts = Counter(baseline_key(row.datapoint) for row in rows)
    by_key: dict[str, Row] = {}
    for row in rows:
        key = baseline_key(row.datapoint)
        if is_messages_row(row.datapoint) and (counts[key] > 1 or key == PROVENANCE_KEY):
            key = row.datapoint_id
        if key == PROVENANCE_KEY:
            raise UserError(f"{row.where}: the synopsis {key!r} is a key that the baseline map keeps for itself")
        other = by_key.setdefault(key, row)
        if other is not row:
            raise UserError(
                f"{other.where} and {row.where} have the same key in the baseline map, their next-chapter synopsis "
                f"({key[:60]!r}...): change or remove one"
            )
    return by_key


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which rows become prompts; the defaults are the paper's."""

    min_chapter_words: int = 200
    max_chapter_words: int = 5_000
    max_prompt_words: int = 10_000
    """A prompt has fewer."""
    min_chapter_index: int = 2
    """Chapters before the next one: a story's first chapters have too little to plan from."""

    def reason_to_drop(self, datapoint: dict, prompt: list[dict[str, str]]) -> str | None:
        """Why a row is dropped, in words, or None where it stays."""
        if not is_messages_row(datapoint):
            num_chapter_words = len(gold_text(datapoint).split())
            if num_chapter_words < self.min_chapter_words:
                return f"chapter under {self.min_chapter_words:,} words"
            if num_chapter_words > self.max_chapter_words:
                return f"chapter over {self.max_chapter_words:,} words"
            chapter_index = datapoint.get("chapter_index")
            if chapter_index is not None and chapter_index < self.min_chapter_index:
                return f"chapter index under {self.min_chapter_index}"
        if sum(len(message["content"].split()) for message in prompt) >= self.max_prompt_words:
            return f"prompt of {self.max_prompt_words:,} words or more"
        return None


def add_filter_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one flag for each field of `Filters`, and `--no_filter`."""
    group = parser.add_argument_group("filters (words are separated by white space)")
    group.add_argument("--no_filter", action="store_true", help="keep every row")
    group.add_argument("--min_chapter_words", type=int, default=Filters.min_chapter_words)
    group.add_argument("--max_chapter_words", type=int, default=Filters.max_chapter_words)
    group.add_argument("--max_prompt_words", type=int, default=Filters.max_prompt_words, help="prompts have fewer")
    group.add_argument("--min_chapter_index", type=int, default=Filters.min_chapter_index, help="counted from 0")


def filters_from(args: argparse.Namespace) -> Filters | None:
    """The filters that `add_filter_arguments` parsed; None with `--no_filter`."""
    if args.no_filter:
        return None
    return Filters(**{field.name: getattr(args, field.name) for field in fields(Filters)})
