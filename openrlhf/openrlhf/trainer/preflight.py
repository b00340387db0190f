"""What the end of a run needs is tried before it starts: folders to write to, room on their disks, a save of the model.

Called by the command, before Ray starts and any weights are read.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from openrlhf.config import CheckpointConfig, DeepspeedConfig, ModelConfig, TrainConfig
from openrlhf.errors import UserError
from openrlhf.models.generation import mend_generation_config
from openrlhf.trainer.memory_plan import ModelShape
from openrlhf.utils.checkpoints import ACTOR_FOLDER, BEST_FOLDER
from openrlhf.utils.disk import check_writable, describe_room, existing_parent, free_bytes
from openrlhf.utils.model_config import get_model_config

FP32, BF16 = 4, 2


def check_outputs(config: TrainConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises UserError where the run could not save what it makes."""
    checkpoint = config.checkpoint
    check_writable(Path(checkpoint.save_path), "--save_path")
    if checkpoint.writes_checkpoints:
        check_writable(Path(checkpoint.ckpt_path), "--ckpt_path")
    check_disks(expected_sizes(checkpoint, config.actor_deepspeed, model_shape(config.policy).parameters))
    rehearse_save(config.policy, tokenizer)


def written_folders(checkpoint: CheckpointConfig) -> list[Path]:
    """Where a run writes: the folders that no other run may share."""
    return [Path(checkpoint.save_path), *([Path(checkpoint.ckpt_path)] if checkpoint.writes_checkpoints else [])]


def expected_sizes(checkpoint: CheckpointConfig, deepspeed: DeepspeedConfig, parameters: int) -> dict[Path, int]:
    """Bytes that a run writes at least: folder -> one checkpoint, or the final model."""
    weights = parameters * (BF16 if deepspeed.bf16 else FP32)
    sizes = {Path(checkpoint.save_path) / "final_model": weights}
    if checkpoint.save_steps > 0 and not checkpoint.disable_ds_ckpt:
        sizes[Path(checkpoint.ckpt_path) / ACTOR_FOLDER] = parameters * checkpoint_bytes_per_parameter(deepspeed)
    if checkpoint.save_best is not None:
        sizes[Path(checkpoint.ckpt_path) / BEST_FOLDER] = parameters * checkpoint_bytes_per_parameter(deepspeed)
    if checkpoint.save_steps > 0 and checkpoint.save_hf_ckpt:
        sizes[Path(checkpoint.ckpt_path)] = weights
    return sizes


def checkpoint_bytes_per_parameter(deepspeed: DeepspeedConfig) -> int:
    """Adam's two moments and the fp32 weights that it steps, and below ZeRO-3 the model's own weights beside them.

    At stage 0 in fp32 the model's weights are the ones that Adam steps.
    """
    weights = 0 if deepspeed.zero_stage == 3 else BF16 if deepspeed.bf16 else FP32
    masters = 0 if deepspeed.zero_stage == 0 and not deepspeed.bf16 else FP32
    return weights + masters + 2 * FP32


def check_disks(sizes: dict[Path, int]) -> None:
    """Raises UserError for a disk that has no room for all that goes there, once each."""
    by_disk: dict[int, list[Path]] = defaultdict(list)
    for path in sizes:
        by_disk[os.stat(existing_parent(path)).st_dev].append(path)
    for paths in by_disk.values():
        needed, free = sum(sizes[path] for path in paths), free_bytes(paths[0])
        if free < needed:
            raise UserError(
                f"{' and '.join(map(str, paths))}: not enough room, {describe_room(needed, free)}; one of each fits "
                "there at least; make room, or pass another --save_path or --ckpt_path"
            )


def model_shape(model: ModelConfig) -> ModelShape:
    """From the configuration alone: no weights are read. Raises UserError where there is none."""
    config = get_model_config(model.pretrain, trust_remote_code=model.trust_remote_code)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, trust_remote_code=model.trust_remote_code)
    text = config.get_text_config()
    heads = text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    return ModelShape(
        parameters=empty.num_parameters(),
        embedding=empty.get_input_embeddings().weight.numel(),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        query=heads * head_dim,
        key_value=(getattr(text, "num_key_value_heads", None) or heads) * head_dim,
    )


def rehearse_save(model: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Saves what goes beside the weights, to a temporary folder.

    Raises:
        UserError: that is not possible, so it would not be at the end either.
    """
    config = get_model_config(model.pretrain, trust_remote_code=model.trust_remote_code)
    generation = load_generation_config(model, config)
    with tempfile.TemporaryDirectory() as aside:
        for part in (config, generation, tokenizer):
            try:
                part.save_pretrained(aside)
            except (OSError, ValueError, TypeError) as error:
                raise UserError(
                    f"--pretrain {model.pretrain}: its {type(part).__name__} cannot be saved, so the trained model "
                    f"could not be either ({error}); mend the model's folder"
                ) from error


def load_generation_config(model: ModelConfig, config: PretrainedConfig) -> GenerationConfig:
    """The model's own, mended, or the one that transformers makes for a model without. Raises UserError."""
    try:
        generation = GenerationConfig.from_pretrained(model.pretrain, trust_remote_code=model.trust_remote_code)
    except OSError:  # the model has none
        generation = GenerationConfig.from_model_config(config)
    except ValueError as error:
        raise UserError(f"--pretrain {model.pretrain}: its generation_config.json is refused: {error}") from error
    mend_generation_config(generation, model.pretrain)
    return generation
