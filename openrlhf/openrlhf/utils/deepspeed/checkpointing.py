"""Saves and loads engines: resumable checkpoints through DeepSpeed, and Hugging Face folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from openrlhf.utils.atomic_io import atomic_directory, fsync_tree
from openrlhf.utils.checkpoints import (
    Checkpoint,
    begin_checkpoint,
    finish_checkpoint,
    newest_checkpoint,
    prune_checkpoints,
)
from openrlhf.utils.deepspeed.collectives import barrier, broadcast_object
from openrlhf.utils.deepspeed.parameters import full_state_dict
from openrlhf.utils.logging import init_logger
from openrlhf.utils.rng import rng_state, set_rng_state

logger = init_logger(__name__)

CLIENT_STATE = "client_state"


def save_checkpoint(
    engine: Any,
    directory: str | Path,
    tag: str,
    client_state: dict[str, Any],
    *,
    max_num: int = 3,
    max_gb: float = float("inf"),
) -> None:
    """Saves weights, optimizer, schedule, `client_state` and every rank's random state as `directory/tag`. Collective.

    The checkpoint counts once all ranks' files are on disk; only then are the oldest ones above `max_num` or `max_gb`
    (10^9 bytes) removed. `directory` must be one that all ranks see. At stage 0 DeepSpeed writes no `zero_to_fp32.py`.

    Raises:
        ValueError: `client_state` holds more than plain containers, numbers and strings (before anything is written).
    """
    _check_plain(client_state, "client_state")
    directory = Path(directory)
    if dist.get_rank() == 0:
        begin_checkpoint(directory, tag)
    barrier()
    engine.save_checkpoint(directory, tag=tag, client_state={CLIENT_STATE: client_state}, save_latest=False)
    torch.save(rng_state(), _rng_path(directory / tag))
    fsync_tree(directory / tag)  # on every rank: a network file system only flushes what this host wrote
    barrier()
    if dist.get_rank() == 0:
        stage = engine.zero_optimization_stage()
        checkpoint = finish_checkpoint(directory, tag, world_size=dist.get_world_size(), zero_stage=stage)
        logger.info("saved checkpoint %s (%.2f GB)", checkpoint.path, checkpoint.num_bytes / 1e9)
        prune_checkpoints(directory, max_num=max_num, max_gb=max_gb)
    barrier()


def load_checkpoint(engine: Any, directory: str | Path) -> dict[str, Any] | None:
    """Continues from the newest complete checkpoint below `directory`; returns its `client_state`. Collective.

    Returns None, and changes nothing, where there is none. `engine` must be fresh from `prepare_train`. Random state is
    restored too, so call it last before training. DeepSpeed's own reader unpickles whatever a file holds; here its
    files are read with `weights_only` and three of its classes let in (`zero_to_fp32.py` still reads like DeepSpeed:
    convert only checkpoints that you trust).

    Raises:
        ValueError: the checkpoint was made with another number of ranks or another ZeRO stage.
    """
    directory = Path(directory)
    checkpoint = broadcast_object(newest_checkpoint(directory) if dist.get_rank() == 0 else None)
    if checkpoint is None:
        return None
    _check_fits(checkpoint, world_size=dist.get_world_size(), zero_stage=engine.zero_optimization_stage())
    engine.checkpoint_engine.load = _load_weights_only
    path, state = engine.load_checkpoint(directory, tag=checkpoint.tag)
    assert path is not None, f"DeepSpeed found nothing in {checkpoint.path}"
    set_rng_state(torch.load(_rng_path(checkpoint.path), weights_only=True))
    logger.info("continuing from checkpoint %s", checkpoint.path)
    return state[CLIENT_STATE]


def save_hf_model(engine: Any, tokenizer: Any, path: str | Path) -> None:
    """Writes the model (safetensors, in its own dtype) and tokenizer as a folder for transformers and vLLM. Collective.

    The folder appears whole or not at all; one of that name is replaced.
    """
    model = getattr(engine, "module", engine)
    is_writer = dist.get_rank() == 0
    state_dict = full_state_dict(model, keep=is_writer)
    if is_writer:
        with atomic_directory(path) as aside:
            model.save_pretrained(aside, state_dict=state_dict)
            tokenizer.save_pretrained(aside)
        logger.info("saved model %s", path)
    barrier()


def _load_weights_only(path: str, map_location: Any = None) -> Any:
    """Reads one of DeepSpeed's files without running what a pickle may contain."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
        return torch.load(path, map_location=map_location, weights_only=True)


def _rng_path(path: Path) -> Path:
    return path / f"rng_rank{dist.get_rank()}.pt"


def _check_fits(checkpoint: Checkpoint, *, world_size: int, zero_stage: int) -> None:
    """ZeRO's shards are per rank and per stage; DeepSpeed fails on others only after half of the state is replaced."""
    if (checkpoint.world_size, checkpoint.zero_stage) != (world_size, zero_stage):
        raise ValueError(
            f"checkpoint {checkpoint.path} was made by {checkpoint.world_size} rank(s) at ZeRO stage "
            f"{checkpoint.zero_stage}, this run has {world_size} at stage {zero_stage}: continue with the same, or "
            "start from its converted weights (--pretrain)"
        )


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
