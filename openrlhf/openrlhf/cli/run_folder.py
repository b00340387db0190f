"""From what a user names to the checkpoint and to the record of its run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrlhf.errors import UserError
from openrlhf.utils.checkpoints import ACTOR_FOLDER, COMPLETE, Checkpoint, damaged_file, newest_checkpoint, read_marker
from openrlhf.utils.jsonl import read_jsonl

LEVELS = 4
"""So many folders above a checkpoint its run's record is looked for: RUN/checkpoint/NAME/_actor/global_stepN."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a run left in its `--save_path`."""

    config: dict[str, Any]
    """Flag -> value."""
    metrics: list[dict[str, Any]]
    """The rows of metrics.jsonl."""


def find_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`, or the newest whole one of the checkpoints or of the run there.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = Path(os.path.realpath(path))
    if (path / COMPLETE).is_file():
        return _whole(path)
    if not path.is_dir():
        raise UserError(
            f"{path}: no such folder; give a checkpoint (.../{ACTOR_FOLDER}/global_stepN) or a run's folder"
        )
    found = [checkpoint for folder in _checkpoint_folders(path) if (checkpoint := newest_checkpoint(folder))]
    if not found:
        raise UserError(
            f"no whole checkpoint in {path}: give one (.../{ACTOR_FOLDER}/global_stepN, with a {COMPLETE} file), or "
            "the folder of a run that has saved one"
        )
    if len(found) > 1:
        places = ", ".join(str(checkpoint.path.parent) for checkpoint in found)
        raise UserError(f"{path} holds the checkpoints of several runs ({places}): give one of these")
    return found[0]


def find_run(checkpoint: Checkpoint, given: Path | None) -> RunRecord | None:
    """The record of the run that made a checkpoint: in the folder that is given, else in one above the checkpoint whose
    config.json names this place.

    Raises:
        UserError: the folder that is given has none.
    """
    if given is not None:
        if (config := _read_config(given)) is None:
            raise UserError(f"--run {given}: no config.json of a run; give its --save_path, or leave --run out")
        return RunRecord(config=config, metrics=_read_metrics(given))
    for folder in list(checkpoint.path.parents)[:LEVELS]:
        config = _read_config(folder)
        if config is not None and Path(str(config["ckpt_path"])).name == checkpoint.path.parent.parent.name:
            return RunRecord(config=config, metrics=_read_metrics(folder))
    return None


def _whole(path: Path) -> Checkpoint:
    try:
        checkpoint = read_marker(path)
    except ValueError as error:
        raise UserError(f"{error}; give another checkpoint") from None
    if (problem := damaged_file(checkpoint)) is not None:
        raise UserError(f"{problem}; give another checkpoint")
    return checkpoint


def _checkpoint_folders(path: Path) -> Iterator[Path]:
    """Folders at or below `path` that hold checkpoints; those that the run's config.json names come first and alone."""
    if any(path.glob(f"*/{COMPLETE}")):
        yield path
        return
    config = _read_config(path)
    if config is not None and (named := Path(config["ckpt_path"]) / ACTOR_FOLDER).is_dir():
        yield Path(os.path.realpath(named))
        return
    for depth in range(3):
        yield from sorted(path.glob("*/" * depth + ACTOR_FOLDER))


def _read_config(folder: Path) -> dict[str, Any] | None:
    """The config.json of a run; None where there is none, or one of something else."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "ckpt_path" in content else None


def _read_metrics(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    return [row for _, row in read_jsonl(path, may_be_torn=True)] if path.is_file() else []
