"""OpenRLHF's path to the strategy; it lives in the module named here."""

from openrlhf.utils.deepspeed.strategy import DeepspeedStrategy

__all__ = ["DeepspeedStrategy"]
