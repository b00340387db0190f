"""Trains a policy with a reward from a Python file.

    python -m openrlhf.cli.train_ppo_ray --pretrain MODEL --prompt_data json@DIR --remote_rm_url reward.py ...

`train_ncp.py` calls `launch` with the actor class whose reward is VR-CLI. What happens, in order: flags are checked,
then the data; Ray starts or is joined; vLLM engines, reference and policy workers start; every policy rank runs the
loop of `trainer/ppo_trainer.py`; the trained policy is saved.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrlhf.cli.command import FAULT, run_command
from openrlhf.cli.flags import parse_args, run_settings
from openrlhf.cli.hub import hub_problem
from openrlhf.cli.machine import driver_gpu_memory, driver_num_gpus, host_memory, temporary_folder_problem
from openrlhf.cli.validate import ConfigError, checked_config, context_problems, hub_ids, reward_flag_problems
from openrlhf.config import TrainConfig
from openrlhf.errors import UserError
from openrlhf.utils.logging import init_logger, quiet_libraries
from openrlhf.utils.signals import leave, stop_signals
from openrlhf.utils.stages import stage
from openrlhf.utils.terminal import plain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from openrlhf.trainer.memory_plan import ModelShape
    from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
    from openrlhf.trainer.ray.handles import EngineHandle
    from openrlhf.trainer.ray.launcher import PPORayActorGroup
    from openrlhf.trainer.ray.ppo_actor import ActorModelRayActor

logger = init_logger(__name__)

# Shares of a GPU that Ray books where policy and reference share it.
ACTOR_GPU_SHARE, REF_GPU_SHARE = 0.6, 0.4


def run(
    argv: Sequence[str] | None,
    actor_class: type[ActorModelRayActor] | None = None,
    *,
    remote_experience_maker_class: type[RemoteExperienceMaker] | None = None,
) -> int:
    """Checks, trains and saves; returns the exit code (see `cli/command.py`).

    Args:
        actor_class: the policy's workers, where a task needs others.
        remote_experience_maker_class: the task; without it the actor class's own.
    """

    def load_actor_class() -> type[ActorModelRayActor]:
        base = actor_class or _actor_class()
        return base if remote_experience_maker_class is None else base.of_task(remote_experience_maker_class)

    return launch(argv, load_actor_class)


def launch(argv: Sequence[str] | None, load_actor_class: Callable[[], type[ActorModelRayActor]]) -> int:
    """`run` for an actor class that is imported only when it is needed: --help and refusals come before that."""

    def command() -> int | None:
        args = parse_args(argv)
        config = check_flags(args)
        if args.check_only:
            say_memory(config)
            logger.info("the arguments are fine; nothing is started")
            return None
        quiet_libraries()
        with stage("reading and checking the prompts"):
            actor_class = load_actor_class()
            config = check(args, actor_class)
        from openrlhf.trainer.preflight import written_folders
        from openrlhf.utils.run_lock import exclusive_folders

        with exclusive_folders(written_folders(config.checkpoint)):
            return run_training(config, actor_class, run_settings(args))

    return run_command(command)


def run_training(config: TrainConfig, actor_class: type[ActorModelRayActor], settings: dict[str, Any]) -> int | None:
    """Trains, and takes Ray down in any case. Returns the exit code."""
    from ray.exceptions import RayError

    from openrlhf.trainer.ray.cluster import NodeLost

    def say_stopping(name: str) -> None:
        logger.warning(
            "%s: ending the workers, which takes seconds; a second signal kills them. %s", name, resume_advice(config)
        )

    with stop_signals(first=say_stopping, second=kill_workers) as signals:
        try:
            train(config, actor_class, settings, on_start=signals.arm)
        except UserError:  # in a worker, too: Ray's error is of both classes
            raise
        except NodeLost as error:  # what the others then met with says no more
            logger.error("training ended early: %s\n%s", error, resume_advice(config))
            return FAULT
        except RayError as error:  # raised in a worker; it names the worker and holds its traceback
            logger.error("training ended early: %s", plain(str(error)))
            logger.error("%s", resume_advice(config))
            return FAULT
        except KeyboardInterrupt:
            logger.warning("ended")
            return signals.exit_code
    return None


def check_flags(args: argparse.Namespace) -> TrainConfig:
    """What takes no more than a second: the flags, and the places that they name. The configuration, as far as known.

    Raises:
        ConfigError: with all that is wrong.
    """
    in_cluster = "RAY_ADDRESS" in os.environ
    config = checked_config(args, num_gpus=None if in_cluster else driver_num_gpus())
    problems = [f"{where}: {problem}" for where, kind, name in hub_ids(config) if (problem := hub_problem(name, kind))]
    if problem := temporary_folder_problem(os.environ):
        problems.append(problem)
    if problems:
        raise ConfigError(problems)
    return config


def check_memory(config: TrainConfig, shape: ModelShape) -> None:
    """Logs what of the run will lie where. Raises UserError where that is too small.

    The workers are taken to run on machines like this one, unless it has no GPU.
    """
    from openrlhf.trainer import memory_check

    cards = driver_gpu_memory()
    machine = memory_check.Machine(card=min(cards), host=host_memory()) if cards else memory_check.Machine()
    memory_check.check_memory(config, shape, machine)


def say_memory(config: TrainConfig) -> None:
    """`check_memory`, as far as the model is at hand. Raises UserError where memory is too small."""
    from openrlhf.trainer.preflight import model_shape

    try:
        shape = model_shape(config.policy)
    except UserError as error:  # on a hub that is not asked for more than whether the model is there
        logger.warning("memory is not estimated: %s", error)
        return
    check_memory(config, shape)


def kill_workers() -> None:
    from openrlhf.utils.processes import descendants, end_processes

    end_processes(descendants(), grace_s=0)


def resume_advice(config: TrainConfig) -> str:
    """How the run goes on, as far as it can."""
    from openrlhf.utils.checkpoints import ACTOR_FOLDER, newest_marked

    path = Path(config.checkpoint.ckpt_path) / ACTOR_FOLDER
    checkpoint = newest_marked(path)
    if checkpoint is None:
        return "There is no complete checkpoint to resume from (--save_steps makes them)."
    return f"The same command with --load_checkpoint goes on from {path / checkpoint.tag}."


def check(args: argparse.Namespace, actor_class: type[ActorModelRayActor]) -> TrainConfig:
    """The run's configuration, once flags, GPUs and data have been checked. Raises UserError saying what is wrong."""
    from openrlhf.trainer.preflight import check_outputs, model_shape
    from openrlhf.trainer.ray.cluster import available_gpus
    from openrlhf.utils.tokenizer import get_tokenizer

    config = checked_config(args, num_gpus=available_gpus())
    task = actor_class.remote_experience_maker_class
    if problems := list(reward_flag_problems(config, task.reward_flags, task.__name__)):
        raise ConfigError(problems)
    check_context(config)
    if config.engine.device == "cuda":
        check_memory(config, model_shape(config.policy))
    tokenizer = get_tokenizer(config.policy.pretrain, trust_remote_code=config.policy.trust_remote_code)
    check_task(config, tokenizer, task)
    check_outputs(config, tokenizer)
    return config


