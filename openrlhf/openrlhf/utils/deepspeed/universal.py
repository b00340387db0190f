"""Continues from a checkpoint of another number of ranks or another ZeRO stage, through DeepSpeed's universal form.

What DeepSpeed 0.19.8 can do, tried on one and two ranks in fp32 (`tests/integration/test_universal_checkpoints.py`):
stages 1 and 2 into each other, stage 3 into itself, stage 0 into itself, each with any number of ranks. It cannot
go between stage 3 and the others (its files have other names and another form), nor into or out of stage 0.
"""

from __future__ import annotations

import io
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from openrlhf.errors import UserError
from openrlhf.utils.atomic_io import temporary_directory
from openrlhf.utils.checkpoints import Checkpoint
from openrlhf.utils.deepspeed.collectives import barrier, broadcast_object, raise_everywhere
from openrlhf.utils.deepspeed.library import import_deepspeed
from openrlhf.utils.deepspeed.reading import reading_weights_only
from openrlhf.utils.disk import check_room, writing
from openrlhf.utils.logging import init_logger

logger = init_logger(__name__)

FAMILIES = {0: 0, 1: 1, 2: 1, 3: 3}
"""ZeRO stage -> the form of its checkpoints; only within one form can DeepSpeed go from stage to stage."""
ROOM = 3
"""The fragments, and the states put together from them, each as large as the checkpoint; and some to spare."""


def check_fits(checkpoint: Checkpoint, *, world_size: int, zero_stage: int) -> None:
    """Raises UserError where DeepSpeed cannot bring the checkpoint into the form that this run needs."""
    if FAMILIES[checkpoint.zero_stage] == FAMILIES[zero_stage]:
        return
    raise UserError(
        f"checkpoint {checkpoint.path} was made by {checkpoint.world_size} rank(s) at ZeRO stage "
        f"{checkpoint.zero_stage}, this run has {world_size} at stage {zero_stage}; DeepSpeed converts between "
        "stages 1 and 2 and between numbers of ranks, but not between these: continue with --zero_stage "
        f"{checkpoint.zero_stage}, or start anew from its weights "
        "(python -m openrlhf.cli.export_hf, then --pretrain)"
    )


def needs_conversion(checkpoint: Checkpoint, *, world_size: int, zero_stage: int) -> bool:
    """Stage 0 keeps whole states, which any number of ranks can read."""
    same = (checkpoint.world_size, checkpoint.zero_stage) == (world_size, zero_stage)
    return not same and zero_stage != 0


@contextmanager
def converted(checkpoint: Checkpoint, *, world_size: int, zero_stage: int) -> Iterator[Path]:
    """The checkpoint in universal form, in a folder beside all checkpoints that is gone afterwards. Collective.

    Raises:
        WriteError: on every rank, where there is no room for it.
    """
    if dist.get_rank() != 0:
        raise_everywhere(lambda: None, only_rank=0)
        yield Path(broadcast_object(""))
        barrier()
        return
    logger.warning(
        "%s was made by %d rank(s) at ZeRO stage %d, this run has %d at stage %d: its states are converted, and "
        "the copy is removed once it is read",
        *(checkpoint.path, checkpoint.world_size, checkpoint.zero_stage, world_size, zero_stage),
    )
    with temporary_directory(checkpoint.path.parent) as folder:
        raise_everywhere(lambda: _convert(checkpoint, folder / checkpoint.tag), only_rank=0)
        yield Path(broadcast_object(str(folder)))
        barrier()


@contextmanager
def reading_universal(engine: Any) -> Iterator[None]:
    """Within: the engine reads universal checkpoints; afterwards their slips are mended."""
    config = engine._config
    config.load_universal_checkpoint = True
    try:
        with reading_weights_only():
            yield
    finally:
        config.load_universal_checkpoint = False
    unshare_steps(getattr(engine.optimizer, "optimizer", engine.optimizer))


def unshare_steps(optimizer: torch.optim.Optimizer) -> None:
    """Gives every parameter a step count of its own.

    At stage 3 DeepSpeed hands one tensor to all of them, and AdamW counts in place: once for each parameter group.
    """
    for state in optimizer.state.values():
        if isinstance(state.get("step"), torch.Tensor):
            state["step"] = state["step"].clone()


def _convert(checkpoint: Checkpoint, output: Path) -> None:
    import_deepspeed()
    from deepspeed.checkpoint import ds_to_universal

    settings = Namespace(
        input_folder=str(checkpoint.path),
        output_folder=str(output),
        num_extract_workers=1,  # more would be processes, forked off a worker of Ray
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    silence = io.StringIO()
    with writing(output), reading_weights_only(), redirect_stdout(silence), redirect_stderr(silence):
        check_room(output, ROOM * checkpoint.num_bytes)
        ds_to_universal.main(settings)
