"""The tokenizer, as every entry point makes it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from openrlhf.errors import UserError
from openrlhf.utils.model_config import UNREADABLE, why_not_loaded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def get_tokenizer(pretrain: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Loads a tokenizer that pads on the left, with its end-of-sequence token where it has no padding token.

    Raises:
        UserError: there is no such tokenizer, it is empty, or it has neither padding nor end-of-sequence token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(pretrain, trust_remote_code=trust_remote_code, padding_side="left")
    except UNREADABLE as error:
        raise UserError(why_not_loaded("tokenizer", pretrain, error)) from None
    if len(tokenizer) <= len(tokenizer.added_tokens_decoder):  # transformers makes one up from the model's type
        raise UserError(
            f"no tokenizer in {pretrain!r}: it has special tokens only; put the model's tokenizer files there"
        )
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise UserError(f"the tokenizer of {pretrain} has neither a pad_token nor an eos_token: set one of them")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of what decides a conversation's token ids: the chat template, and the vocabulary with its rules."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else {"vocabulary": tokenizer.get_vocab()}
    for setting in ("padding", "truncation"):  # of the last call
        rules.pop(setting, None)
    added = {str(token_id): repr(token) for token_id, token in tokenizer.added_tokens_decoder.items()}
    content = json.dumps([tokenizer.chat_template, added, rules], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
