"""Saves and loads engines: resumable checkpoints through DeepSpeed, and Hugging Face folders."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from openrlhf.utils.atomic_io import atomic_directory, atomic_write, fsync_tree
from openrlhf.utils.checkpoints import (
    MODEL_FILES,
    Checkpoint,
    begin_checkpoint,
    finish_checkpoint,
    last_size,
    newest_checkpoint,
    prune_checkpoints,
    remove_checkpoint,
)
from openrlhf.utils.deepspeed.collectives import barrier, broadcast_object, raise_everywhere
from openrlhf.utils.deepspeed.optimizer import keeping_settings
from openrlhf.utils.deepspeed.parameters import full_state_dict
from openrlhf.utils.deepspeed.reading import load_weights_only
from openrlhf.utils.deepspeed.universal import check_fits, converted, needs_conversion, reading_universal
from openrlhf.utils.disk import GB, WriteError, check_room, writing
from openrlhf.utils.logging import init_logger
from openrlhf.utils.rng import rng_state, set_rng_state

logger = init_logger(__name__)

ZERO_TO_FP32 = '''\
"""fp32 weights of a checkpoint of ZeRO stage 0, for which DeepSpeed has no such script.

    python zero_to_fp32.py ./ OUTPUT -t global_stepN

OUTPUT becomes a Hugging Face folder.
"""

import sys

from openrlhf.cli.export_hf import zero_to_fp32

sys.exit(zero_to_fp32())
'''
"""What is put beside the checkpoints of stage 0."""


def save_checkpoint(
    engine: Any,
    directory: str | Path,
    tag: str,
    client_state: dict[str, Any],
    *,
    tokenizer: Any = None,
    max_num: int = 3,
    max_gb: float = float("inf"),
) -> None:
    """Saves weights, optimizer, schedule, `client_state` and every rank's random state as `directory/tag`. Collective.

    With a tokenizer, it and the model's configuration lie beside them, so that the checkpoint is all that
    `cli/export_hf.py` needs.

    The checkpoint counts once all ranks' files are on disk; only then are the oldest ones above `max_num` or `max_gb`
    (10^9 bytes) removed. `directory` must be one that all ranks see.

    Raises:
        ValueError: `client_state` holds more than plain containers, numbers and strings (before anything is written).
        WriteError: on every rank, where any rank could not write its files. What was written is removed, and earlier
            checkpoints are as they were, except one of the same tag.
    """
    _check_plain(client_state, "client_state")
    directory = Path(directory)
    raise_everywhere(lambda: _begin(directory, tag), only_rank=0)
    failures: list[WriteError] = []
    writer = engine.checkpoint_engine
    writer.save = partial(_save_file, failures, partial(type(writer).save, writer))
    engine.save_checkpoint(directory, tag=tag, client_state={}, save_latest=False)
    _save_file(failures, torch.save, rng_state(), _rng_path(directory / tag))
    try:
        raise_everywhere(lambda: _flush(directory / tag, failures))
        raise_everywhere(lambda: _finish(engine, directory, tag, client_state, tokenizer), only_rank=0)
    except WriteError:
        if dist.get_rank() == 0:
            remove_checkpoint(directory / tag)
        barrier()
        raise
    if dist.get_rank() == 0:
        prune_checkpoints(directory, max_num=max_num, max_gb=max_gb)
    barrier()


def _begin(directory: Path, tag: str) -> None:
    """Room is asked for as much as the last checkpoint took: before the old one of this tag goes."""
    with writing(directory / tag):
        check_room(directory, last_size(directory))
        begin_checkpoint(directory, tag)


def _save_file(failures: list[WriteError], save: Callable[..., Any], state_dict: Any, path: str | Path) -> None:
    """Saves, but keeps a failure for later: DeepSpeed's own barriers come first, or the other ranks hang in them."""
    if failures:
        return
    try:
        with writing(path):
            save(state_dict, path)
    except WriteError as error:
        failures.append(error)
        Path(path).unlink(missing_ok=True)  # leaves room for the small files that DeepSpeed still copies


def _flush(path: Path, failures: list[WriteError]) -> None:
    """On every rank: a network file system only flushes what this host wrote."""
    if failures:
        raise failures[0]
    with writing(path):
        fsync_tree(path)


