"""The policy (and reference) model: a causal language model seen as log-probs of labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from openrlhf.config import ModelConfig
from openrlhf.errors import UserError
from openrlhf.models.generation import mend_generation_config
from openrlhf.models.logprobs import install_logprob_head, shared_prefix_logprobs
from openrlhf.models.noise import silence
from openrlhf.models.shared_prefix import SharedPrefixBatch
from openrlhf.utils.devices import current_device


class Actor(nn.Module):
    """A causal language model seen as one function: batch -> log-probs of its labels.

    `model` is the Hugging Face model, or the DeepSpeed engine that the strategy puts in its place.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, batch: SharedPrefixBatch, temperature: float = 1.0) -> Tensor:
        """fp32 log-probs (L,) of the batch's labels at a temperature."""
        return shared_prefix_logprobs(self.model, batch.to(current_device()), temperature=temperature)

    def with_entropy(self, batch: SharedPrefixBatch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """`forward`, and the entropy (L,) in nats of the distribution behind each label, which has no gradient."""
        both = shared_prefix_logprobs(
            self.model, batch.to(current_device()), temperature=temperature, with_entropy=True
        )
        return both[:, 0], both[:, 1]


def load_causal_lm(config: ModelConfig) -> PreTrainedModel:
    """Loads a causal language model for shared-prefix batches, on the CPU or, under ZeRO-3, partitioned.

    It is `silence`d: training mode computes what evaluation mode does.

    Raises:
        UserError: the architecture is one whose log-probs cannot be packed (see `install_logprob_head`). What has been
            loaded is to be shown to `check_packs` before anything depends on it.
    """
    # Of the whole process: each model of a run has a process of its own.
    torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    attention = "flex_attention" if config.flash_attn else "sdpa"
    try:
        model = AutoModelForCausalLM.from_pretrained(
            config.pretrain,
            dtype=torch.bfloat16 if config.bf16 else torch.float32,
            attn_implementation=attention,
            trust_remote_code=config.trust_remote_code,
        )
    except ValueError as error:
        if (refusal := attention_refusal(error, config.pretrain, attention)) is None:
            raise
        raise refusal from error
    silence(model)
    if model.generation_config is not None:
        mend_generation_config(model.generation_config, config.pretrain)
    install_logprob_head(model, compiled=config.torch_compile)
    if config.use_liger_kernel:
        from liger_kernel.transformers import _apply_liger_kernel_to_instance

        _apply_liger_kernel_to_instance(model, fused_linear_cross_entropy=False)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": config.gradient_checkpointing_use_reentrant})
    return model


def attention_refusal(error: ValueError, name: str, attention: str) -> UserError | None:
    """What to say where transformers cannot run an architecture with this attention; None for any other error."""
    if "does not support an attention implementation" not in str(error):
        return None
    return UserError(
        f"{name}: transformers has no {attention} attention for its architecture, which shared-prefix batches need; "
        "take another model"
    )
