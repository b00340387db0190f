"""Checks what the flags ask for together, on this machine, before Ray starts and before any model loads.

Each flag by itself is checked by its row of `cli/flag_table.py`; the rules here read the typed configuration. All
problems are reported at once, one line each: flag, value, why, what to do.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from openrlhf.cli.flag_table import BY_NAME
from openrlhf.cli.flags import flag_problems, to_config
from openrlhf.cli.path_checks import hub_id_problem, model_problem, stat_problem
from openrlhf.config import DeepspeedConfig, PlacementConfig, RewardConfig, TrainConfig
from openrlhf.datasets.blending import SPLIT_FILES, split_sources
from openrlhf.errors import UserError
from openrlhf.models.limits import max_sequence_tokens
from openrlhf.utils.deepspeed.config import validate as validate_deepspeed
from openrlhf.utils.load_function import load_function
from openrlhf.vr_cli.rewards import make_reward_function, short_plan_penalty

GROUP_ESTIMATORS = ("group_norm", "rloo", "reinforce_baseline")


class ConfigError(UserError):
    """Every problem of one command line; `str()` is the report that the user sees."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{count} with the arguments:", *(f"  {problem}" for problem in problems)]))


def checked_config(args: argparse.Namespace, *, num_gpus: int | None) -> TrainConfig:
    """The typed configuration, once all that is wrong with it has been looked for.

    Args:
        num_gpus: GPUs of the machine or cluster (0: CPU only, None: unknown).

    Raises:
        ConfigError: with one line for each problem.
    """
    config = to_config(args)
    engine = dataclasses.replace(config.engine, device="cpu" if num_gpus == 0 else "cuda")
    config = dataclasses.replace(config, engine=engine)
    problems = [*flag_problems(args, num_gpus=num_gpus), *validate(config, num_gpus=num_gpus)]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return config


def validate(config: TrainConfig, *, num_gpus: int | None) -> Iterator[str]:
    """The problems of a configuration whose values may each be wrong too: those are reported by their rows."""
    for rule in (_deepspeed, _algorithm, _lengths, _placement, _model, _data, _reward, _short_plans, _best):
        yield from rule(config)
    if num_gpus == 0:
        yield from _cpu(config)
    elif num_gpus is not None:
        yield from _gpus(config, num_gpus)


def _deepspeed(config: TrainConfig) -> Iterator[str]:
    placement = config.placement
    yield from _deepspeed_engine(config.actor_deepspeed, placement.actor_num_nodes * placement.actor_num_gpus_per_node)
    yield from _deepspeed_engine(config.ref_deepspeed, placement.ref_num_nodes * placement.ref_num_gpus_per_node)


def _deepspeed_engine(deepspeed: DeepspeedConfig, world_size: int) -> Iterator[str]:
    if deepspeed.zero_stage not in BY_NAME["zero_stage"].choices or deepspeed.zpg < 1:
        return
    if deepspeed.grad_accum_dtype not in (None, *BY_NAME["grad_accum_dtype"].choices):
        return
    try:
        validate_deepspeed(deepspeed, world_size=world_size)
    except UserError as error:
        yield str(error)


def _algorithm(config: TrainConfig) -> Iterator[str]:
    algorithm, batch, sampling = config.algorithm, config.batch, config.evaluation.sampling
    samples = batch.rollout_batch_size * batch.n_samples_per_prompt
    if algorithm.advantage_estimator in GROUP_ESTIMATORS and batch.n_samples_per_prompt == 1:
        yield (
            f"--n_samples_per_prompt 1: {algorithm.advantage_estimator} compares the samples of a prompt; "
            "pass 2 or more (the paper: 8), or --advantage_estimator reinforce"
        )
    if batch.train_batch_size > samples > 0:
        yield (
            f"--train_batch_size {batch.train_batch_size}: more than the {samples} samples of a rollout "
            f"(--rollout_batch_size {batch.rollout_batch_size} x --n_samples_per_prompt {batch.n_samples_per_prompt}); "
            "lower it, or raise those"
        )
    if sampling.temperature == 0 and sampling.n > 1:
        yield (
            f"--eval_n_samples {sampling.n}: greedy sampling (--eval_temperature 0) gives one response; "
            "pass --eval_n_samples 1, or a temperature above 0"
        )
    if algorithm.use_kl_loss and algorithm.init_kl_coef == 0:
        yield "--use_kl_loss: does nothing with --init_kl_coef 0; pass a coefficient above 0, or drop --use_kl_loss"
    elif algorithm.use_kl_loss and algorithm.kl_estimator == "k1":
        yield (
            "--kl_estimator k1: as a loss its expected gradient is 0, so --use_kl_loss would hold nothing back; "
            "pass --kl_estimator k3 (or k2), or drop --use_kl_loss"
        )


