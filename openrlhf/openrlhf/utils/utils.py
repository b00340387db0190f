"""OpenRLHF's path to these two; they live in the modules named here."""

from openrlhf.utils.deepspeed.strategy import get_strategy
from openrlhf.utils.tokenizer import get_tokenizer

__all__ = ["get_strategy", "get_tokenizer"]
