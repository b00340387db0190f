"""Rows of one or several datasets, each with where it came from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrlhf.errors import UserError
from openrlhf.utils.jsonl import read_jsonl

# `datasets` calls the split of `val.jsonl` "validation".
SPLIT_FILES = {"validation": ("validation.jsonl", "val.jsonl"), "val": ("val.jsonl", "validation.jsonl")}


@dataclass(frozen=True, kw_only=True)
class SourcedRow:
    """A dataset row and where it stands, for messages: `file:line`, or `dataset[split]:index`."""

    row: dict[str, Any]
    where: str


def blending_datasets(names: str, probabilities: str, *, split: str, seed: int, max_rows: int) -> list[SourcedRow]:
    """Reads comma-separated datasets and, where there are several, interleaves them with the given probabilities.

    A name is `json@DIR` (DIR/train.jsonl, DIR/val.jsonl, ...), a JSONL file, or a dataset of the Hugging Face hub.

    Raises:
        UserError: a dataset or split that is not there, a broken line, or probabilities that do not fit.
    """
    sources = [_read(name, split) for name in split_sources(names)]
    if len(sources) == 1:
        return sources[0][:max_rows]
    weights = [float(p) for p in probabilities.split(",")]
    if len(weights) != len(sources):
        raise UserError(f"{len(sources)} datasets but {len(weights)} probabilities: {names!r}, {probabilities!r}")
    return [sources[source][index] for source, index in _interleave(sources, weights, seed)][:max_rows]


def split_sources(names: str) -> list[str]:
    """The datasets of a list that commas separate. A path that is there is one dataset, commas in it or not."""
    if os.path.exists(names.removeprefix("json@")):
        return [names]
    return [name.strip() for name in names.split(",")]


def _interleave(sources: list[list[SourcedRow]], weights: list[float], seed: int) -> list[tuple[int, int]]:
    from datasets import Dataset, interleave_datasets

    indexed = [Dataset.from_dict({"at": [[s, i] for i in range(len(rows))]}) for s, rows in enumerate(sources)]
    total = sum(weights)
    mixed = interleave_datasets(indexed, probabilities=[w / total for w in weights], seed=seed)
    return [(source, index) for source, index in mixed["at"]]


def _read(name: str, split: str) -> list[SourcedRow]:
    if name.startswith("json@") or name.endswith(".jsonl"):
        path = _split_file(Path(name.removeprefix("json@")), split)
        return [SourcedRow(row=_object(row, path, line), where=f"{path}:{line}") for line, row in read_jsonl(path)]
    from datasets import load_dataset

    rows = load_dataset(name, split=split)
    return [SourcedRow(row=dict(row), where=f"{name}[{split}]:{i}") for i, row in enumerate(rows)]


def _split_file(path: Path, split: str) -> Path:
    if path.is_file():
        return path
    candidates = [path / file for file in SPLIT_FILES.get(split, (f"{split}.jsonl",))]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(
        f"no file for split {split!r}: looked for {' and '.join(map(str, candidates))}; make it with setup_rl_data.py, "
        "or name another split"
    )


def _object(row: Any, path: Path, line: int) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UserError(f"{path}:{line}: expected a JSON object, got {type(row).__name__}; fix or remove the line")
    return row
