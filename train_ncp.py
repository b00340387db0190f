"""Trains a policy to plan next chapters, with VR-CLI as its reward.

    python train_ncp.py --pretrain MODEL --prompt_data json@rl_data --input_key prompt --apply_chat_template \
        --baseline_ppl_path prompt_to_datapoint_with_baseline_ppl_X.pkl --advantage_estimator group_norm ...

`python train_ncp.py --help` lists the flags; `train_7b.sh` and `train_3b.sh` hold the paper's settings,
`quickstart.sh` those for a small machine without GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from openrlhf.cli.train_ppo_ray import launch
from openrlhf.utils.signals import leave, quit_at_once

if TYPE_CHECKING:
    from openrlhf.trainer.ray.ppo_actor import ActorModelRayActor


def actor_class() -> type[ActorModelRayActor]:
    """The policy worker of VR-CLI. Its import takes seconds, so it comes after the flags are checked."""
    from ray_utils import CustomStoryBasedActorModelRayActor

    return CustomStoryBasedActorModelRayActor


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a training; returns the process's exit code."""
    return launch(argv, actor_class)


if __name__ == "__main__":
    quit_at_once()  # further imports take seconds
    leave(main())
