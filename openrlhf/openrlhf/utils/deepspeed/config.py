"""The dict that DeepSpeed is configured with, from our typed configuration. Pure functions."""

from __future__ import annotations

from typing import Any

from openrlhf.config import DeepspeedConfig
from openrlhf.errors import UserError


def training_config(config: DeepspeedConfig, *, world_size: int) -> dict[str, Any]:
    """DeepSpeed's configuration of a model that is trained.

    Accumulation steps stay at 1: their number varies, so the strategy marks the last micro-batch itself.

    Raises:
        UserError: settings that do not go together, with what to change.
    """
    validate(config, world_size=world_size)
    zero = _zero_section(config)
    if config.adam_offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    return {
        **_base_section(config),
        "zero_optimization": zero,
        "gradient_clipping": config.max_norm,
        "data_types": {"grad_accum_dtype": config.grad_accum_dtype},
        # torch's own AdamW is fine under every stage, but is not on DeepSpeed's list of tested optimizers
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def inference_config(config: DeepspeedConfig, *, world_size: int) -> dict[str, Any]:
    """DeepSpeed's configuration of a model that only runs forward (ZeRO-3). Raises UserError as above."""
    validate(config, world_size=world_size)
    return {**_base_section(config), "zero_optimization": _zero_section(config)}


def validate(config: DeepspeedConfig, *, world_size: int) -> None:
    """Raises UserError for settings that DeepSpeed would ignore or fail on only after the model has loaded."""
    if config.zero_stage not in (0, 1, 2, 3):
        raise UserError(f"--zero_stage {config.zero_stage}: must be 0, 1, 2 or 3")
    if config.adam_offload and config.zero_stage == 0:
        raise UserError("--adam_offload needs --zero_stage 1, 2 or 3")
    if config.param_offload and config.zero_stage != 3:
        raise UserError("offloading parameters (--ref_reward_offload) needs --zero_stage 3")
    if config.zpg < 1 or world_size % config.zpg:
        raise UserError(f"--zpg {config.zpg} must divide the number of ranks, {world_size}")
    if config.zpg > 1 and config.zero_stage != 3:
        raise UserError(f"--zpg {config.zpg} needs --zero_stage 3")
    if config.grad_accum_dtype not in (None, "fp32", "bf16"):
        raise UserError(f"--grad_accum_dtype {config.grad_accum_dtype}: must be fp32 or bf16")
    if config.grad_accum_dtype is not None and config.zero_stage == 0:
        raise UserError("--grad_accum_dtype needs --zero_stage 1, 2 or 3")
    if config.grad_accum_dtype == "bf16" and not config.bf16:
        raise UserError("--grad_accum_dtype bf16 needs --bf16")


def _base_section(config: DeepspeedConfig) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "bf16": {"enabled": config.bf16},
        "steps_per_print": None,
    }


def _zero_section(config: DeepspeedConfig) -> dict[str, Any]:
    section: dict[str, Any] = {"stage": config.zero_stage, "overlap_comm": config.overlap_comm}
    if config.zero_stage == 3:
        section["zero_hpz_partition_size"] = config.zpg
    if config.param_offload:
        section["offload_param"] = {"device": "cpu", "pin_memory": True}
    return section