def check_task(config: TrainConfig, tokenizer: PreTrainedTokenizerBase, task: type[RemoteExperienceMaker]) -> None:
    """Raises ValueError where a prompt of the run cannot be used, or the task cannot work with them."""
    from openrlhf.datasets.prompts_dataset import load_run_prompts

    train_prompts, eval_prompts = load_run_prompts(config, tokenizer, task.datapoint_resolver(config))
    logger.info("%d training prompts, %d evaluation prompts", len(train_prompts), len(eval_prompts or []))
    task.check_data(config, tokenizer, [*train_prompts, *(eval_prompts or [])])


def check_context(config: TrainConfig) -> None:
    """Raises ConfigError where prompt and response do not fit into the model: now known of a model on the hub too."""
    from openrlhf.utils.model_config import get_model_config

    hf_config = get_model_config(config.policy.pretrain, trust_remote_code=config.policy.trust_remote_code)
    if problems := list(context_problems(config, hf_config)):
        raise ConfigError(problems)


def train(
    config: TrainConfig,
    actor_class: type[ActorModelRayActor],
    run_config: dict[str, Any],
    *,
    on_start: Callable[[], None] = lambda: None,
) -> None:
    """Starts Ray and all workers, trains, saves. The first failure of any worker ends it and is raised here.

    Args:
        run_config: the resolved command line, kept beside the metrics.
        on_start: called once Ray is up.
    """
    from openrlhf.trainer.ray.cluster import ray_cluster

    with ray_cluster(on_start=on_start, advice=lambda: resume_advice(config)):
        run_workers(config, actor_class, run_config)


def run_workers(config: TrainConfig, actor_class: type[ActorModelRayActor], run_config: dict[str, Any]) -> None:
    """The run on a cluster that is up."""
    from openrlhf.trainer.ray.launcher import wait_all

    engines, references, actors = load_models(config, actor_class)
    if config.batch.pack_tokens == "auto":  # one after the other: they may share GPUs
        with stage("finding how many tokens a pack may hold"):
            wait_all(references.run("find_pack_tokens", config))
            wait_all(actors.run("find_pack_tokens"))
    wait_all(actors.run("fit", engines, references.workers, run_config))
    with stage("saving the trained model"):
        wait_all(actors.run("save_model"))


def load_models(
    config: TrainConfig, actor_class: type[ActorModelRayActor]
) -> tuple[list[EngineHandle], PPORayActorGroup, PPORayActorGroup]:
    """Engines, reference and policy, with their models. All load at once; the first failure of any is raised here."""
    from openrlhf.datasets.chat import stop_token_ids
    from openrlhf.trainer.ray.launcher import PPORayActorGroup, ReferenceModelRayActor, wait_parts
    from openrlhf.trainer.ray.vllm_engine import create_vllm_engines
    from openrlhf.utils.tokenizer import get_tokenizer

    placement = config.placement
    tokenizer = get_tokenizer(config.policy.pretrain, trust_remote_code=config.policy.trust_remote_code)
    stops = stop_token_ids(tokenizer, chat=config.data.apply_chat_template)
    with stage(f"loading models: {workers_in_words(config)}") as loading:
        engines = create_vllm_engines(config.policy.pretrain, config.engine, stop_token_ids=stops)
        engine_starts = [engine.start.remote() for engine in engines]  # the longest, so they begin first
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
        parts = {
            "vLLM": engine_starts,
            "reference": [*references.joined, *references.run("init_model", config)],
            "policy": [*actors.joined, *actors.run("init_model", config)],
        }
        wait_parts(parts, loading.ready)
    return engines, references, actors


def workers_in_words(config: TrainConfig) -> str:
    """How many there are of each kind."""
    placement = config.placement
    actors = placement.actor_num_nodes * placement.actor_num_gpus_per_node
    references = placement.ref_num_nodes * placement.ref_num_gpus_per_node
    return f"{actors} policy and {references} reference workers, {config.engine.num_engines} vLLM engines"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a training; returns the process's exit code."""
    return launch(argv, _actor_class)


def _actor_class() -> type[ActorModelRayActor]:
    from openrlhf.trainer.ray.ppo_actor import ActorModelRayActor

    return ActorModelRayActor


if __name__ == "__main__":
    leave(main())
