"""A model's configuration, as every entry point reads it, and what is said where it, or the tokenizer, cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from openrlhf.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What `transformers` raises for files that are not there, or hold something else than it expects."""


def get_model_config(pretrain: str, *, trust_remote_code: bool = False) -> PretrainedConfig:
    """Reads a model's configuration.

    Raises:
        UserError: there is none, or it takes Python code of the model's own that is not trusted.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(pretrain, trust_remote_code=trust_remote_code)
    except UNREADABLE as error:
        raise UserError(why_not_loaded("model configuration", pretrain, error)) from None


def why_not_loaded(what: str, pretrain: str, error: Exception) -> str:
    """The one sentence for what `transformers` could not load."""
    if "trust_remote_code" in str(error):
        return (
            f"no {what} {pretrain!r} without running Python code that comes with it: if you trust its author, pass "
            "--trust_remote_code to every command that loads it"
        )
    cause = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if Path(pretrain).is_dir():
        return f"no {what} in {pretrain!r}: its files are missing or damaged ({cause}); restore the model's folder"
    return f"no {what} {pretrain!r}: it is neither a folder with one nor a hub model that can be reached ({cause})"
