"""Turns a model's randomness off: log-probs before, during and after an update must come from one function."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import nn
from transformers import PreTrainedConfig


def silence(model: nn.Module) -> None:
    """Makes the model compute in training mode what it computes in evaluation mode, in place.

    Beside the model itself only modules that may checkpoint activations go into training mode, which is all that
    transformers needs of it: every other one, routers with jitter or sampling among them, stays in evaluation mode
    whatever `train()` says.
    What those few modules drop has its probability, in the module or in a configuration, set to 0.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        _drop_nothing(vars(module))
        for config in _configs(vars(module)):
            _drop_nothing(config)
        if module is not model and not hasattr(module, "gradient_checkpointing"):
            module.eval()
            module.train = partial(_stay_in_evaluation, module)  # type: ignore[method-assign]


def _stay_in_evaluation(module: nn.Module, mode: bool = True) -> nn.Module:
    for child in module.children():
        child.train(mode)
    return module


def _drop_nothing(attributes: dict[str, Any]) -> None:
    """Sets every probability of dropping something to 0: dropout, resid_pdrop, layerdrop, drop_path_rate, ..."""
    for name, value in attributes.items():
        if "drop" in name and isinstance(value, float):
            attributes[name] = 0.0


def _configs(attributes: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The attributes of the configurations among these attributes, and of those within them."""
    for value in attributes.values():
        if isinstance(value, PreTrainedConfig):
            yield vars(value)
            yield from _configs(vars(value))
