"""The one maker of tiny random models (`tests/sweep` makes one of each architecture, by its own fields)."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
FOR_VLLM = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
"""Heads of 32: the least that vLLM runs on the CPU."""
FOR_ZERO_3 = {"hidden_size": 64, "intermediate_size": 2048, "num_attention_heads": 4, "max_position_embeddings": 64}
"""Three matrices a layer above 10^5 elements: the size from which ZeRO-3 partitions."""


def random_model(architecture: str, *, vocab_size: int, **config: Any) -> PreTrainedModel:
    """An untrained causal model in fp32, the same one at every call; `config` adds to `SIZES` and wins."""
    torch.manual_seed(0)
    fields = {**SIZES, **config}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, vocab_size=vocab_size, **fields))
