"""The tokenizer, as every entry point makes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openrlhf.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def get_tokenizer(pretrain: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Loads a tokenizer that pads on the left, with its end-of-sequence token where it has no padding token.

    Raises:
        UserError: there is no such tokenizer, or it has neither padding nor end-of-sequence token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(pretrain, trust_remote_code=trust_remote_code, padding_side="left")
    except (OSError, ValueError) as error:
        raise UserError(
            f"no tokenizer {pretrain!r}: it is neither a folder with a tokenizer nor a hub model that can be reached "
            f"({str(error).splitlines()[0]})"
        ) from None
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise UserError(f"the tokenizer of {pretrain} has neither a pad_token nor an eos_token: set one of them")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
