"""Which checkpoints of a directory count: those whose marker file, written last, is there.

    ckpt_path/_actor/
      global_step16/          one checkpoint ("tag"): DeepSpeed's files, rng_rank0.pt, ...
        INCOMPLETE            there from before the first byte until after the last
        COMPLETE              marker (JSON): order, number of ranks, ZeRO stage, every file with its size
      latest                  DeepSpeed's pointer, for its own tools; resume goes by the markers
      zero_to_fp32.py         DeepSpeed's converter: `python zero_to_fp32.py ./ OUTPUT -t global_step16`

Functions that write are called by one rank, between barriers. Nothing here needs DeepSpeed.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from openrlhf.utils.atomic_io import atomic_write, fsync_directory
from openrlhf.utils.logging import init_logger

logger = init_logger(__name__)

COMPLETE = "COMPLETE"
INCOMPLETE = "INCOMPLETE"
LATEST = "latest"
GB = 10**9


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One complete checkpoint."""

    path: Path
    sequence: int
    """Counts the checkpoints that were written to the directory; the newest has the highest."""
    world_size: int
    zero_stage: int
    num_bytes: int

    @property
    def tag(self) -> str:
        return self.path.name


def begin_checkpoint(directory: Path, tag: str) -> None:
    """Makes an empty folder for a checkpoint, marked incomplete. One of the same tag that was there is given up."""
    if Path(tag).name != tag:
        raise ValueError(f"checkpoint tag {tag!r} must be a plain folder name such as global_step16")
    path = directory / tag
    if path.exists():
        logger.warning("%s is written anew", path)
        _remove(path)
        _point_latest(directory)
    path.mkdir(parents=True)
    (path / INCOMPLETE).touch()
    fsync_directory(path)
    fsync_directory(directory)


def finish_checkpoint(directory: Path, tag: str, *, world_size: int, zero_stage: int) -> Checkpoint:
    """Marks a checkpoint complete, once every rank has written and fsynced its files, and points `latest` to it."""
    path = directory / tag
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name != INCOMPLETE]
    sizes = {file.relative_to(path).as_posix(): file.stat().st_size for file in files}
    sequence = 1 + max((checkpoint.sequence for checkpoint in _complete(directory)), default=0)
    marker = {"sequence": sequence, "world_size": world_size, "zero_stage": zero_stage, "files": sizes}
    with atomic_write(path / COMPLETE) as file:
        json.dump(marker, file, indent=1)
    (path / INCOMPLETE).unlink()
    _point_latest(directory)
    return read_marker(path)


def newest_checkpoint(directory: Path) -> Checkpoint | None:
    """The newest complete checkpoint, or None. Warns about every checkpoint that it passes over."""
    for path in sorted(directory.glob(f"*/{INCOMPLETE}")):
        logger.warning("%s was interrupted while it was written and is passed over", path.parent)
    complete = _complete(directory, warn=True)
    return complete[-1] if complete else None


def read_marker(path: Path) -> Checkpoint:
    """Reads one checkpoint's marker and compares the files with it.

    Raises:
        ValueError: the marker cannot be read, or a file is missing or has another size.
    """
    try:
        marker = json.loads((path / COMPLETE).read_text(encoding="utf-8"))
        sizes = {str(name): int(size) for name, size in marker["files"].items()}
        checkpoint = Checkpoint(
            path=path,
            sequence=int(marker["sequence"]),
            world_size=int(marker["world_size"]),
            zero_stage=int(marker["zero_stage"]),
            num_bytes=sum(sizes.values()),
        )
    except (OSError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path / COMPLETE} cannot be read: {error!r}") from error
    for name, size in sizes.items():
        file = path / name
        if not file.is_file():
            raise ValueError(f"{file} is missing")
        if file.stat().st_size != size:
            raise ValueError(f"{file} has {file.stat().st_size} bytes instead of {size}")
    return checkpoint


def prune_checkpoints(directory: Path, *, max_num: int, max_gb: float) -> None:
    """Removes the oldest complete checkpoints above a number or a total size (10^9 bytes), and interrupted ones.

    The newest complete one always stays. Folders without our markers are left alone.
    """
    if max_num < 1:
        raise ValueError(f"--max_ckpt_num {max_num}: must be at least 1")
    complete = _complete(directory)
    if not complete:
        return
    for path in directory.glob(f"*/{INCOMPLETE}"):
        _remove(path.parent)
    while len(complete) > 1 and (len(complete) > max_num or sum(c.num_bytes for c in complete) > max_gb * GB):
        oldest = complete.pop(0)
        logger.info("removing old checkpoint %s", oldest.path)
        _remove(oldest.path)


def _complete(directory: Path, *, warn: bool = False) -> list[Checkpoint]:
    """The complete checkpoints, oldest first."""
    found = []
    for marker in directory.glob(f"*/{COMPLETE}"):
        try:
            found.append(read_marker(marker.parent))
        except ValueError as error:
            if warn:
                logger.warning("checkpoint %s is damaged and passed over: %s", marker.parent, error)
    return sorted(found, key=lambda checkpoint: checkpoint.sequence)


def _remove(path: Path) -> None:
    """Removes a checkpoint; one that is half removed no longer counts as complete."""
    (path / INCOMPLETE).touch()
    (path / COMPLETE).unlink(missing_ok=True)
    fsync_directory(path)
    shutil.rmtree(path)


def _point_latest(directory: Path) -> None:
    complete = _complete(directory)
    if not complete:
        (directory / LATEST).unlink(missing_ok=True)
        return
    with atomic_write(directory / LATEST) as file:
        file.write(complete[-1].tag)
