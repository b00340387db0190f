"""How noisy is scoring? One conversation in packs of different shapes, in each precision, and what that costs.

    python -m benchmarks.scoring_noise --model models/SmolLM2-135M-Instruct --precision bf16 fp32    # real rows, CPU
    python -m benchmarks.scoring_noise --model MODEL --precision bf16 tf32 fp32                      # on a GPU
    python -m benchmarks.scoring_noise --random_qwen2 1.5b --precision bf16 tf32 fp32                # random weights

Run it at the root of the repository. With `--model` the rows are those of `--dataset` and every sequence is a planned
conversation of `prompt_utils.py`; with `--random_qwen2` they are random tokens of the given lengths.

For each precision and row the same sequence is scored alone, beside others and beside seven copies of itself. Printed
are the spread of its perplexity (percent, the unit of improvement_pct), the spread of its mean NLL, and the largest
advantage that `group_norm` makes of eight copies of one plan under `nll_delta`, for each `--eps`.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config

from openrlhf.config import ModelConfig
from openrlhf.models.actor import load_causal_lm
from openrlhf.models.logprobs import install_logprob_head, shared_prefix_logprobs
from openrlhf.models.shared_prefix import LabeledSequence, SharedPrefixBatch
from openrlhf.utils.devices import current_device, device_type, synchronize
from openrlhf.utils.tokenizer import get_tokenizer
from openrlhf.vr_cli.dataset import read_rows
from openrlhf.vr_cli.perplexity import Likelihood
from openrlhf.vr_cli.plan_scoring import planned_sequence, score_locally
from openrlhf.vr_cli.scoring_noise import spread_pct, start_repeated_scoring
from prompt_utils import add_prompt_arguments, plan_prompts, prompt_settings_from

SHAPES = {
    # layers, hidden, intermediate, heads, key-value heads, vocabulary
    "tiny": (2, 128, 256, 4, 2, 4096),
    "135m": (30, 576, 1536, 9, 3, 49_152),
    "1.5b": (28, 1536, 8960, 12, 2, 151_936),
    "7b": (28, 3584, 18_944, 28, 4, 152_064),
}
FILLER_WORDS = (20, 60, 180)
"""Plans of these many words share packs with the measured one."""
COPIES = 8


@dataclass(frozen=True, kw_only=True)
class Case:
    """A sequence to measure, and others that share its prefix."""

    measured: LabeledSequence
    fillers: list[LabeledSequence]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Noise of scoring by precision.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="Hugging Face folder of a chat model, scored on --dataset")
    source.add_argument("--random_qwen2", choices=SHAPES, help="shape of a Qwen2 with random weights")
    parser.add_argument("--dataset", type=Path, default=Path("setup_data/sample/story_dataset_train.jsonl"))
    parser.add_argument("--trust_remote_code", action="store_true", help="run Python code that --model brings")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--precision", nargs="+", choices=("bf16", "tf32", "fp32"), default=["bf16", "fp32"])
    parser.add_argument("--prefix", type=int, default=8192, help="random tokens that a row's sequences share")
    parser.add_argument("--segment", type=int, default=1024, help="random tokens of each sequence")
    parser.add_argument("--pack_tokens", type=int, default=32_768)
    parser.add_argument("--eps", type=float, nargs="+", default=[1e-9, 1e-6, 1e-5, 1e-4, 1e-3])
    add_prompt_arguments(parser)
    return parser.parse_args(argv)


def real_cases(args: argparse.Namespace) -> list[Case]:
    """The planned conversations of a dataset's first rows; the fillers' plans are the first words of the gold text."""
    tokenizer = get_tokenizer(args.model, trust_remote_code=args.trust_remote_code)
    prompts = plan_prompts(prompt_settings_from(args).to_dict())
    cases = []
    for row in read_rows(args.dataset)[: args.rows]:
        words = row.datapoint["next_chapter"].split()
        plans = ["", *(" ".join(words[:count]) for count in FILLER_WORDS)]
        measured, *fillers = [planned_sequence(tokenizer, prompts, row.datapoint, plan) for plan in plans]
        cases.append(Case(measured=measured, fillers=fillers))
    return cases


def random_cases(args: argparse.Namespace) -> list[Case]:
    """Random tokens; the last half of each segment is labels."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(0, SHAPES[args.random_qwen2][-1], (count,), generator=generator).tolist()

    cases = []
    for _ in range(args.rows):
        prefix, label_start = tokens(args.prefix), args.prefix + args.segment // 2
        lengths = [args.segment, *(args.segment + count for count in FILLER_WORDS)]
        measured, *fillers = [
            LabeledSequence(token_ids=prefix + tokens(length), label_start=label_start) for length in lengths
        ]
        cases.append(Case(measured=measured, fillers=fillers))
    return cases