def _lengths(config: TrainConfig) -> Iterator[str]:
    batch = config.batch
    if batch.max_len is not None and 0 < batch.max_len <= batch.prompt_max_len:
        yield (
            f"--max_len {batch.max_len}: leaves a prompt of --prompt_max_len {batch.prompt_max_len} tokens no room for "
            "a response; raise it, or drop it (the sum of --prompt_max_len and --generate_max_len is used)"
        )
    floor = config.reward.min_plan_tokens
    if floor is not None and floor > batch.generate_max_len:
        yield (
            f"--min_plan_tokens {floor}: no response has more than --generate_max_len {batch.generate_max_len} tokens; "
            "lower it, or raise that"
        )


def _placement(config: TrainConfig) -> Iterator[str]:
    placement = config.placement
    if not placement.colocate_actor_ref:
        return
    sizes = (
        ("num_nodes", placement.actor_num_nodes, placement.ref_num_nodes),
        ("num_gpus_per_node", placement.actor_num_gpus_per_node, placement.ref_num_gpus_per_node),
    )
    for unit, actor, ref in sizes:
        if actor != ref:
            yield (
                f"--ref_{unit} {ref}: --colocate_actor_ref needs as many as --actor_{unit} {actor}; "
                f"pass --ref_{unit} {actor}, or drop --colocate_actor_ref"
            )


def _model(config: TrainConfig) -> Iterator[str]:
    """Sizes that the model itself rules out, as far as the config.json in its folder says them."""
    pretrain = config.policy.pretrain
    if not pretrain or not os.path.isdir(pretrain) or model_problem(pretrain):
        return
    hf_config = json.loads((Path(pretrain) / "config.json").read_text(encoding="utf-8"))
    yield from context_problems(config, hf_config)
    heads = (hf_config.get("text_config") or hf_config).get("num_attention_heads")
    parallel = config.engine.tensor_parallel_size
    if heads is not None and parallel > 0 and heads % parallel:
        yield (
            f"--vllm_tensor_parallel_size {parallel}: does not divide the model's {heads} attention heads; "
            "pass one that does"
        )


def context_problems(config: TrainConfig, hf_config: Any) -> Iterator[str]:
    """What does not fit into the model's context; `hf_config` is its configuration or what its config.json holds."""
    limit = max_sequence_tokens(hf_config)
    batch = config.batch
    if limit is not None and batch.max_total_tokens > limit:
        yield (
            f"--prompt_max_len {batch.prompt_max_len} + --generate_max_len {batch.generate_max_len}: "
            f"the model has {limit} positions; lower them, or pass --max_len {limit}"
        )


def _data(config: TrainConfig) -> Iterator[str]:
    data = config.data
    if data.apply_chat_template and data.input_template is not None:
        yield f"--input_template {data.input_template}: --apply_chat_template renders the prompt; drop one of the two"
    if data.prompt_data is None:
        return
    sources = split_sources(data.prompt_data)
    yield from _shares(data.prompt_data_probs, len(sources))
    splits = {"--prompt_split": data.prompt_split}
    if config.evaluation.eval_steps > 0:
        splits["--eval_split"] = data.eval_split
    for source in sources:
        yield from _source(source, splits)


def hub_ids(config: TrainConfig) -> Iterator[tuple[str, Literal["model", "dataset"], str]]:
    """What the run takes from the Hugging Face hub: the flag as given, what it is, its id."""
    if not os.path.isdir(config.policy.pretrain):
        yield f"--pretrain {config.policy.pretrain}", "model", config.policy.pretrain
    for source in split_sources(config.data.prompt_data):
        if not source.startswith("json@") and not source.endswith(".jsonl"):
            yield f"--prompt_data {source}", "dataset", source


