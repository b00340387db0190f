"""Packs and memory on a GPU: the estimate beside what is measured, the budget that auto finds, a run that does not fit.

    python -m benchmarks.pack_memory                                   # 1.5B Qwen2 shape on one GPU, ZeRO 2
    python -m benchmarks.pack_memory --zero_stage 3 --adam_offload
    python -m benchmarks.pack_memory --layers 2 --hidden 256 --vocab 4096 --prompt 2000 --response 500

One rank, random weights, bf16, gradient checkpointing, groups of eight samples. One JSON object a line:

* `estimate`: before the first forward and with packs of one sample, and what was measured;
* `auto`: the budget that `--pack_tokens auto` finds, and the peak of an update with packs of that size;
* `too_big`: an update whose packs find half of the memory between their need and that of single samples: the budget
  before and after, and loss and gradient norm beside the same update with packs that were small from the start.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM

from benchmarks.one_rank import one_rank
from benchmarks.qwen2_shape import add_shape_arguments, qwen2_config
from openrlhf.cli.flags import parse_args as parse_run
from openrlhf.cli.flags import to_config
from openrlhf.config import TrainConfig
from openrlhf.models.actor import Actor, load_causal_lm
from openrlhf.trainer.memory_plan import policy_parts, training_activations
from openrlhf.trainer.ppo_utils.metrics import MeanMetrics
from openrlhf.trainer.ppo_utils.policy_update import PolicyUpdate
from openrlhf.trainer.ppo_utils.samples import Completion, Experience, Prompt, Rewards, Samples
from openrlhf.trainer.preflight import model_shape
from openrlhf.utils.devices import GIB, current_device, peak_memory_bytes, reset_peak_memory

NUM_SAMPLES = 8


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    strategy = one_rank()
    with tempfile.TemporaryDirectory() as folder:
        save_model(args, folder)
        config = run_config(args, folder)
        for show in (show_estimate, show_auto, show_too_big):
            update = new_update(strategy, config)
            found = show(update, args)
            card = torch.cuda.get_device_name()
            row = {"case": show.__name__.removeprefix("show_"), "device": card, "torch": torch.__version__}
            print(json.dumps({**row, **vars(args), **found}), flush=True)
            if show is not show_too_big:
                update.actor.model.destroy()
            del update
            torch.cuda.empty_cache()


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Packs and memory on a GPU.")
    add_shape_arguments(parser)
    parser.add_argument("--prompt", type=int, default=12_000, help="tokens of a prompt")
    parser.add_argument("--response", type=int, default=2048, help="tokens of a response")
    parser.add_argument("--auto_samples", type=int, default=80, help="of a group, for `auto`")
    parser.add_argument("--zero_stage", type=int, default=2)
    parser.add_argument("--adam_offload", action="store_true")
    return parser.parse_args(argv)


def save_model(args: argparse.Namespace, folder: str) -> None:
    config = qwen2_config(args, max_tokens=args.prompt + args.response)
    with torch.device(current_device()):
        Qwen2ForCausalLM(config).bfloat16().save_pretrained(folder)


def run_config(args: argparse.Namespace, folder: str) -> TrainConfig:
    flags = ["--pretrain", folder, "--prompt_data", "json@none", "--vllm_num_engines", "1", "--bf16", "--flash_attn"]
    flags += ["--gradient_checkpointing", "--zero_stage", str(args.zero_stage), "--pack_tokens", "auto"]
    flags += ["--prompt_max_len", str(args.prompt), "--generate_max_len", str(args.response)]
    flags += ["--n_samples_per_prompt", str(NUM_SAMPLES), "--init_kl_coef", "0"]
    return to_config(parse_run(flags + (["--adam_offload"] if args.adam_offload else [])))


def new_update(strategy: Any, config: TrainConfig) -> PolicyUpdate:
    model = strategy.load_model(partial(load_causal_lm, config.policy), config.actor_deepspeed)
    engine = strategy.prepare_train(
        model, deepspeed=config.actor_deepspeed, optimizer=config.optimizer, num_optimizer_steps=10
    )
    return PolicyUpdate(config=config, strategy=strategy, actor=Actor(engine))


def group(args: argparse.Namespace, index: int, num_samples: int) -> Experience:
    """Full-length responses to a full-length prompt."""
    generator = torch.Generator().manual_seed(index)

    def tokens(count: int) -> list[int]:
        return torch.randint(args.vocab, (count,), generator=generator).tolist()

    completions = [
        Completion(token_ids=tokens(args.response), logprobs=[0.0] * args.response, finish_reason="stop")
        for _ in range(num_samples)
    ]
    prompt = Prompt(index=index, text="", token_ids=tokens(args.prompt), datapoint_id=None)
    return Experience(
        samples=Samples(prompt=prompt, completions=completions, responses=[""] * num_samples),
        rewards=Rewards(rewards=[0.0] * num_samples),
        old_logprobs=[torch.full((args.response,), -12.0)] * num_samples,
        ref_logprobs=None,
        advantages=[torch.full((args.response,), (-1.0) ** i) for i in range(num_samples)],
    )


def updated(
    update: PolicyUpdate, args: argparse.Namespace, *, tokens: int, num_samples: int = NUM_SAMPLES
) -> dict[str, Any]:
    """One update on two groups with a budget of so many tokens."""
    update.budget.tokens = tokens
    metrics = MeanMetrics()
    reset_peak_memory()
    groups = [group(args, index, num_samples) for index in range(2)]
    update.run(groups, step=0, num_updates=1, kl_coef=0.0, metrics=metrics)
    found = metrics.reduce()
    return {
        "pack_tokens": tokens,
        "pack_tokens_after": update.budget.tokens,
        "peak_gib": in_gib(peak_memory_bytes()),
        "loss": found["loss"],
        "grad_norm": found["grad_norm"],
    }


def show_estimate(update: PolicyUpdate, args: argparse.Namespace) -> dict[str, Any]:
    shape, config = model_shape(update.config.policy), update.config
    deepspeed, tokens = config.actor_deepspeed, args.prompt + args.response
    parts = policy_parts(shape, deepspeed, ranks=1)
    moments = 0 if deepspeed.adam_offload else 8 * shape.parameters
    before = torch.cuda.memory_allocated()
    measured = updated(update, args, tokens=tokens)
    return {
        "estimated_before_gib": in_gib(parts["weights"] + max(0, parts["optimizer"] - moments)),
        "measured_before_gib": in_gib(before),
        "estimated_peak_gib": in_gib(
            sum(parts.values()) - moments + training_activations(shape, tokens, config.policy)
        ),
        "measured_peak_gib": measured["peak_gib"],
        "pack_tokens": tokens,
        "note": "the measured peak has the optimizer step in it, the estimated one a pack without Adam's moments",
    }


def show_auto(update: PolicyUpdate, args: argparse.Namespace) -> dict[str, Any]:
    batch = dataclasses.replace(update.config.batch, n_samples_per_prompt=args.auto_samples)
    update.config = dataclasses.replace(update.config, batch=batch)
    tokens = update.find_pack_tokens()
    fill = max(1, (tokens - args.prompt) // args.response)
    return {"found": tokens, **updated(update, args, tokens=tokens, num_samples=fill)}


def show_too_big(update: PolicyUpdate, args: argparse.Namespace) -> dict[str, Any]:
    single, whole = args.prompt + args.response, args.prompt + NUM_SAMPLES * args.response
    peaks = [updated(update, args, tokens=tokens)["peak_gib"] for tokens in (single, whole)]
    ballast = occupy_all_but(sum(peaks) / 2 * GIB - torch.cuda.memory_allocated())
    found = updated(update, args, tokens=whole)
    found["peak_gib"] -= in_gib(ballast.numel())
    del ballast
    update.actor.model.destroy()
    torch.cuda.empty_cache()
    fresh = new_update(update.strategy, update.config)
    for tokens in (single, whole):
        updated(fresh, args, tokens=tokens)
    small = updated(fresh, args, tokens=found["pack_tokens_after"])
    fresh.actor.model.destroy()
    return {"peaks_with_room_gib": peaks, "split": found, "small_from_the_start": small}


def occupy_all_but(size: float) -> Tensor:
    """Leaves so many bytes of the GPU to be had."""
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    return torch.empty(max(0, int(free - size)), dtype=torch.uint8, device=current_device())


def in_gib(size: float) -> float:
    return round(size / GIB, 2)


if __name__ == "__main__":
    main()