def _finish(engine: Any, directory: Path, tag: str, client_state: dict[str, Any], tokenizer: Any) -> None:
    with writing(directory / tag):
        if tokenizer is not None:
            _save_model_files(engine.module, tokenizer, directory / tag / MODEL_FILES)
        if engine.zero_optimization_stage() == 0:
            with atomic_write(directory / "zero_to_fp32.py") as file:
                file.write(ZERO_TO_FP32)
        checkpoint = finish_checkpoint(
            directory,
            tag,
            world_size=dist.get_world_size(),
            zero_stage=engine.zero_optimization_stage(),
            state=client_state,
        )
    logger.info("saved checkpoint %s (%.2f GB)", checkpoint.path, checkpoint.num_bytes / GB)


def _save_model_files(model: Any, tokenizer: Any, path: Path) -> None:
    model.config.save_pretrained(path)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(path)
    tokenizer.save_pretrained(path)
    fsync_tree(path)


def find_checkpoint(directory: str | Path, *, zero_stage: int) -> Checkpoint | None:
    """The checkpoint to continue from: the newest one below `directory` that is whole. Collective.

    Raises:
        UserError: all are damaged, or DeepSpeed cannot bring it to this number of ranks or this ZeRO stage.
    """

    def find() -> Checkpoint | None:
        checkpoint = newest_checkpoint(Path(directory))
        if checkpoint is not None:
            check_fits(checkpoint, world_size=dist.get_world_size(), zero_stage=zero_stage)
        return checkpoint

    return broadcast_object(raise_everywhere(find, only_rank=0))


def load_checkpoint(engine: Any, checkpoint: Checkpoint) -> None:
    """Continues from a checkpoint that `find_checkpoint` returned. Collective.

    `engine` must be fresh from `prepare_train`; learning rate, betas and decay stay its own. Random state is restored
    too, so call it last before training. One of another number of ranks or another ZeRO stage is converted beside
    itself first. DeepSpeed's own reader unpickles whatever a file holds; here its files are read with `weights_only`
    and three of its classes let in (`zero_to_fp32.py` still reads like DeepSpeed: convert only checkpoints that you
    trust).
    """
    engine.checkpoint_engine.load = load_weights_only
    form = {"world_size": dist.get_world_size(), "zero_stage": engine.zero_optimization_stage()}
    if needs_conversion(checkpoint, **form):
        with converted(checkpoint, **form) as folder, reading_universal(engine):
            _load_engine(engine, folder, checkpoint.tag)
    else:
        _load_engine(engine, checkpoint.path.parent, checkpoint.tag)
    rng_path = _rng_path(checkpoint.path)
    if rng_path.exists():  # a rank more than the checkpoint was made by keeps its own
        set_rng_state(torch.load(rng_path, weights_only=True))
    logger.info("continuing from checkpoint %s", checkpoint.path)


def _load_engine(engine: Any, directory: Path, tag: str) -> None:
    with keeping_settings(engine.optimizer, engine.lr_scheduler):
        path, _ = engine.load_checkpoint(directory, tag=tag)
    assert path is not None, f"DeepSpeed found nothing in {directory / tag}"


def save_hf_model(engine: Any, tokenizer: Any, path: str | Path) -> None:
    """Writes the model (safetensors, in its own dtype) and tokenizer as a folder for transformers and vLLM. Collective.

    The folder appears whole or not at all; one of that name is replaced.

    Raises:
        WriteError: on every rank, where rank 0 could not write it.
    """
    model = getattr(engine, "module", engine)
    state_dict = full_state_dict(model, keep=dist.get_rank() == 0)

    def save() -> None:
        with writing(path):
            check_room(Path(path), sum(tensor.nbytes for tensor in state_dict.values()))
            with atomic_directory(path) as aside:
                model.save_pretrained(aside, state_dict=state_dict)
                tokenizer.save_pretrained(aside)
        logger.info("saved model %s", path)

    raise_everywhere(save, only_rank=0)


def _rng_path(path: Path) -> Path:
    return path / f"rng_rank{dist.get_rank()}.pt"


def _check_plain(value: Any, where: str) -> None:
    """Raises ValueError unless `value` is made of plain containers and scalars, which survive `weights_only`."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_plain(key, f"a key of {where}")
            _check_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    elif value is not None and type(value) not in (bool, int, float, str):
        raise ValueError(
            f"{where} is a {type(value).__name__}; checkpoints hold only plain containers, numbers, strings"
        )
