"""Checks a command line before Ray starts and before any model loads.

A flag does what it says or is refused with what to use instead. `UNSUPPORTED` is the list of what this version does
not do; the functions below it check what the remaining flags ask for together, on this machine. All problems are
reported at once, one line each: flag, value, why, what to do.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from openrlhf.cli.flags import deepspeed_config, max_total_tokens
from openrlhf.cli.unsupported import UNSUPPORTED
from openrlhf.datasets.blending import SPLIT_FILES
from openrlhf.utils.load_function import load_function
from openrlhf.vr_cli.rewards import make_reward_function


class ConfigError(ValueError):
    """Every problem of one command line; `str()` is the report that the user sees."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{count} with the arguments:", *(f"  {problem}" for problem in problems)]))


NEEDS_GPU = (
    # switch, why the CPU cannot do it, what to do
    ("flash_attn", "FlexAttention has no CPU backward pass", "drop --flash_attn; the CPU uses SDPA with a dense mask"),
    ("adam_offload", "the optimizer is on the CPU already", "drop --adam_offload"),
    ("use_liger_kernel", "Liger's kernels are written in Triton, for GPUs", "drop --use_liger_kernel"),
    ("ref_reward_offload", "the reference model is on the CPU already", "drop --ref_reward_offload"),
)

NEEDS_OTHER = (
    # flag, its value that asks for nothing, the flag without which it does nothing
    ("gradient_checkpointing_use_reentrant", False, "gradient_checkpointing"),
    ("wandb_org", None, "use_wandb"),
    ("wandb_group", None, "use_wandb"),
    ("kl_target", None, "init_kl_coef"),
    ("label_key", None, "remote_rm_url"),
)

POSITIVE = (
    # a flag that was not given (None) is not tested
    "actor_num_nodes", "actor_num_gpus_per_node", "ref_num_nodes", "ref_num_gpus_per_node", "vllm_num_engines",
    "vllm_tensor_parallel_size", "num_episodes", "rollout_batch_size", "n_samples_per_prompt",
    "micro_rollout_batch_size", "train_batch_size", "micro_train_batch_size", "max_epochs", "prompt_max_len",
    "generate_max_len", "max_samples", "eval_n_samples", "logging_steps", "max_ckpt_num", "max_ckpt_mem",
    "actor_learning_rate", "temperature",
)  # fmt: skip

RANGES: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
    # flag, the range in words, its test
    ("save_steps", "-1 (never) or positive", lambda value: value == -1 or value > 0),
    ("eval_steps", "-1 (never) or positive", lambda value: value == -1 or value > 0),
    ("seed", "0 or more", lambda value: value >= 0),
    ("max_len", "positive", lambda value: value > 0),
    ("top_p", "above 0 and at most 1", lambda value: 0 < value <= 1),
    ("eval_top_p", "above 0 and at most 1", lambda value: 0 < value <= 1),
    ("eval_top_k", "-1 (all) or positive", lambda value: value == -1 or value > 0),
    ("eval_temperature", "0 (greedy) or more", lambda value: value >= 0),
    ("eps_clip", "between 0 and 1", lambda value: 0 < value < 1),
    ("gamma", "above 0 and at most 1", lambda value: 0 < value <= 1),
    ("init_kl_coef", "0 or more", lambda value: value >= 0),
    ("kl_target", "positive", lambda value: value > 0),
    ("lr_warmup_ratio", "between 0 and 1", lambda value: 0 <= value <= 1),
    ("max_norm", "0 (no clipping) or more", lambda value: value >= 0),
    ("l2", "0 or more", lambda value: value >= 0),
    ("vllm_gpu_memory_utilization", "above 0 and at most 1", lambda value: 0 < value <= 1),
)

GROUP_ESTIMATORS = ("group_norm", "rloo", "reinforce_baseline")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def validate(args: argparse.Namespace, *, num_gpus: int | None) -> None:
    """Check the arguments for a machine or cluster with `num_gpus` GPUs (0: CPU only, None: unknown).

    Raises:
        ConfigError: with one line for each problem.
    """
    checks = (
        _unsupported, _ranges, _dependencies, _deepspeed, _algorithm, _lengths, _placement, _model, _data, _reward,
        _tracking,
    )  # fmt: skip
    problems = [problem for check in checks for problem in check(args)]
    if num_gpus == 0:
        problems += _cpu(args)
    elif num_gpus is not None:
        problems += _gpus(args, num_gpus)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))


