"""Prompt datasets, and the order in which training takes them."""

from openrlhf.utils.lazy_import import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "Prompt": "openrlhf.datasets.prompt",
        "PromptDataset": "openrlhf.datasets.prompts_dataset",
        "RolloutSchedule": "openrlhf.datasets.sampler",
        "blending_datasets": "openrlhf.datasets.blending",
        "load_prompts": "openrlhf.datasets.prompts_dataset",
    },
)