def load(args: argparse.Namespace, precision: str) -> PreTrainedModel:
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.compiler.reset()  # what was compiled for another precision
    flash_attn = device_type() == "cuda"
    if args.model:
        config = ModelConfig(
            pretrain=args.model,
            bf16=precision == "bf16",
            tf32=precision == "tf32",
            flash_attn=flash_attn,
            trust_remote_code=args.trust_remote_code,
        )
        model = load_causal_lm(config)
    else:
        model = random_qwen2(args.random_qwen2, precision, flash_attn=flash_attn)
    nn.Module.to(model, current_device())
    model.eval()
    return model


def random_qwen2(shape: str, precision: str, *, flash_attn: bool) -> PreTrainedModel:
    """The same weights in every precision, but for their rounding."""
    layers, hidden, intermediate, heads, kv_heads, vocabulary = SHAPES[shape]
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=131_072,
        tie_word_embeddings=shape != "7b",
    )
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        config, attn_implementation="flex_attention" if flash_attn else "sdpa", dtype=torch.float32
    )
    install_logprob_head(model)
    nn.Module.to(model, torch.bfloat16 if precision == "bf16" else torch.float32)
    return model


@torch.inference_mode()
def measure(model: PreTrainedModel, cases: Sequence[Case], pack_tokens: int) -> tuple[list[list[Likelihood]], float]:
    """The likelihoods of each case's sequence in all its places, and tokens per second."""
    num_tokens = 0

    def forward(batch: SharedPrefixBatch) -> Tensor:
        nonlocal num_tokens
        num_tokens += batch.num_tokens
        return shared_prefix_logprobs(model, batch.to(current_device())).cpu()

    def score(case: Case) -> list[Likelihood]:
        packs = score_locally(forward)
        return start_repeated_scoring(packs, case.measured, case.fillers, max_pack_tokens=pack_tokens, copies=COPIES)()

    if device_type() == "cuda":
        score(cases[0])  # compiles
        num_tokens = 0
        synchronize()
    start = time.perf_counter()
    results = [score(case) for case in cases]
    synchronize()
    return results, num_tokens / (time.perf_counter() - start)


def largest_advantage(likelihoods: Sequence[Likelihood], eps: float) -> float:
    """Of `group_norm` over one pack of equal plans, whose rewards differ by noise alone."""
    rewards = torch.tensor([-likelihood.mean_nll for likelihood in likelihoods], dtype=torch.float64)
    return float(((rewards - rewards.mean()).abs() / (rewards.std() + eps)).max())


def report(precision: str, results: Sequence[Sequence[Likelihood]], speed: float, eps_values: Sequence[float]) -> str:
    spreads = [spread_pct(likelihoods) for likelihoods in results]
    copies = [spread_pct(likelihoods[-COPIES:]) for likelihoods in results]
    nlls = [[likelihood.mean_nll for likelihood in likelihoods] for likelihoods in results]
    nats = [max(values) - min(values) for values in nlls]
    peak = f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device_type() == "cuda" else ""
    advantages = ", ".join(
        f"{eps:g}: {max(largest_advantage(likelihoods[-COPIES:], eps) for likelihoods in results):.3g}"
        for eps in eps_values
    )
    return (
        f"{precision}: spread of perplexity, all places {statistics.median(spreads):.2e} % (median of rows), "
        f"{max(spreads):.2e} % (max); eight copies in one pack {max(copies):.2e} % (max); "
        f"mean NLL {max(nats):.2e} nats (max); {speed:,.0f} tokens/s{peak}\n"
        f"      largest group_norm advantage of eight copies by eps: {advantages}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    device = torch.cuda.get_device_name() if device_type() == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(json.dumps({"device": device, "torch": torch.__version__, **vars(args)}, default=str), flush=True)
    cases = real_cases(args) if args.model else random_cases(args)
    means: dict[str, list[float]] = {}
    for precision in args.precision:
        model = load(args, precision)
        if device_type() == "cuda":
            torch.cuda.reset_peak_memory_stats()
        results, speed = measure(model, cases, args.pack_tokens)
        print(report(precision, results, speed, args.eps), flush=True)
        means[precision] = [statistics.mean(score.mean_nll for score in likelihoods) for likelihoods in results]
        del model
        gc.collect()
    best = args.precision[-1]
    for precision in args.precision[:-1]:
        gap = max(abs(a - b) for a, b in zip(means[precision], means[best], strict=True))
        print(f"{precision} against {best}: mean NLL apart by up to {gap:.2e} nats")


if __name__ == "__main__":
    main()
