"""A checkpoint of training as a Hugging Face folder: what `transformers` and vLLM load.

The weights come out of DeepSpeed's files through its own reader (`deepspeed.utils.zero_to_fp32`), one tensor at a time,
and are kept once, in the precision asked for. The model itself is built on the meta device, without weights: it knows
their names, their shapes and which are tied.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from openrlhf.errors import UserError
from openrlhf.models.generation import mend_generation_config
from openrlhf.utils.checkpoints import MODEL_FILES, Checkpoint
from openrlhf.utils.deepspeed.reading import load_weights_only, reading_weights_only
from openrlhf.utils.disk import check_room, writing
from openrlhf.utils.model_config import get_model_config
from openrlhf.utils.tokenizer import get_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SHARD_SIZE = "5GB"


def export_checkpoint(
    checkpoint: Checkpoint, path: Path, *, dtype: str, pretrain: str, trust_remote_code: bool = False
) -> None:
    """Writes weights (safetensors), configuration, generation configuration and tokenizer into an empty folder.

    Args:
        dtype: of DTYPES.
        pretrain: where configuration and tokenizer come from, as `model_source` finds it.

    Raises:
        UserError: `pretrain` is not a model, or not the one that was trained.
        WriteError: there is no room, or the folder cannot be written.
    """
    model = build_model(pretrain, DTYPES[dtype], trust_remote_code=trust_remote_code)
    tokenizer = get_tokenizer(pretrain, trust_remote_code=trust_remote_code)
    num_bytes = sum(parameter.nbytes for parameter in model.parameters())
    with writing(path):
        check_room(path, num_bytes)
    with reading_weights_only():
        weights = {name: _whole(value, DTYPES[dtype]) for name, value in untied(read_weights(checkpoint)).items()}
    _check_weights(model, weights, f"{checkpoint.path} does not hold the weights of {pretrain}")
    with writing(path):
        model.save_pretrained(path, state_dict=weights, max_shard_size=SHARD_SIZE)
        tokenizer.save_pretrained(path)


def model_source(checkpoint: Checkpoint) -> str | None:
    """Where configuration and tokenizer are: in the checkpoint; in one that is older, where the run had them from."""
    own = checkpoint.path / MODEL_FILES
    return str(own) if own.is_dir() else checkpoint.state.get("settings", {}).get("policy.pretrain")


def build_model(pretrain: str, dtype: torch.dtype, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model without weights. Raises UserError where there is no such model."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    config = get_model_config(pretrain, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
    with suppress(OSError):  # where there is none, the model's own serves
        model.generation_config = GenerationConfig.from_pretrained(pretrain)
    mend_generation_config(model.generation_config, pretrain)
    return model


def read_weights(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Name -> tensor, or what DeepSpeed makes one of on `contiguous()`. fp32, but at stage 0 as they were trained."""
    if checkpoint.zero_stage == 0:  # DeepSpeed's reader knows partitioned checkpoints only
        path = checkpoint.path / "mp_rank_00_model_states.pt"
        return load_weights_only(str(path), map_location="cpu", mmap=True)["module"]  # not the optimizer's states
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    with redirect_stdout(io.StringIO()):  # it prints what it does
        return get_fp32_state_dict_from_zero_checkpoint(checkpoint.path.parent, checkpoint.tag, lazy_mode=True)


def untied(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The weights with tied ones there once, under their first name."""
    seen: set[object] = set()
    found: dict[str, Any] = {}
    for name, value in weights.items():
        place = (value.data_ptr(), value.shape) if isinstance(value, Tensor) else id(value)
        if place not in seen:
            seen.add(place)
            found[name] = value
    return found


def _whole(value: Any, dtype: torch.dtype) -> Tensor:
    tensor = value.contiguous()
    # a copy in any case: what is left of DeepSpeed's flat vectors can go
    return tensor.to(dtype, copy=True) if tensor.is_floating_point() else tensor.clone()


def _check_weights(model: PreTrainedModel, weights: Mapping[str, Tensor], problem: str) -> None:
    """Raises UserError unless every parameter of the model is there, in its shape."""
    for name, parameter in model.named_parameters():
        if name not in weights:
            raise UserError(f"{problem}: {name} is missing; pass --pretrain, the model that the run started from")
        if weights[name].shape != parameter.shape:
            raise UserError(
                f"{problem}: {name} is {tuple(weights[name].shape)} instead of {tuple(parameter.shape)}; pass "
                "--pretrain, the model that the run started from"
            )
