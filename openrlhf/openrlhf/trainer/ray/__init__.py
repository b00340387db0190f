"""The Ray workers."""

from openrlhf.utils.lazy_import import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "ActorModelRayActor": "openrlhf.trainer.ray.ppo_actor",
        "BasePPORole": "openrlhf.trainer.ray.role",
        "PPORayActorGroup": "openrlhf.trainer.ray.launcher",
        "ReferenceModelRayActor": "openrlhf.trainer.ray.reference",
        "create_vllm_engines": "openrlhf.trainer.ray.vllm_engine",
    },
)
