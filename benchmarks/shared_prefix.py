"""Times shared-prefix batches against one sample at a time, in one run, on a randomly initialised Qwen2.

    python -m benchmarks.shared_prefix                                    # 1.5B shape, bf16, on a GPU
    python -m benchmarks.shared_prefix --layers 4 --hidden 256 --prefix 512 --segment 64 --vocab 4096   # on a CPU

Both sides compute the same thing, the log-probs of every segment's tokens, and then their gradients too.
The plain side runs one sample at a time through the model's own forward and builds full fp32 logits.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial

import torch
from transformers import PreTrainedModel, Qwen2ForCausalLM

from benchmarks.qwen2_shape import add_shape_arguments, qwen2_config
from openrlhf.models.logprobs import install_logprob_head, shared_prefix_logprobs
from openrlhf.models.shared_prefix import LabeledSequence, pack_shared_prefix
from openrlhf.utils.devices import current_device, device_type, synchronize


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Shared-prefix batches against one sample at a time.")
    add_shape_arguments(parser)
    parser.add_argument("--prefix", type=int, default=8192, help="tokens that all samples share")
    parser.add_argument("--segment", type=int, default=1024, help="tokens of each sample, all of them labels")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args(argv)


def make_model(args: argparse.Namespace, attention: str) -> PreTrainedModel:
    """In bf16 on a GPU and fp32 elsewhere, with gradient checkpointing."""
    config = qwen2_config(args, max_tokens=args.prefix + args.segment, attn_implementation=attention)
    torch.manual_seed(0)
    with torch.device(current_device()):
        model = Qwen2ForCausalLM(config)
    if device_type() == "cuda":
        model = model.bfloat16()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def make_group(args: argparse.Namespace) -> list[LabeledSequence]:
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(0, args.vocab, (count,), generator=generator).tolist()

    prefix = tokens(args.prefix)
    return [
        LabeledSequence(token_ids=prefix + tokens(args.segment), label_start=args.prefix) for _ in range(args.samples)
    ]


def packed(model: PreTrainedModel, group: list[LabeledSequence], *, backward: bool) -> torch.Tensor:
    (batch,) = pack_shared_prefix(group, max_tokens=10**9)
    logprobs = shared_prefix_logprobs(model, batch.to(current_device()))
    if backward:
        logprobs.sum().backward()
    return logprobs.detach()


def one_by_one(model: PreTrainedModel, group: list[LabeledSequence], *, backward: bool) -> torch.Tensor:
    results = []
    for sequence in group:
        ids = torch.tensor([sequence.token_ids], device=current_device())
        logits = model(ids, use_cache=False).logits[0].float()  # (T, V)
        targets = ids[0, sequence.label_start :]
        logprobs = logits.log_softmax(-1)[sequence.label_start - 1 : -1].gather(-1, targets[:, None]).squeeze(-1)
        if backward:
            logprobs.sum().backward()
        results.append(logprobs.detach())
    return torch.cat(results)


def measure(function: Callable[[], torch.Tensor], repeats: int) -> tuple[float, float, torch.Tensor]:
    """Median seconds, peak GiB on the GPU (0 on the CPU), and the result; after one warm-up run."""
    result = function()
    if device_type() == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats):
        synchronize()
        start = time.perf_counter()
        result = function()
        synchronize()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device_type() == "cuda" else 0.0
    return sorted(seconds)[len(seconds) // 2], peak, result


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    device = torch.cuda.get_device_name() if device_type() == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(json.dumps({"device": device, "torch": torch.__version__, **vars(args)}))
    group = make_group(args)
    plain_model = make_model(args, "sdpa")
    packed_model = make_model(args, "flex_attention" if device_type() == "cuda" else "sdpa")
    install_logprob_head(packed_model)
    for name, backward in (("scoring", False), ("forward and backward", True)):
        with torch.set_grad_enabled(backward):
            run_plain = partial(one_by_one, plain_model, group, backward=backward)
            plain_s, plain_gib, expected = measure(run_plain, args.repeats)
            plain_model.zero_grad()
            run_packed = partial(packed, packed_model, group, backward=backward)
            packed_s, packed_gib, actual = measure(run_packed, args.repeats)
            packed_model.zero_grad()
        difference = (actual - expected).abs().mean().item()
        print(
            f"{name}: packed {packed_s:.3f} s, {packed_gib:.1f} GiB; one by one {plain_s:.3f} s, {plain_gib:.1f} GiB; "
            f"{plain_s / packed_s:.2f}x; mean difference of log-probs {difference:.1e}"
        )


if __name__ == "__main__":
    main()
