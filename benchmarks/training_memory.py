"""Seconds and peak memory of training on one pack, through the product's own loading and preparation.

    python -m benchmarks.training_memory --gradient_checkpointing      # 1.5B Qwen2 shape, 14,000-token pack, on a GPU
    python -m benchmarks.training_memory --layers 2 --hidden 256 --vocab 4096 --tokens 1000 --gradient_checkpointing
    python -m benchmarks.training_memory --gradient_checkpointing --torch_compile --use_liger_kernel --zero_stage 3

The model is random, in bf16 on a GPU and fp32 elsewhere. One rank. A pack is one prompt and eight responses. The first
repeat compiles. The flags are those of training.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import partial
from typing import Any

import torch
from transformers import Qwen2ForCausalLM

from benchmarks.one_rank import one_rank
from benchmarks.qwen2_shape import add_shape_arguments, qwen2_config
from openrlhf.config import DeepspeedConfig, ModelConfig, OptimizerConfig
from openrlhf.models.actor import load_causal_lm
from openrlhf.models.logprobs import shared_prefix_logprobs
from openrlhf.models.shared_prefix import LabeledSequence, SharedPrefixBatch, pack_shared_prefix
from openrlhf.utils.devices import GIB, current_device, device_type, peak_memory_gib, synchronize

NUM_SAMPLES = 8
RESPONSE_SHARE = 0.04
"""Of the pack's tokens, each response."""


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    strategy = one_rank()
    with tempfile.TemporaryDirectory() as folder:
        save_model(args, folder)
        engine = prepare(strategy, args, folder)
    weights_gib = allocated_gib()
    batch = make_pack(args).to(current_device())
    for repeat in range(args.repeats):
        seconds, step_seconds = train_once(strategy, engine, batch)
        row = {
            "device": torch.cuda.get_device_name() if device_type() == "cuda" else "cpu",
            "torch": torch.__version__,
            **vars(args),
            "repeat": repeat,
            "pack_tokens": batch.num_tokens,
            "before_the_forward_gib": round(weights_gib, 2),
            "peak_gib": round(peak_memory_gib(), 2),
            "forward_backward_s": round(seconds, 3),
            "optimizer_s": round(step_seconds, 3),
        }
        print(json.dumps(row), flush=True)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Seconds and peak memory of training on one pack.")
    add_shape_arguments(parser)
    parser.add_argument("--tokens", type=int, default=14_000, help="tokens of the pack")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--zero_stage", type=int, default=2)
    for flag in ("gradient_checkpointing", "torch_compile", "use_liger_kernel", "adam_offload"):
        parser.add_argument(f"--{flag}", action="store_true")
    parser.add_argument("--dense_attention", action="store_true", help="on a GPU too: without --flash_attn")
    return parser.parse_args(argv)


def save_model(args: argparse.Namespace, folder: str) -> None:
    config = qwen2_config(args, max_tokens=args.tokens)
    with torch.device(current_device()):
        Qwen2ForCausalLM(config).bfloat16().save_pretrained(folder)


def prepare(strategy: Any, args: argparse.Namespace, folder: str) -> Any:
    on_gpu = device_type() == "cuda"
    model_config = ModelConfig(
        pretrain=folder,
        bf16=on_gpu,
        flash_attn=on_gpu and not args.dense_attention,
        gradient_checkpointing=args.gradient_checkpointing,
        torch_compile=args.torch_compile,
        use_liger_kernel=args.use_liger_kernel,
    )
    deepspeed = DeepspeedConfig(zero_stage=args.zero_stage, bf16=on_gpu, adam_offload=args.adam_offload)
    model = strategy.load_model(partial(load_causal_lm, model_config), deepspeed)
    return strategy.prepare_train(
        model, deepspeed=deepspeed, optimizer=OptimizerConfig(), num_optimizer_steps=args.repeats
    )


def make_pack(args: argparse.Namespace) -> SharedPrefixBatch:
    """A prompt and NUM_SAMPLES responses of RESPONSE_SHARE each."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, args.vocab, (args.tokens,), generator=generator).tolist()
    response = int(args.tokens * RESPONSE_SHARE)
    prompt = tokens[: args.tokens - NUM_SAMPLES * response]
    starts = range(len(prompt), args.tokens, response)
    sequences = [
        LabeledSequence(token_ids=prompt + tokens[start : start + response], label_start=len(prompt))
        for start in starts
    ]
    (batch,) = pack_shared_prefix(sequences, max_tokens=args.tokens)
    return batch


def train_once(strategy: Any, engine: Any, batch: SharedPrefixBatch) -> tuple[float, float]:
    """Seconds of a forward and a backward pass, and of the optimizer step."""
    synchronize()
    start = time.perf_counter()
    logprobs = shared_prefix_logprobs(engine, batch)
    strategy.backward(engine, -logprobs.mean(), is_last=True)
    synchronize()
    middle = time.perf_counter()
    strategy.step(engine)
    synchronize()
    return middle - start, time.perf_counter() - middle


def allocated_gib() -> float:
    return torch.cuda.memory_allocated() / GIB if device_type() == "cuda" else peak_memory_gib()


if __name__ == "__main__":
    main()