def _given(flag: str, value: object) -> str:
    """A flag as it was given: `--flag value`, or `--flag` alone for a switch."""
    if value is True:
        return f"--{flag}"
    if value is None:
        return f"--{flag} (not given)"
    return f"--{flag} " + (" ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value))


def _unsupported(args: argparse.Namespace) -> Iterator[str]:
    for rule in UNSUPPORTED:
        value = getattr(args, rule.flag)
        if value not in rule.allowed:
            yield f"{_given(rule.flag, value)}: {rule.why}; {rule.instead}"


def _ranges(args: argparse.Namespace) -> Iterator[str]:
    for flag in POSITIVE:
        value = getattr(args, flag)
        if value is not None and not (value > 0 and math.isfinite(value)):
            yield f"{_given(flag, value)}: must be positive"
    for flag, words, holds in RANGES:
        value = getattr(args, flag)
        if value is not None and not (math.isfinite(value) and holds(value)):
            yield f"{_given(flag, value)}: must be {words}"
    if not all(0 <= beta < 1 for beta in args.adam_betas):
        yield f"{_given('adam_betas', args.adam_betas)}: both must be at least 0 and below 1; the default is 0.9 0.95"
    low, high = args.reward_clip_range
    if not low < high:
        yield f"{_given('reward_clip_range', args.reward_clip_range)}: the lower bound comes first, as -10 10"


def _dependencies(args: argparse.Namespace) -> Iterator[str]:
    for flag, off, needed in NEEDS_OTHER:
        if getattr(args, flag) != off and not getattr(args, needed):
            yield f"{_given(flag, getattr(args, flag))}: does nothing without --{needed}; add that, or drop it"


def _deepspeed(args: argparse.Namespace) -> Iterator[str]:
    from openrlhf.utils.deepspeed.config import validate as validate_deepspeed

    world_sizes = {
        True: args.actor_num_nodes * args.actor_num_gpus_per_node,
        False: args.ref_num_nodes * args.ref_num_gpus_per_node,
    }
    for train, world_size in world_sizes.items():
        try:
            validate_deepspeed(deepspeed_config(args, train=train), world_size=world_size)
        except ValueError as error:
            yield str(error)


def _algorithm(args: argparse.Namespace) -> Iterator[str]:
    samples = args.rollout_batch_size * args.n_samples_per_prompt
    if args.advantage_estimator in GROUP_ESTIMATORS and args.n_samples_per_prompt == 1:
        yield (
            f"--n_samples_per_prompt 1: {args.advantage_estimator} compares the samples of a prompt; "
            "pass 2 or more (the paper: 8), or --advantage_estimator reinforce"
        )
    if args.train_batch_size > samples > 0:
        yield (
            f"--train_batch_size {args.train_batch_size}: more than the {samples} samples of a rollout "
            f"(--rollout_batch_size {args.rollout_batch_size} x --n_samples_per_prompt {args.n_samples_per_prompt}); "
            "lower it, or raise those"
        )
    if args.eval_temperature == 0 and args.eval_n_samples > 1:
        yield (
            f"--eval_n_samples {args.eval_n_samples}: greedy sampling (--eval_temperature 0) gives one response; "
            "pass --eval_n_samples 1, or a temperature above 0"
        )


def _lengths(args: argparse.Namespace) -> Iterator[str]:
    if args.max_len is not None and args.max_len <= args.prompt_max_len:
        yield (
            f"--max_len {args.max_len}: leaves a prompt of --prompt_max_len {args.prompt_max_len} tokens no room for a "
            "response; raise it, or drop it (the sum of --prompt_max_len and --generate_max_len is used)"
        )


def _placement(args: argparse.Namespace) -> Iterator[str]:
    if args.vllm_num_engines is None:
        yield "--vllm_num_engines (not given): vLLM generates the responses; pass at least 1"
    if not args.colocate_actor_ref:
        return
    for unit in ("num_nodes", "num_gpus_per_node"):
        actor, ref = getattr(args, f"actor_{unit}"), getattr(args, f"ref_{unit}")
        if actor != ref:
            yield (
                f"--ref_{unit} {ref}: --colocate_actor_ref needs as many as --actor_{unit} {actor}; "
                f"pass --ref_{unit} {actor}, or drop --colocate_actor_ref"
            )


def _model(args: argparse.Namespace) -> Iterator[str]:
    if args.pretrain is None:
        yield "--pretrain (not given): which model is trained; pass a Hugging Face folder or hub id"
        return
    folder = Path(args.pretrain)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            yield f"--pretrain {args.pretrain}: this folder holds no config.json; pass a Hugging Face model folder"
            return
        try:
            hf_config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except ValueError as error:
            yield f"--pretrain {args.pretrain}: its config.json is not JSON ({error}); restore the folder"
            return
        yield from _architecture(args, hf_config)
    elif not HUB_ID.fullmatch(args.pretrain) or args.pretrain.startswith("."):
        yield f"--pretrain {args.pretrain}: no such folder, and no hub id (as Qwen/Qwen2.5-3B-Instruct)"


def _architecture(args: argparse.Namespace, hf_config: dict) -> Iterator[str]:
    """Sizes that the model itself rules out, as far as its config.json says them."""
    room = hf_config.get("max_position_embeddings")
    # Rotary scaling (YaRN, say) reaches further than this number; what exactly it allows is left to vLLM.
    scaled = hf_config.get("rope_scaling") or "factor" in (hf_config.get("rope_parameters") or {})
    if room is not None and not scaled and max_total_tokens(args) > room:
        yield (
            f"--prompt_max_len {args.prompt_max_len} + --generate_max_len {args.generate_max_len}: "
            f"the model has {room} positions; lower them, or pass --max_len {room}"
        )
    heads = hf_config.get("num_attention_heads")
    if heads is not None and args.vllm_tensor_parallel_size > 0 and heads % args.vllm_tensor_parallel_size:
        yield (
            f"--vllm_tensor_parallel_size {args.vllm_tensor_parallel_size}: does not divide the model's {heads} "
            "attention heads; pass one that does"
        )


def _data(args: argparse.Namespace) -> Iterator[str]:
    if args.apply_chat_template and args.input_template is not None:
        yield f"--input_template {args.input_template}: --apply_chat_template renders the prompt; drop one of the two"
    if args.prompt_data is None:
        yield "--prompt_data (not given): what is trained on; pass json@DIR, the folder that setup_rl_data.py made"
        return
    sources = [source.strip() for source in args.prompt_data.split(",")]
    yield from _shares(args, len(sources))
    splits = {"--prompt_split": args.prompt_split} | ({"--eval_split": args.eval_split} if args.eval_steps > 0 else {})
    for source in sources:
        yield from _source(source, splits)


def _source(source: str, splits: dict[str, str]) -> Iterator[str]:
    """One part of --prompt_data: json@DIR, a JSONL file, or a hub id (which only the hub can check)."""
    if "@" in source and not source.startswith("json@"):
        yield f"--prompt_data {source}: only JSON lines are read; pass json@DIR"
        return
    if not (source.startswith("json@") or source.endswith(".jsonl")):
        return
    path = Path(source.removeprefix("json@"))
    if path.is_dir():
        for flag, split in splits.items():
            names = SPLIT_FILES.get(split, (f"{split}.jsonl",))
            if not any((path / name).is_file() for name in names):
                yield f"{flag} {split}: {path} holds no {' or '.join(names)}; make it with setup_rl_data.py"
    elif not path.is_file():
        yield f"--prompt_data {source}: no such file or folder; make it with setup_rl_data.py"


def _shares(args: argparse.Namespace, num_sources: int) -> Iterator[str]:
    flag = f"--prompt_data_probs {args.prompt_data_probs}"
    try:
        shares = [float(share) for share in args.prompt_data_probs.split(",")]
    except ValueError:
        yield f"{flag}: not numbers; pass comma-separated shares, as 0.7,0.3"
        return
    if len(shares) != num_sources:
        yield f"{flag}: {len(shares)} shares for {num_sources} data sets in --prompt_data; pass one share for each"
    elif not all(share > 0 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        yield f"{flag}: shares must be positive and sum to 1"


def _reward(args: argparse.Namespace) -> Iterator[str]:
    if args.remote_rm_url is not None:
        yield from _reward_file(args)
        return
    if args.baseline_ppl_path is not None and not Path(args.baseline_ppl_path).is_file():
        yield (
            f"--baseline_ppl_path {args.baseline_ppl_path}: no such file; make it with compute_baseline_perplexity.py"
        )
    try:
        make_reward_function(args.reward_shape, tiers=args.reward_tiers, custom=args.reward_function)
    except ValueError as error:
        given = [flag for flag in ("reward_shape", "reward_tiers", "reward_function") if getattr(args, flag)]
        yield f"{', '.join(_given(flag, getattr(args, flag)) for flag in given)}: {error}"


def _reward_file(args: argparse.Namespace) -> Iterator[str]:
    url = args.remote_rm_url
    if re.match(r"https?://", url):
        yield f"--remote_rm_url {url}: reward servers are not supported; pass a Python file with a function reward_func"
    else:
        try:
            load_function(f"{url}:reward_func", num_arguments=3)
        except ValueError as error:
            yield f"--remote_rm_url {url}: {error}"
    vr_cli = {"baseline_ppl_path": None, "reward_shape": "tiers", "reward_tiers": None, "reward_function": None}
    for flag, off in vr_cli.items():
        if getattr(args, flag) != off:
            yield (
                f"{_given(flag, getattr(args, flag))}: --remote_rm_url gives the reward instead of VR-CLI; "
                "drop one of the two" + (" (or unset BASELINE_PPL_PATH)" if flag == "baseline_ppl_path" else "")
            )


def _tracking(args: argparse.Namespace) -> Iterator[str]:
    wanted = {"use_tensorboard": "tensorboard", "use_wandb": "wandb"}
    for flag, package in wanted.items():
        if getattr(args, flag) is not None and importlib.util.find_spec(package) is None:
            # The value of --use_wandb is an API key: it is not repeated.
            yield f"--{flag}: the package {package} is not installed; run pip install {package}, or drop the flag"


def _cpu(args: argparse.Namespace) -> Iterator[str]:
    """What a machine without GPUs cannot do."""
    for flag, why, instead in NEEDS_GPU:
        if getattr(args, flag):
            yield f"--{flag}: this machine has no GPU, and {why}; {instead}"
    if args.vllm_tensor_parallel_size > 1:
        yield (
            f"--vllm_tensor_parallel_size {args.vllm_tensor_parallel_size}: this machine has no GPU to spread an "
            "engine over; pass 1, and more --vllm_num_engines if wanted"
        )
    if args.vllm_sync_backend != "gloo":
        yield f"--vllm_sync_backend {args.vllm_sync_backend}: this machine has no GPU; use gloo"


def _gpus(args: argparse.Namespace, num_gpus: int) -> Iterator[str]:
    """What this many GPUs cannot do."""
    if args.vllm_sync_backend != "nccl":
        yield f"--vllm_sync_backend {args.vllm_sync_backend}: weights stay on the GPUs; use nccl"
    if args.use_liger_kernel and importlib.util.find_spec("liger_kernel") is None:
        yield "--use_liger_kernel: the package is not installed; run pip install liger-kernel, or drop the flag"
    needed = _needed_gpus(args)
    total = sum(needed.values())
    if total > num_gpus:
        parts = " + ".join(f"{count} for {role}" for role, count in needed.items())
        yield (
            f"--actor_num_gpus_per_node {args.actor_num_gpus_per_node}: the run needs {total} GPUs ({parts}) and "
            f"{num_gpus} are there; lower --actor_num_gpus_per_node, --ref_num_gpus_per_node or --vllm_num_engines"
            + ("" if args.colocate_actor_ref else ", or pass --colocate_actor_ref")
        )


def _needed_gpus(args: argparse.Namespace) -> dict[str, int]:
    needed = {"the policy": args.actor_num_nodes * args.actor_num_gpus_per_node}
    if not args.colocate_actor_ref:
        needed["the reference model"] = args.ref_num_nodes * args.ref_num_gpus_per_node
    return needed | {"the engines": (args.vllm_num_engines or 0) * args.vllm_tensor_parallel_size}
