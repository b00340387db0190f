"""Counts what a forward and backward pass of a policy recomputes and keeps, for the tests of gradient checkpointing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from openrlhf.models.logprobs import shared_prefix_logprobs, unwrap
from openrlhf.models.shared_prefix import SharedPrefixBatch
from openrlhf.utils.deepspeed.strategy import DeepspeedStrategy


@dataclass(frozen=True, kw_only=True)
class ActivationUse:
    mlp_forwards: int
    """Forwards of all the layers' MLPs, recomputed ones included."""
    saved_elements: int
    """Elements of activations kept for the backward pass, a storage once, parameters and their views left out."""


def measure_training_pass(strategy: DeepspeedStrategy, engine: Any, batch: SharedPrefixBatch) -> ActivationUse:
    """One forward and backward pass of an engine as `prepare_train` gave it."""
    causal_lm = unwrap(engine)
    counter = _MlpCounter(causal_lm)
    storages: dict[int, int] = {}
    parameters = {parameter.untyped_storage().data_ptr() for parameter in causal_lm.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters and not isinstance(tensor, nn.Parameter):
            storages[storage.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logprobs = shared_prefix_logprobs(engine, batch)
    strategy.backward(engine, -logprobs.sum(), is_last=True)
    return ActivationUse(mlp_forwards=counter.close(), saved_elements=sum(storages.values()))


class _MlpCounter:
    def __init__(self, causal_lm: nn.Module) -> None:
        self.forwards = 0
        mlps = [module for name, module in causal_lm.named_modules() if name.endswith(".mlp")]
        self._hooks = [mlp.register_forward_pre_hook(self._count) for mlp in mlps]

    def _count(self, *_: Any) -> None:
        self.forwards += 1

    def close(self) -> int:
        for hook in self._hooks:
            hook.remove()
        return self.forwards
