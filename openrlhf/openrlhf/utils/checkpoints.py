"""Which checkpoints of a directory count: those whose marker file, written last, is there.

    ckpt_path/_actor/
      global_step16/          one checkpoint ("tag"): DeepSpeed's files, rng_rank0.pt, ...
        INCOMPLETE            there from before the first byte until after the last
        COMPLETE              marker (JSON): order, number of ranks, ZeRO stage, the run's state, every file with its
                              size and digest
        model_files/          configuration, generation configuration, tokenizer: what makes its weights a model
      latest                  DeepSpeed's pointer, for its own tools; resume goes by the markers
      zero_to_fp32.py         DeepSpeed's converter: `python zero_to_fp32.py ./ OUTPUT -t global_step16`; at stage 0,
                              where DeepSpeed has none, ours

Sizes are compared whenever a marker is read, digests once, on resume: a flipped byte leaves the size as it was, and
`torch.load` does not see it. The digest is xxh3_128, some 20 GB/s a thread: it finds damage, it does not stop forgers.

Functions that write are called by one rank, between barriers. Nothing here needs DeepSpeed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from openrlhf.errors import UserError
from openrlhf.utils.atomic_io import atomic_write, fsync_directory
from openrlhf.utils.logging import init_logger

logger = init_logger(__name__)

COMPLETE = "COMPLETE"
INCOMPLETE = "INCOMPLETE"
LATEST = "latest"
ACTOR_FOLDER = "_actor"
"""Below `--ckpt_path`: the policy's checkpoints, as upstream names it."""
BEST_FOLDER = "_best"
"""Beside it: the one checkpoint that `--save_best` keeps, which neither pruning nor resuming looks at."""
MODEL_FILES = "model_files"
GB = 10**9
READ_BYTES = 2**23
READ_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One complete checkpoint."""

    path: Path
    sequence: int
    """Counts the checkpoints that were written to the directory; the newest has the highest."""
    world_size: int
    zero_stage: int
    state: dict[str, Any]
    """What the trainer keeps beside weights, optimizer and random states: plain containers and scalars."""
    files: dict[str, tuple[int, str]]
    """Relative path -> (bytes, digest)."""

    @property
    def num_bytes(self) -> int:
        return sum(size for size, _ in self.files.values())

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
        remove_checkpoint(path)
        _point_latest(directory)
    path.mkdir(parents=True)
    (path / INCOMPLETE).touch()
    fsync_directory(path)
    fsync_directory(directory)


def finish_checkpoint(
    directory: Path, tag: str, *, world_size: int, zero_stage: int, state: dict[str, Any]
) -> Checkpoint:
    """Marks a checkpoint complete, once every rank has written and fsynced its files, and points `latest` to it."""
    path = directory / tag
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name != INCOMPLETE]
    digests = _digests(files)
    marker = {
        "sequence": 1 + max((checkpoint.sequence for checkpoint in _complete(directory)), default=0),
        "world_size": world_size,
        "zero_stage": zero_stage,
        "state": state,
        "files": {file.relative_to(path).as_posix(): (file.stat().st_size, digests[file]) for file in files},
    }
    with atomic_write(path / COMPLETE) as file:
        json.dump(marker, file, indent=1)
    (path / INCOMPLETE).unlink()
    _point_latest(directory)
    return read_marker(path)


def remove_checkpoint(path: Path) -> None:
    """Removes a checkpoint, whole or not; one that is half removed no longer counts, and is known to be ours."""
    (path / INCOMPLETE).touch()
    (path / COMPLETE).unlink(missing_ok=True)
    fsync_directory(path)
    for child in path.iterdir():
        if child.is_dir():
            shutil.rmtree(child)
        elif child.name != INCOMPLETE:
            child.unlink()
    shutil.rmtree(path)


def last_size(directory: Path) -> int:
    """Bytes of the newest complete checkpoint, 0 where there is none: what the next one will need."""
    newest = newest_marked(directory)
    return newest.num_bytes if newest else 0


def newest_checkpoint(directory: Path) -> Checkpoint | None:
    """The newest complete checkpoint whose files are all as they were written; None where none was ever complete.

    Reads the whole of it. Warns about every checkpoint that it passes over.

    Raises:
        UserError: there are checkpoints, but every one of them is damaged.
    """
    for path in sorted(directory.glob(f"*/{INCOMPLETE}")):
        logger.warning("%s was interrupted while it was written and is passed over", path.parent)
    damaged = list(_without_marker(directory))
    for checkpoint in reversed(_complete(directory, damaged)):
        problem = damaged_file(checkpoint)
        if problem is None:
            for line in damaged:
                logger.warning("%s: damaged, passed over", line)
            return checkpoint
        damaged.append(problem)
    if damaged:
        raise UserError(
            f"every checkpoint in {directory} is damaged ({'; '.join(damaged)}): restore one of them, or start anew "
            "with another --ckpt_path, or without --load_checkpoint"
        )
    return None


def newest_marked(directory: Path) -> Checkpoint | None:
    """The newest complete checkpoint whose files have their sizes; what they hold is not read, so it takes no time."""
    complete = _complete(directory)
    return complete[-1] if complete else None


def damaged_file(checkpoint: Checkpoint) -> str | None:
    """The first file whose content is not what was written, in a sentence; None if all are as they were."""
    expected = {checkpoint.path / name: digest for name, (_, digest) in checkpoint.files.items()}
    for file, digest in _digests(expected).items():
        if digest != expected[file]:
            return f"{file} is not what was written (digest {digest} instead of {expected[file]})"
    return None


def read_marker(path: Path) -> Checkpoint:
    """Reads one checkpoint's marker and compares the files' sizes with it.

    Raises:
        ValueError: the marker cannot be read, or a file is missing or has another size.
    """
    try:
        marker = json.loads((path / COMPLETE).read_text(encoding="utf-8"))
        checkpoint = Checkpoint(
            path=path,
            sequence=int(marker["sequence"]),
            world_size=int(marker["world_size"]),
            zero_stage=int(marker["zero_stage"]),
            state=dict(marker["state"]),
            files={str(name): (int(size), str(digest)) for name, (size, digest) in marker["files"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path / COMPLETE} cannot be read: {error!r}") from error
    for name, (size, _) in checkpoint.files.items():
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
        remove_checkpoint(path.parent)
    while len(complete) > 1 and (len(complete) > max_num or sum(c.num_bytes for c in complete) > max_gb * GB):
        oldest = complete.pop(0)
        logger.info("removing old checkpoint %s", oldest.tag)
        remove_checkpoint(oldest.path)


def prune_models(directory: Path, *, max_num: int) -> None:
    """Removes the oldest folders `global_stepN_hf` (`--save_hf_ckpt`) above a number."""
    ours = [path for path in directory.iterdir() if path.is_dir() and re.fullmatch(r"global_step\d+_hf", path.name)]
    for path in sorted(ours, key=lambda path: path.stat().st_mtime_ns)[:-max_num]:
        logger.info("removing old model %s", path.name)
        shutil.rmtree(path)


def _complete(directory: Path, damaged: list[str] | None = None) -> list[Checkpoint]:
    """The checkpoints whose files have their sizes, oldest first; `damaged` gets a line on each of the others."""
    found = []
    for marker in sorted(directory.glob(f"*/{COMPLETE}")):
        try:
            found.append(read_marker(marker.parent))
        except ValueError as error:
            if damaged is not None:
                damaged.append(str(error))
    return sorted(found, key=lambda checkpoint: checkpoint.sequence)


def _without_marker(directory: Path) -> Iterable[str]:
    """Checkpoint folders with files but neither marker in them, one line each."""
    for path in sorted(directory.glob("global_step*")):
        if path.is_dir() and any(path.iterdir()) and not any((path / name).exists() for name in (COMPLETE, INCOMPLETE)):
            yield f"{path} has no {COMPLETE} marker"


def _digests(files: Iterable[Path]) -> dict[Path, str]:
    """xxh3_128 of each file, several at a time."""
    files = list(files)
    with ThreadPoolExecutor(READ_THREADS) as pool:
        return dict(zip(files, pool.map(_digest, files), strict=True))


def _digest(path: Path) -> str:
    digest, buffer = xxhash.xxh3_128(), memoryview(bytearray(READ_BYTES))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def _point_latest(directory: Path) -> None:
    complete = _complete(directory)
    if not complete:
        (directory / LATEST).unlink(missing_ok=True)
        return
    with atomic_write(directory / LATEST) as file:
        file.write(complete[-1].tag)
