"""Log-probs of a shared-prefix batch's labels, without ever building the full logits."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig, PreTrainedModel

from openrlhf.errors import UserError
from openrlhf.models.attention import FLEX_LENGTH_MULTIPLE, attention_mask
from openrlhf.models.shared_prefix import SharedPrefixBatch

# Logits that exist at one time (256 MiB in fp32).
MAX_LOGITS = 2**26

# Settings that make logits something else than a linear map of hidden states.
LOGIT_SETTINGS = ("final_logit_softcapping", "logits_scaling", "logit_scale", "lm_head_multiplier")
WINDOWED_LAYERS = ("sliding_attention", "chunked_attention")


class LogprobHead(nn.Linear):
    """An LM head that returns labels' log-probs instead of logits while `returning_logprobs` is open.

    The head stays the module that owns the weight and the model's own forward calls it, so engines that wrap the model
    (ZeRO-3's parameter gathering, checkpoint names) need no special case. The chunks are recomputed in the backward
    pass: neither pass holds more than `MAX_LOGITS` logits.
    """

    _request: tuple[Tensor, Tensor, Callable[..., Tensor]] | None = None
    chunk_logprobs: Callable[..., Tensor]
    chunk_with_entropy: Callable[..., Tensor]

    @contextmanager
    def returning_logprobs(self, labels: Tensor, temperature: float, *, with_entropy: bool = False) -> Iterator[None]:
        """Within: forward maps hidden (..., L, H) to fp32 log-probs (..., L) of labels (L,) at a temperature.

        With entropy to (..., L, 2): log-prob, and the entropy in nats of the distribution that the label is from.
        """
        # On the labels' device: a Python number would be compiled as a tensor of the CPU, with a C++ compiler.
        divisor = torch.full((), temperature, device=labels.device)
        self._request = (labels, divisor, self.chunk_with_entropy if with_entropy else self.chunk_logprobs)
        try:
            yield
        finally:
            self._request = None

    def forward(self, hidden: Tensor) -> Tensor:
        if self._request is None:
            return super().forward(hidden)
        labels, temperature, chunk_function = self._request
        rows = max(1, MAX_LOGITS // self.out_features)
        chunks = zip(hidden.flatten(0, -2).split(rows), labels.split(rows), strict=True)
        logprobs = [
            checkpoint(chunk_function, h, self.weight, self.bias, y, temperature, use_reentrant=False)
            for h, y in chunks
        ]
        return torch.cat(logprobs).unflatten(0, hidden.shape[:-1])


def chunk_logprobs(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, temperature: Tensor) -> Tensor:
    """(rows, H), (V, H), (V,), (rows,), () -> fp32 log-probs (rows,)."""
    logits = F.linear(hidden, weight, bias).float() / temperature  # (rows, V)
    return logits.gather(-1, labels[:, None]).squeeze(-1) - logits.logsumexp(dim=-1)


def chunk_with_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, temperature: Tensor
) -> Tensor:
    """As above, to (rows, 2): log-probs, and the entropy log Z - sum p x of logits x without gradient."""
    logits = F.linear(hidden, weight, bias).float() / temperature  # (rows, V)
    log_z = logits.logsumexp(dim=-1)
    logprobs = logits.gather(-1, labels[:, None]).squeeze(-1) - log_z
    with torch.no_grad():
        probabilities = (logits - log_z[:, None]).exp_()
        entropy = log_z - torch.einsum("rv,rv->r", probabilities, logits)
    return torch.stack([logprobs, entropy], dim=-1)


def install_logprob_head(model: PreTrainedModel, *, compiled: bool = False) -> None:
    """Turns the model's LM head into a `LogprobHead`, in place: same weight, same parameter names.

    What is known to rule packs out is refused here, by its name; `check_packs` finds the rest.

    Args:
        compiled: fuse what follows the logits with torch.compile, once for all numbers of labels.

    Raises:
        UserError: the model's packed log-probs would differ from its own.
    """
    if (why := _why_not_packable(model)) is not None:
        raise UserError(f"{type(model).__name__} {why}, which shared-prefix batches do not support; take another model")
    head: Any = model.get_output_embeddings()
    head.__class__ = LogprobHead
    head.chunk_logprobs = torch.compile(chunk_logprobs, dynamic=True) if compiled else chunk_logprobs
    head.chunk_with_entropy = torch.compile(chunk_with_entropy, dynamic=True) if compiled else chunk_with_entropy


def _why_not_packable(model: PreTrainedModel) -> str | None:
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    if type(head) not in (nn.Linear, LogprobHead):
        return f"has {type(head).__name__} for an LM head, not a linear layer"
    for name in LOGIT_SETTINGS:
        if getattr(config, name, None) not in (None, 1, 1.0):
            return f"transforms its logits ({name})"
    taken = inspect.signature(model.forward).parameters
    if missing := [name for name in ("attention_mask", "position_ids", "logits_to_keep") if name not in taken]:
        return f"takes no {', '.join(missing)}"
    return _why_not_attention(config)


def _why_not_attention(config: PreTrainedConfig) -> str | None:
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"]) - {"full_attention"}
    windows = {kind for kind in kinds if kind in WINDOWED_LAYERS}
    if kinds - windows:
        return f"has layers that do not attend to tokens one by one ({', '.join(sorted(kinds - windows))})"
    if windows or (getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)):
        return "uses windowed attention"
    return None


def shared_prefix_logprobs(
    model: nn.Module, batch: SharedPrefixBatch, *, temperature: float = 1.0, with_entropy: bool = False
) -> Tensor:
    """fp32 log-probs (L,) of the batch's labels at a temperature; (L, 2) with the entropy (nats) beside each.

    `model` is a causal language model whose head `install_logprob_head` has prepared (`load_causal_lm` does), or a
    DeepSpeed engine around one; the batch lies on the device that it computes on.
    """
    causal_lm = unwrap(model)
    implementation = causal_lm.config._attn_implementation
    if implementation == "flex_attention":
        batch = batch.padded(FLEX_LENGTH_MULTIPLE)
    with causal_lm.get_output_embeddings().returning_logprobs(batch.labels, temperature, with_entropy=with_entropy):
        output = model(
            input_ids=batch.input_ids[None],
            position_ids=batch.position_ids[None],
            attention_mask=attention_mask(batch, implementation),
            use_cache=False,
            logits_to_keep=batch.label_positions,
        )
    return output.logits[0]


def unwrap(model: nn.Module) -> PreTrainedModel:
    """The Hugging Face model inside a DeepSpeed engine, or the model itself."""
    causal_lm = model if isinstance(model, PreTrainedModel) else model.module
    assert isinstance(causal_lm, PreTrainedModel)
    return causal_lm
