"""Prompt datasets, and the order in which training takes them."""

from openrlhf.datasets.blending import blending_datasets
from openrlhf.datasets.prompts_dataset import PromptDataset, load_prompts
from openrlhf.datasets.sampler import RolloutSchedule

__all__ = ["PromptDataset", "RolloutSchedule", "blending_datasets", "load_prompts"]
