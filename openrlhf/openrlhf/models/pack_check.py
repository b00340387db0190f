"""Proves, on the model as loaded, that packs give the log-probs that its own plain forward gives.

Whether an architecture can be packed does not follow from its name: a decoder may ignore or shift `position_ids`, look
through windows, choose its angles or its keys by the length of what it reads, or change its logits behind the head. So
before anything depends on packs, a short, a long and another short segment behind one prefix are scored in one pack and
one by one. Random tokens do: how a model is wired does not depend on what it reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from openrlhf.errors import UserError
from openrlhf.models.limits import max_sequence_tokens
from openrlhf.models.logprobs import shared_prefix_logprobs, unwrap
from openrlhf.models.shared_prefix import LabeledSequence, pack_shared_prefix
from openrlhf.utils.devices import current_device

PREFIX_TOKENS = 16
SHORT_TOKENS = (40, 49)
LONG_TOKENS = 160
"""Lengths of the sequences, prefix included; the long one goes past the lengths in `CRITICAL_LENGTHS` too."""
LABEL_TOKENS = 48
"""The last tokens of a sequence are its labels: the plain forward makes no logits of the others."""
CRITICAL_LENGTHS = ("sliding_window", "attention_chunk_size", "keep_window_size", "index_topk")
"""Settings beyond which a token no longer reads all tokens before it."""
MAX_FLOP = {"cpu": 5e11, "cuda": 1e15}
"""Of one forward of the long sequence: a few seconds, 1,800 tokens of a 135M model or 70,000 of a 7B one."""
MAX_LONG_TOKENS = 16_384
"""On the way to a length above it, dense masks and attention would take the memory and the seconds."""

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2}
"""Nats a token that rounding may make, mean over a sequence's labels: more than twice what it was seen to make on
random tokens, which are the noisiest text there is (docs/experiments.md)."""
TF32_TOLERANCE = TOLERANCE[torch.bfloat16] / 8
"""Of float32 with matrix products in TF32, whose operands have three bits more than bfloat16."""


@dataclass(frozen=True, kw_only=True)
class PackCheck:
    """What was compared, and what came out."""

    lengths: tuple[int, ...]
    """Tokens of each sequence."""
    gaps: tuple[float, ...]
    """Nats a token between packed and plain log-probs, mean of the absolute differences over each sequence's labels."""


def check_packs(model: nn.Module, *, name: str) -> PackCheck:
    """Compares packed with plain log-probs of a loaded model. Collective under ZeRO-3: all ranks run the same forwards.

    The pack runs in the mode in which the model is, the plain forwards in evaluation mode, so that a policy that
    computes something else while it trains is found too; they use torch's own causal attention.

    Args:
        model: what `shared_prefix_logprobs` takes.
        name: of the model, for the message.

    Raises:
        UserError: they differ by more than the precision explains, or the model cannot run packs at all.
    """
    causal_lm = unwrap(model)
    sequences = probe_sequences(causal_lm.config, long_tokens(causal_lm, name))
    plain = [_plain_logprobs(model, sequence) for sequence in sequences]
    packed = _packed_logprobs(model, sequences, name)
    gaps = tuple((a - b).abs().mean().item() for a, b in zip(packed, plain, strict=True))
    lengths = tuple(len(sequence.token_ids) for sequence in sequences)
    tolerance = tolerance_of(causal_lm.dtype)
    for length, gap in zip(lengths, gaps, strict=True):
        if not gap <= tolerance:  # also where it is not a number
            raise UserError(
                f"{name} ({type(causal_lm).__name__}): the log-probs of a sequence of {length} tokens differ by "
                f"{gap:.2g} nats a token between a shared-prefix pack and a forward of its own (rounding explains "
                f"{tolerance:g}); this model cannot be used with packs, so take another one"
            )
    return PackCheck(lengths=lengths, gaps=gaps)


def tolerance_of(dtype: torch.dtype) -> float:
    """Nats a token that rounding may make in this process."""
    in_tf32 = dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    return TF32_TOLERANCE if in_tf32 else TOLERANCE[dtype]


def long_tokens(model: PreTrainedModel, name: str) -> int:
    """The length of the long sequence: past every critical length that a sequence of this model can reach.

    Raises:
        UserError: that takes more than `MAX_FLOP`, so what happens there cannot be checked.
    """
    text = model.config.get_text_config()
    limit = max_sequence_tokens(model.config) or MAX_LONG_TOKENS
    parameters = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
    affordable = min(MAX_LONG_TOKENS, int(MAX_FLOP[current_device().type] / (2 * parameters)))
    length = LONG_TOKENS
    for setting in CRITICAL_LENGTHS:
        critical = getattr(text, setting, None) or 0
        if not 0 < critical < limit:
            continue
        length = max(length, critical + LONG_TOKENS)
        if length > affordable:
            raise UserError(
                f"{name} ({type(model).__name__}): {setting} {critical} changes what it computes for longer sequences, "
                f"and this machine can check {affordable} tokens within seconds; take a model without it"
            )
    return min(length, limit)


def probe_sequences(config: PreTrainedConfig, long: int) -> list[LabeledSequence]:
    """A short, a long and a short sequence of ordinary random tokens behind one prefix, labels at their ends."""
    text = config.get_text_config()
    ordinary = sorted(set(range(text.vocab_size)) - _special_tokens(config) - _special_tokens(text))
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return [ordinary[i] for i in torch.randint(len(ordinary), (count,), generator=generator).tolist()]

    prefix = tokens(min(PREFIX_TOKENS, long // 2))
    lengths = [min(SHORT_TOKENS[0], long), long, min(SHORT_TOKENS[1], long)]
    return [
        LabeledSequence(
            token_ids=prefix + tokens(length - len(prefix)), label_start=max(len(prefix), length - LABEL_TOKENS)
        )
        for length in lengths
    ]


def _special_tokens(config: PreTrainedConfig) -> set[int]:
    """Ids that mean something to the model itself: padding, ends, places of images and sounds."""
    values = [value for key, value in vars(config).items() if key.endswith(("token_id", "token_index"))]
    return {id for value in values for id in (value if isinstance(value, list) else [value]) if isinstance(id, int)}


@torch.no_grad()
def _plain_logprobs(model: nn.Module, sequence: LabeledSequence) -> Tensor:
    """Log-probs (L,) of the labels from the model's own logits, with nothing of ours."""
    labels = torch.tensor(sequence.token_ids[sequence.label_start :], device=current_device())
    ids = torch.tensor([sequence.token_ids], device=current_device())
    with _plain(unwrap(model)):
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=labels.numel() + 1).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(-1, labels[:, None]).squeeze(-1)


@torch.no_grad()
def _packed_logprobs(model: nn.Module, sequences: list[LabeledSequence], name: str) -> list[Tensor]:
    (batch,) = pack_shared_prefix(sequences, max_tokens=sum(len(sequence.token_ids) for sequence in sequences))
    batch = batch.to(current_device())
    try:
        logprobs = shared_prefix_logprobs(model, batch)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
        raise UserError(
            f"{name} ({type(unwrap(model)).__name__}): cannot run a shared-prefix pack, though it runs a plain forward "
            f"({type(error).__name__}: {error}); take another model"
        ) from error
    return batch.split_per_sample(logprobs)


@contextmanager
def _plain(causal_lm: PreTrainedModel) -> Iterator[None]:
    """Within: evaluation mode, and torch's own causal attention instead of a mask of ours."""
    training, implementation = causal_lm.training, causal_lm.config._attn_implementation
    causal_lm.eval()
    causal_lm.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        causal_lm.set_attn_implementation(implementation)
        causal_lm.train(training)
