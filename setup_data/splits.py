"""Which story is in which split: by story, never by chapter, and recorded so that a story never moves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from openrlhf.errors import UserError
from openrlhf.utils.atomic_io import atomic_write
from openrlhf.utils.logging import init_logger

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

logger = init_logger(__name__)


def read_splits(path: Path) -> dict[str, Split]:
    """story id -> split, from `{"train": [ids], "val": [ids], "test": [ids]}`. Raises UserError for anything else."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(record, dict) or set(record) != set(SPLITS):
        raise UserError(f"{path}: must be an object with the keys train, val and test, each a list of story ids")
    split_of: dict[str, Split] = {}
    for split in SPLITS:
        if not isinstance(record[split], list):
            raise UserError(f"{path}: {split!r} must be a list of story ids")
        for story_id in record[split]:
            if story_id in split_of:
                raise UserError(f"{path}: story {story_id!r} is in {split_of[story_id]} and in {split}; keep one")
            split_of[story_id] = split
    return split_of


def write_splits(split_of: dict[str, Split], path: Path) -> None:
    """Records the splits, ids sorted."""
    record = {split: sorted(story for story, its in split_of.items() if its == split) for split in SPLITS}
    with atomic_write(path) as file:
        file.write(json.dumps(record, ensure_ascii=False, indent=2) + "\n")


def assign_splits(
    story_ids: Sequence[str], recorded: dict[str, Split], *, val_share: float, test_share: float, seed: int
) -> dict[str, Split]:
    """`recorded`, with the stories that it lacks added.

    New stories are taken in an order that depends only on their ids and `seed`; they fill `val` and `test` up to
    their shares of all stories (rounded; of two stories one goes to `val`, of three or more at least one to each),
    and the rest goes to `train`.
    """
    split_of = dict(recorded)
    num_stories = len(story_ids)
    shares: tuple[tuple[Split, float, int], ...] = (("val", val_share, 2), ("test", test_share, 3))
    for split, share, enough_stories in shares:
        at_least = 1 if share > 0 and num_stories >= enough_stories else 0
        wanted = max(at_least, round(share * num_stories))
        have = sum(1 for story_id in story_ids if recorded.get(story_id) == split)
        new = [story_id for story_id in story_ids if story_id not in split_of]
        new.sort(key=lambda story_id: _shuffle_key(story_id, seed))
        for story_id in new[: max(0, wanted - have)]:
            split_of[story_id] = split
    for story_id in story_ids:
        split_of.setdefault(story_id, "train")
    return split_of


def _shuffle_key(story_id: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{story_id}".encode()).hexdigest()


def load_or_assign_splits(
    story_ids: Sequence[str], path: Path, *, val_share: float, test_share: float, seed: int
) -> dict[str, Split]:
    """The splits in `path` if it exists, with new stories added to them; `path` is written where that changes it."""
    recorded = read_splits(path) if path.exists() else {}
    for story_id in sorted(set(recorded) - set(story_ids)):
        logger.warning("%s: story %r has no book here; it stays recorded", path, story_id)
    split_of = assign_splits(story_ids, recorded, val_share=val_share, test_share=test_share, seed=seed)
    if split_of != recorded:
        write_splits(split_of, path)
    return split_of
