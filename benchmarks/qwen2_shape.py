"""The Qwen2 of the benchmarks: a shape from the command line, with random weights. 1.5B unless told otherwise."""

from __future__ import annotations

import argparse
from typing import Any

from transformers import Qwen2Config


def add_shape_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--hidden", type=int, default=1536)
    parser.add_argument("--vocab", type=int, default=151_936)


def qwen2_config(args: argparse.Namespace, *, max_tokens: int, **settings: Any) -> Qwen2Config:
    """Heads of 128 (of 64 in small models), two key-value heads, tied embeddings."""
    head_dim = 128 if args.hidden >= 1024 else 64
    return Qwen2Config(
        vocab_size=args.vocab,
        hidden_size=args.hidden,
        intermediate_size=args.hidden * 35 // 6,
        num_hidden_layers=args.layers,
        num_attention_heads=args.hidden // head_dim,
        num_key_value_heads=2,
        max_position_embeddings=max_tokens,
        tie_word_embeddings=True,
        **settings,
    )
