"""The names that scripts written for OpenRLHF 0.6.1.post1, and this project's own users, import, from those paths.

A name moves only if its old path still gives it. Importing it loads nothing that it does not need.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
LIBRARIES = {"torch", "transformers", "ray", "deepspeed", "vllm"}

PUBLIC: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {
    (): {
        "openrlhf.errors": ("UserError",),
        "openrlhf.trainer.ppo_utils.kl_controller": ("AdaptiveKLController", "FixedKLController"),
        "prompt_utils": ("USE_SYSTEM_ROLE", "build_planned_messages", "build_reasoning_messages", "extract_plan"),
    },
    ("torch", "transformers"): {
        "openrlhf.datasets": ("PromptDataset", "blending_datasets"),
        "openrlhf.models": ("Actor",),
        "openrlhf.models.actor": ("Actor",),
        "openrlhf.utils": ("get_strategy", "get_tokenizer"),
        "openrlhf.utils.deepspeed": ("DeepspeedStrategy",),
        "openrlhf.utils.utils": ("get_strategy", "get_tokenizer"),
        "openrlhf.vr_cli.baseline_map": ("BaselineMap",),
        "openrlhf.vr_cli.rewards": ("RewardInputs", "make_reward_function"),
    },
    ("torch", "transformers", "ray"): {
        "openrlhf.cli.train_ppo_ray": ("main", "train"),
        "openrlhf.trainer": ("PPOTrainer",),
        "openrlhf.trainer.ppo_trainer": ("PPOTrainer",),
        "openrlhf.trainer.ppo_utils": (
            "AdaptiveKLController",
            "Experience",
            "FixedKLController",
            "RemoteExperienceMaker",
        ),
        "openrlhf.trainer.ppo_utils.experience_maker": ("Experience", "RemoteExperienceMaker", "Samples"),
        "openrlhf.trainer.ray": (
            "ActorModelRayActor",
            "PPORayActorGroup",
            "ReferenceModelRayActor",
            "create_vllm_engines",
        ),
        "openrlhf.trainer.ray.launcher": ("BasePPORole", "PPORayActorGroup", "ReferenceModelRayActor"),
        "openrlhf.trainer.ray.ppo_actor": ("ActorModelRayActor", "ActorPPOTrainer"),
        "openrlhf.trainer.ray.vllm_engine": ("LLMRayActor", "create_vllm_engines"),
        "ray_utils": ("CustomStoryBasedActorModelRayActor", "StoryBasedRemoteExperienceMaker"),
    },
    ("torch", "transformers", "ray", "vllm"): {"openrlhf.trainer.ray.vllm_worker_wrap": ("WorkerWrap",)},
}
"""Heavy libraries that an import may load -> module -> its names."""


@pytest.mark.parametrize("may_load", PUBLIC, ids=lambda libraries: "+".join(libraries) or "nothing")
def test_names_import_from_their_path(may_load: tuple[str, ...]):
    imports = "; ".join(f"from {module} import {', '.join(names)}" for module, names in PUBLIC[may_load].items())
    code = f"""
import sys
sys.path[:0] = {[str(REPO / "openrlhf"), str(REPO)]}
{imports}
loaded = {LIBRARIES} & sys.modules.keys()
assert loaded <= set({may_load}), f"loads {{loaded}}"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_lazy_exports_are_listed():
    """`dir` and `import *` see what a package exports before it is loaded."""
    import openrlhf.trainer.ray as package

    assert {"ActorModelRayActor", "create_vllm_engines"} <= set(package.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = package.no_such_name
