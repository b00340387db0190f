"""The tokenizer and the distributed strategy, as every entry point makes them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from openrlhf.utils.deepspeed.deepspeed import DeepspeedStrategy


def get_tokenizer(
    pretrain: str, *, trust_remote_code: bool = False, padding_side: str = "left"
) -> PreTrainedTokenizerBase:
    """Loads a tokenizer, with its end-of-sequence token as padding where it has no padding token.

    Raises:
        ValueError: it has neither padding nor end-of-sequence token.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(pretrain, trust_remote_code=trust_remote_code, padding_side=padding_side)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError(f"the tokenizer of {pretrain} has neither a pad_token nor an eos_token: set one of them")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def get_strategy(*, seed: int, timeout: timedelta = timedelta(minutes=30)) -> DeepspeedStrategy:
    """A strategy that has joined the process group of the environment (see `DeepspeedStrategy.setup_distributed`)."""
    from openrlhf.utils.deepspeed.deepspeed import DeepspeedStrategy

    strategy = DeepspeedStrategy(seed=seed)
    strategy.setup_distributed(timeout)
    return strategy
