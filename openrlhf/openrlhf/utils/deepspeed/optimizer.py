"""AdamW and its learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from openrlhf.config import OptimizerConfig
from openrlhf.utils.deepspeed.library import import_deepspeed
from openrlhf.utils.devices import device_type


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices, which decay, and vectors (norms, biases), which do not."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trainable if len(full_shape(parameter)) >= 2]
    not_decayed = [parameter for parameter in trainable if len(full_shape(parameter)) < 2]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": not_decayed, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def full_shape(parameter: nn.Parameter) -> torch.Size:
    """The shape of the whole parameter, also while ZeRO-3 holds only a flat part of it here."""
    return getattr(parameter, "ds_shape", parameter.shape)


def build_optimizer(model: nn.Module, config: OptimizerConfig, *, offload: bool) -> torch.optim.Optimizer:
    """AdamW: DeepSpeed's for a state that is offloaded from a GPU, else torch's fused one.

    DeepSpeed's is compiled at first use, which takes minutes: not worth it where the state is on the CPU anyway.
    """
    groups = parameter_groups(model, config.weight_decay)
    if offload and device_type() == "cuda":
        cpu_adam = import_deepspeed().ops.adam.DeepSpeedCPUAdam
        return cpu_adam(groups, lr=config.learning_rate, betas=config.adam_betas, adamw_mode=True)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.adam_betas, fused=True)


def build_scheduler(optimizer: torch.optim.Optimizer, config: OptimizerConfig, *, num_steps: int) -> LambdaLR:
    """Linear warm-up over ceil(lr_warmup_ratio x num_steps) steps, then cosine decay to min_lr_ratio of the peak."""
    num_warmup_steps = math.ceil(config.lr_warmup_ratio * num_steps)
    return LambdaLR(
        optimizer,
        lambda step: lr_factor(
            step, num_steps=num_steps, num_warmup_steps=num_warmup_steps, min_lr_ratio=config.min_lr_ratio
        ),
    )


def lr_factor(step: int, *, num_steps: int, num_warmup_steps: int, min_lr_ratio: float) -> float:
    """Factor on the peak learning rate during optimizer step `step` (from 0).

    The cosine schedule with warm-up of transformers (`cosine_with_min_lr`), read one step ahead: that one starts at 0,
    which would waste the first step's rollouts. Here the first of w warm-up steps has 1/w of the peak, the w-th all of
    it, and the last step of all the minimum.
    """
    step += 1
    if step <= num_warmup_steps:
        return step / num_warmup_steps
    progress = min(1.0, (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps))
    return min_lr_ratio + (1.0 - min_lr_ratio) * 0.5 * (1.0 + math.cos(math.pi * progress))


@contextmanager
def keeping_settings(optimizer: Any, scheduler: LambdaLR) -> Iterator[None]:
    """Within: a checkpoint's state is loaded into both. Afterwards peak rate, betas and decay are this run's again.

    A checkpoint holds its run's settings among the parameter groups. What a resumed run asks for counts instead; with
    the same settings nothing changes, to the last bit.
    """
    settings = [{name: group[name] for name in ("betas", "weight_decay")} for group in optimizer.param_groups]
    peaks = list(scheduler.base_lrs)
    yield
    scheduler.base_lrs = peaks
    for group, own, peak, factor in zip(optimizer.param_groups, settings, peaks, scheduler.lr_lambdas, strict=True):
        group.update(own, initial_lr=peak, lr=peak * factor(scheduler.last_epoch))
