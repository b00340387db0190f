"""The training loop."""

from openrlhf.utils.lazy_import import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "PPOTrainer": "openrlhf.trainer.ppo_trainer",
    },
)
