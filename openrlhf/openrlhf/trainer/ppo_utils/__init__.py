"""The parts of a step: rollouts, rewards, advantages, the replay buffer."""

from openrlhf.utils.lazy_import import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "AdaptiveKLController": "openrlhf.trainer.ppo_utils.kl_controller",
        "Experience": "openrlhf.trainer.ppo_utils.samples",
        "FixedKLController": "openrlhf.trainer.ppo_utils.kl_controller",
        "RemoteExperienceMaker": "openrlhf.trainer.ppo_utils.experience_maker",
    },
)