def _source(source: str, splits: dict[str, str]) -> Iterator[str]:
    """One part of --prompt_data: json@DIR, a JSONL file, or a hub id (which only the hub can check)."""
    at = f"--prompt_data {source}"
    path = source.removeprefix("json@")
    if "@" in source and not source.startswith("json@"):
        yield f"{at}: only JSON lines are read; pass json@DIR"
    elif not path:
        yield f"{at}: is empty; pass json@DIR, the folder that setup_rl_data.py made"
    elif path == source and os.path.isdir(path):
        yield f"{at}: is a folder; pass json@{path}"
    elif path == source and not path.endswith(".jsonl"):
        if os.path.isfile(path) or path.endswith((".json", ".csv", ".parquet", ".txt", ".gz")):
            yield f"{at}: only JSON lines are read, from files named .jsonl; pass such a file, or json@DIR"
        elif problem := hub_id_problem(path):
            yield f"{at}: {problem}"
    elif os.path.isdir(path):
        yield from _splits(Path(path), splits)
    elif problem := stat_problem(path):
        yield f"{at}: {problem}; make it with setup_rl_data.py"


def _splits(folder: Path, splits: dict[str, str]) -> Iterator[str]:
    for flag, split in splits.items():
        names = SPLIT_FILES.get(split, (f"{split}.jsonl",))
        found = [folder / name for name in names if (folder / name).is_file()]
        if not found:
            yield f"{flag} {split}: {folder} holds no {' or '.join(names)}; make it with setup_rl_data.py"
        elif not os.access(found[0], os.R_OK):
            yield f"{flag} {split}: no permission to read {found[0]}"


