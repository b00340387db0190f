"""Which of transformers' causal architectures packs are right for: every one is equal, refused, or not comparable.

    python tests/sweep/sweep_architectures.py [TYPE ...]

Builds each tiny, at random, in fp32 on the CPU; lets the product decide (`install_logprob_head`, then `check_packs`);
and compares packed with plain log-probs itself, on other sequences than `check_packs` does. An architecture that the
product accepts although they differ is WRONG, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")

import torch
from torch import Tensor
from transformers import PreTrainedModel

from openrlhf.errors import UserError
from openrlhf.models.actor import attention_refusal
from openrlhf.models.logprobs import install_logprob_head, shared_prefix_logprobs
from openrlhf.models.pack_check import check_packs
from openrlhf.models.shared_prefix import LabeledSequence, pack_shared_prefix
from sweep.tiny_architectures import CAUSAL_TYPES, VOCAB, tiny_model

TOLERANCE = 1e-4
"""Nats, of any label."""
MIN_INFLUENCE = 1e-2
"""Nats by which another first token must move some label, or the comparison shows nothing."""
Kind = Literal["equal", "refused", "not comparable", "WRONG"]

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    # what else an architecture can be told: name -> type, settings
    "falcon, ALiBi": ("falcon", {"alibi": True}),
    "qwen2, window": ("qwen2", {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 0}),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "llama, dynamic NTK": (
        "llama",
        {"max_position_embeddings": 64, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
    ),
    "llama, linear": ("llama", {"max_position_embeddings": 64, "rope_scaling": {"type": "linear", "factor": 4.0}}),
    "llama, YaRN": (
        "llama",
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
    ),
    "phi3, longrope": (
        "phi3",
        {
            "original_max_position_embeddings": 64,
            "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4},
        },
    ),
    "doge, within its window": ("doge", {"keep_window_size": 512}),
    "lfm2, convolutions": ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    "cohere, logits scaled": ("cohere", {"logit_scale": 0.25}),
    "granite, logits as they are": ("granite", {"logits_scaling": 1.0}),
    "gemma3, no window": ("gemma3", {"text_config": {"layer_types": ["full_attention"] * 2, "sliding_window": None}}),
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    name: str
    kind: Kind
    detail: str


def sweep_one(name: str, model_type: str, **changes: Any) -> Outcome:
    """Builds one model and finds out; whatever its code raises before packs come in makes it not comparable."""
    try:
        model = tiny_model(model_type, **changes)
    except Exception as error:
        if isinstance(error, ValueError) and (refusal := attention_refusal(error, name, "sdpa")):
            return Outcome(name=name, kind="refused", detail=str(refusal))
        return Outcome(name=name, kind="not comparable", detail=f"not built: {_first_line(error)}")
    sequences = probe_sequences()
    try:
        plain = [plain_logprobs(model, sequence.token_ids, sequence.label_start) for sequence in sequences]
        influence = max_influence(model, sequences[0], plain[0])
    except Exception as error:
        return Outcome(name=name, kind="not comparable", detail=f"no plain forward: {_first_line(error)}")
    try:
        install_logprob_head(model)
        check_packs(model, name=name)
    except UserError as error:
        return Outcome(name=name, kind="refused", detail=str(error))
    gap = packed_gap(model, sequences, plain)
    if influence < MIN_INFLUENCE:
        return Outcome(name=name, kind="not comparable", detail=f"reads next to nothing ({influence:.0e} nats)")
    return Outcome(name=name, kind="equal" if gap <= TOLERANCE else "WRONG", detail=f"{gap:.0e} nats")


def probe_sequences() -> list[LabeledSequence]:
    """Four sequences behind 12 tokens, the third one long; all of them labels behind the prefix."""
    generator = torch.Generator().manual_seed(1)

    def tokens(count: int) -> list[int]:
        return torch.randint(1, VOCAB, (count,), generator=generator).tolist()

    prefix = tokens(12)
    return [LabeledSequence(token_ids=prefix + tokens(n), label_start=12) for n in (5, 14, 46, 9)]


def plain_logprobs(model: PreTrainedModel, token_ids: list[int], label_start: int) -> Tensor:
    """Log-probs (L,) from a forward that is told nothing but the tokens."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([token_ids]), use_cache=False).logits[0].float()
    if not logits.isfinite().all():
        raise ValueError("logits are not finite")
    labels = torch.tensor(token_ids[label_start:])
    return logits[label_start - 1 : -1].log_softmax(-1).gather(-1, labels[:, None]).squeeze(-1)


def max_influence(model: PreTrainedModel, sequence: LabeledSequence, plain: Tensor) -> float:
    """By how much another first token moves any label."""
    changed = [sequence.token_ids[0] % (VOCAB - 1) + 1, *sequence.token_ids[1:]]
    return (plain_logprobs(model, changed, sequence.label_start) - plain).abs().max().item()


def packed_gap(model: PreTrainedModel, sequences: Sequence[LabeledSequence], plain: Sequence[Tensor]) -> float:
    (batch,) = pack_shared_prefix(sequences, max_tokens=1000)
    with torch.no_grad():
        packed = batch.split_per_sample(shared_prefix_logprobs(model, batch))
    return max((a - b).abs().max().item() for a, b in zip(packed, plain, strict=True))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {(lines or [''])[-1 if 'validator' in (lines or [''])[0] else 0]}"[:140]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Sweep all causal architectures that transformers can build tiny.")
    parser.add_argument("types", nargs="*", help="model types (default: all, and the variants)")
    types = parser.parse_args(argv).types
    warnings.filterwarnings("ignore")
    cases: list[tuple[str, str, dict[str, Any]]] = [(name, name, {}) for name in types or CAUSAL_TYPES]
    cases += [] if types else [(name, model_type, changes) for name, (model_type, changes) in VARIANTS.items()]
    counts: Counter[str] = Counter()
    for name, model_type, changes in cases:
        outcome = sweep_one(name, model_type, **changes)
        counts[outcome.kind] += 1
        print(f"{name:<28} {outcome.kind:<15} {outcome.detail}", flush=True)
    print(", ".join(f"{counts[kind]} {kind}" for kind in get_args(Kind)))
    return 1 if counts["WRONG"] else 0


if __name__ == "__main__":
    sys.exit(main())
