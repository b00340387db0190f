"""How long a sequence may be, by a model's configuration: the one rule for baseline, training and engines.

Imports nothing heavy: a command line is checked with it before anything loads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

LENGTH_NAMES = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_target_positions",
    "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip
"""Where vLLM looks for the limit; the smallest counts."""
SWITCHING_ROPE = ("longrope", "su", "dynamic")
"""Rotary types with other angles for all tokens of a sequence once that is longer than a limit. Within a pack, and
within an engine's cached prefix, there is no such thing as the sequence's length, so the limit is the longest."""


def max_sequence_tokens(config: Any) -> int | None:
    """Tokens that a sequence of this model may have; None where its configuration sets no limit.

    vLLM accepts the result as `max_model_len`. With rotary angles that switch it accepts more; here that is too long.

    Args:
        config: a transformers configuration, or the dict in its `config.json`.
    """
    text = _text_config(config)
    names = ("model_max_length",) if _get(text, "model_max_length") else LENGTH_NAMES
    lengths = [length for name in names if (length := _get(text, name)) is not None]
    if not lengths:
        return None
    limit = min(lengths)
    limits = [limit * _rope_factor(text)]
    for rope in _rope_parameters(text):
        if _rope_type(rope) in SWITCHING_ROPE:
            limits.append(_get(rope, "original_max_position_embeddings") or limit)
            limits.append(_get(text, "original_max_position_embeddings") or limit)
    return int(min(limits))


def _rope_factor(text: Any) -> float:
    """By how much rotary scaling stretches the limit, where the limit that the configuration names is the one before.

    It is the one after scaling with YaRN, llama3 and longrope, and for all of Gemma 3.
    """
    if "gemma3" in str(_get(text, "model_type")):
        return 1.0
    factors = [_get(rope, "factor") for rope in _rope_parameters(text) if not _names_scaled_limit(_rope_type(rope))]
    return float(next((factor for factor in reversed(factors) if factor is not None), 1.0))


def _names_scaled_limit(rope_type: str) -> bool:
    return rope_type in ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")


def _rope_parameters(text: Any) -> Iterator[dict[str, Any]]:
    """The rotary settings, one dict for each kind of layer."""
    settings = _get(text, "rope_parameters") or _get(text, "rope_scaling")
    if not isinstance(settings, dict):
        return
    nested = [value for value in settings.values() if isinstance(value, dict)]
    yield from nested or [settings]


def _rope_type(rope: dict[str, Any]) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "default")


def _text_config(config: Any) -> Any:
    if isinstance(config, dict):
        return config.get("text_config") or config
    return config.get_text_config()


def _get(owner: Any, name: str) -> Any:
    return owner.get(name) if isinstance(owner, dict) else getattr(owner, name, None)