def _shares(probabilities: str, num_sources: int) -> Iterator[str]:
    flag = f"--prompt_data_probs {probabilities}"
    try:
        shares = [float(share) for share in probabilities.split(",")]
    except ValueError:
        yield f"{flag}: not numbers; pass comma-separated shares, as 0.7,0.3"
        return
    if len(shares) != num_sources:
        yield f"{flag}: {len(shares)} shares for {num_sources} data sets in --prompt_data; pass one share for each"
    elif not all(share > 0 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        yield f"{flag}: shares must be positive and sum to 1"


def _reward(config: TrainConfig) -> Iterator[str]:
    reward = config.reward
    if reward.remote_rm_url is not None:
        yield from _reward_file(config, reward.remote_rm_url)
        return
    if reward.reward_shape not in BY_NAME["reward_shape"].choices:
        return
    try:
        make_reward_function(reward.reward_shape, tiers=reward.reward_tiers, custom=reward.reward_function)
    except UserError as error:
        yield f"{', '.join(_given_reward_flags(config))}: {error}"


def _short_plans(config: TrainConfig) -> Iterator[str]:
    """The price of silence must not be clipped: among plans that are too short the longer ones would win no more."""
    reward, low = config.reward, config.algorithm.reward_clip_range[0]
    if reward.min_plan_tokens is None or reward.reward_shape not in BY_NAME["reward_shape"].choices:
        return
    shape = None if reward.reward_function else reward.reward_shape
    price = reward.min_plan_tokens * (reward.short_plan_penalty or short_plan_penalty(shape))
    if -price < low:
        high = config.algorithm.reward_clip_range[1]
        yield (
            f"--min_plan_tokens {reward.min_plan_tokens}: an empty plan loses {price:g}, more than --reward_clip_range "
            f"{low:g} {high:g} lets through; pass --reward_clip_range {math.floor(low - price)} {high:g}, or a lower "
            "--short_plan_penalty"
        )


def _best(config: TrainConfig) -> Iterator[str]:
    checkpoint = config.checkpoint
    if checkpoint.save_best is None:
        return
    given = BY_NAME["save_best"].given(checkpoint.save_best)
    if config.evaluation.eval_steps == BY_NAME["eval_steps"].default:
        yield f"{given}: there are no evaluations; pass --eval_steps, or drop it"
    if checkpoint.disable_ds_ckpt:
        yield f"{given}: what it keeps is a DeepSpeed checkpoint; drop it, or --disable_ds_ckpt"


def reward_flag_problems(config: TrainConfig, read: Collection[str], task: str) -> Iterator[str]:
    """Flags that ask for a reward in a run whose reward reads other ones (`read`): they would do nothing."""
    given = {field.name: getattr(config.reward, field.name) for field in fields(RewardConfig)}
    given["label_key"] = config.data.label_key
    defaults = {**vars(RewardConfig()), "label_key": None}
    for name, value in given.items():
        if value != defaults[name] and name not in read:
            yield f"{BY_NAME[name].given(value)}: {task} does not read it; {INSTEAD[name]}"


VR_CLI = "drop it, or run train_ncp.py"
INSTEAD = {
    "baseline_ppl_path": f"{VR_CLI} (or unset BASELINE_PPL_PATH)",
    "reward_shape": VR_CLI,
    "reward_tiers": VR_CLI,
    "reward_function": VR_CLI,
    "min_plan_tokens": VR_CLI,
    "short_plan_penalty": VR_CLI,
    "remote_rm_url": "drop it, or run openrlhf.cli.train_ppo_ray",
    "label_key": "drop it, or run openrlhf.cli.train_ppo_ray",
}
"""What to do about a flag of another reward."""


def _given_reward_flags(config: TrainConfig) -> list[str]:
    """The flags of the reward's function that are not at their defaults."""
    rows = [BY_NAME[name] for name in ("reward_function", "reward_tiers", "reward_shape")]
    values = [(row, getattr(config.reward, row.name)) for row in rows]
    return [row.given(value) for row, value in values if value != row.default]


def _reward_file(config: TrainConfig, url: str) -> Iterator[str]:
    if re.match(r"https?://", url):
        yield f"--remote_rm_url {url}: reward servers are not supported; pass a Python file with a function reward_func"
    else:
        try:
            load_function(f"{url}:reward_func", num_arguments=3)
        except UserError as error:
            yield f"--remote_rm_url {url}: {error}"
    instead = "--remote_rm_url gives the reward instead of VR-CLI; drop one of the two"
    baseline = config.reward.baseline_ppl_path
    if baseline is not None:
        yield f"{BY_NAME['baseline_ppl_path'].given(baseline)}: {instead} (or unset BASELINE_PPL_PATH)"
    for given in _given_reward_flags(config):
        yield f"{given}: {instead}"


def _cpu(config: TrainConfig) -> Iterator[str]:
    """What a machine without GPUs cannot do."""
    engine = config.engine
    if engine.tensor_parallel_size > 1:
        yield (
            f"--vllm_tensor_parallel_size {engine.tensor_parallel_size}: this machine has no GPU to spread an "
            "engine over; pass 1, and more --vllm_num_engines if wanted"
        )
    if config.reference_dtype == "tf32":
        yield "--reference_dtype tf32: this machine has no GPU; pass fp32, here and to compute_baseline_perplexity.py"
    if config.batch.pack_tokens == "auto":
        yield "--pack_tokens auto: this machine has no GPU whose memory could be tried; pass a number, or micro"
    if engine.sync_backend == "nccl":
        yield f"--vllm_sync_backend {engine.sync_backend}: this machine has no GPU; use gloo"
    yield from _cpu_workers(config.placement, num_cores=len(os.sched_getaffinity(0)))


def _cpu_workers(placement: PlacementConfig, *, num_cores: int) -> Iterator[str]:
    """Roles take turns on the cores, but the workers of one role run together (two always may, to try it out)."""
    room = max(2, num_cores)
    workers = {
        f"--actor_num_gpus_per_node {placement.actor_num_gpus_per_node}": (
            placement.actor_num_nodes * placement.actor_num_gpus_per_node
        ),
        f"--ref_num_gpus_per_node {placement.ref_num_gpus_per_node}": (
            placement.ref_num_nodes * placement.ref_num_gpus_per_node
        ),
    }
    for flag, count in workers.items():
        if count > room:
            yield (
                f"{flag}: this machine has no GPU, and {num_cores} CPU cores for {count} workers; "
                f"pass {flag.split()[0]} 1 (at most {room})"
            )


def _gpus(config: TrainConfig, num_gpus: int) -> Iterator[str]:
    """What this many GPUs cannot do."""
    if config.engine.sync_backend == "gloo":
        yield f"--vllm_sync_backend {config.engine.sync_backend}: weights stay on the GPUs; use nccl"
    needed = _needed_gpus(config)
    total = sum(needed.values())
    if total > num_gpus:
        parts = " + ".join(f"{count} for {role}" for role, count in needed.items())
        yield (
            f"--actor_num_gpus_per_node {config.placement.actor_num_gpus_per_node}: the run needs {total} GPUs "
            f"({parts}) and {num_gpus} are there; lower --actor_num_gpus_per_node, --ref_num_gpus_per_node or "
            "--vllm_num_engines" + ("" if config.placement.colocate_actor_ref else ", or pass --colocate_actor_ref")
        )


def _needed_gpus(config: TrainConfig) -> dict[str, int]:
    placement, engine = config.placement, config.engine
    needed = {"the policy": placement.actor_num_nodes * placement.actor_num_gpus_per_node}
    if not placement.colocate_actor_ref:
        needed["the reference model"] = placement.ref_num_nodes * placement.ref_num_gpus_per_node
    return needed | {"the engines": (engine.num_engines or 0) * engine.tensor_parallel_size}
