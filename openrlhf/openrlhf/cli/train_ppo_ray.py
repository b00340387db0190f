"""Trains a policy with a reward from a Python file.

    python -m openrlhf.cli.train_ppo_ray --pretrain MODEL --prompt_data json@DIR --remote_rm_url reward.py ...

`train_ncp.py` calls `run` with the actor class whose reward is VR-CLI. What happens, in order: flags and data are
checked; Ray starts or is joined; vLLM engines, reference and policy workers start; every policy rank runs the loop of
`trainer/ppo_trainer.py`; the trained policy is saved.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import ray
from ray._private import ray_constants
from ray.exceptions import RayError

from openrlhf.cli.flags import parse_args, to_config
from openrlhf.cli.validate import validate
from openrlhf.config import TrainConfig
from openrlhf.trainer.ray.launcher import PPORayActorGroup, ReferenceModelRayActor, wait_all
from openrlhf.trainer.ray.ppo_actor import ActorModelRayActor
from openrlhf.trainer.ray.vllm_engine import create_vllm_engines
from openrlhf.utils.devices import num_gpus
from openrlhf.utils.logging import init_logger, quiet_libraries
from openrlhf.utils.tokenizer import get_tokenizer

logger = init_logger(__name__)

# Shares of a GPU that Ray books where policy and reference share it.
ACTOR_GPU_SHARE, REF_GPU_SHARE = 0.6, 0.4


def run(argv: Sequence[str] | None, actor_class: type[ActorModelRayActor]) -> int:
    """Checks, trains and saves. The exit code: 2 for bad input, found before any model loads; 1 for a failure."""
    args = parse_args(None if argv is None else list(argv))
    quiet_libraries()
    try:
        config = check(args, actor_class)
    except ValueError as error:
        logger.error("%s", error)
        return 2
    try:
        train(config, actor_class, vars(args))
    except RayError as error:  # raised in a worker; it names the worker and holds its traceback
        logger.error("training ended early: %s", error)
        return 1
    except KeyboardInterrupt:
        logger.error("interrupted; resume from the last checkpoint with --load_checkpoint")
        return 130
    finally:
        ray.shutdown()
    return 0


def check(args: argparse.Namespace, actor_class: type[ActorModelRayActor]) -> TrainConfig:
    """The run's configuration, once flags and data have been checked. Raises ValueError saying what is wrong."""
    validate(args, num_gpus=available_gpus())
    config = to_config(args)
    actor_class.check_data(config, get_tokenizer(config.policy.pretrain, trust_remote_code=args.trust_remote_code))
    return config


def available_gpus() -> int:
    """GPUs of the cluster that RAY_ADDRESS names (a submitted job has one), or of this machine."""
    if "RAY_ADDRESS" in os.environ:
        start_ray()
        return int(ray.cluster_resources().get("GPU", 0))
    return num_gpus()


def start_ray() -> None:
    """Joins the cluster of RAY_ADDRESS, or starts one on this machine, on loopback only."""
    if ray.is_initialized():
        return
    if "RAY_ADDRESS" in os.environ:
        ray.init(logging_level=logging.WARNING)
        return
    os.environ.setdefault("RAY_worker_niceness", "0")  # workers would run at nice 15
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Otherwise Ray takes the host's own address instead of the one given below, and listens on all.
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    ray.init(
        address="local",
        num_gpus=num_gpus(),
        include_dashboard=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
    )


def train(config: TrainConfig, actor_class: type[ActorModelRayActor], run_config: dict[str, Any]) -> None:
    """Starts all workers, trains, saves. The first failure of any worker ends it and is raised here."""
    start_ray()
    placement = config.placement
    eos = get_tokenizer(config.policy.pretrain, trust_remote_code=config.policy.trust_remote_code).eos_token_id
    engines = create_vllm_engines(config.policy.pretrain, config.engine, stop_token_ids=[eos])
    actors = PPORayActorGroup(
        actor_class,
        num_nodes=placement.actor_num_nodes,
        num_gpus_per_node=placement.actor_num_gpus_per_node,
        seed=config.seed,
        gpu_share=ACTOR_GPU_SHARE if placement.colocate_actor_ref else 1.0,
    )
    references = PPORayActorGroup(
        ReferenceModelRayActor,
        num_nodes=placement.ref_num_nodes,
        num_gpus_per_node=placement.ref_num_gpus_per_node,
        seed=config.seed,
        shared_placement=actors.placement if placement.colocate_actor_ref else None,
        gpu_share=REF_GPU_SHARE if placement.colocate_actor_ref else 1.0,
    )
    logger.info(
        "loading models: %d policy and %d reference workers, %d vLLM engines",
        len(actors.workers),
        len(references.workers),
        len(engines),
    )
    wait_all(
        [engine.start.remote() for engine in engines]
        + references.run("init_model", config)
        + actors.run("init_model", config)
    )
    wait_all(actors.run("fit", engines, references.workers, run_config))
    wait_all(actors.run("save_model"))


def main(argv: Sequence[str] | None = None) -> int:
    return run(argv, ActorModelRayActor)


if __name__ == "__main__":
    sys.exit(main())
