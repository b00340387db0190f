"""What simple plans pay: how much an empty plan, a near-empty one, ... improves the gold text's perplexity.

    python -m benchmarks.plan_worth --model models/SmolLM2-135M-Instruct               # chapters of the sample dataset
    python -m benchmarks.plan_worth --model models/SmolLM2-135M-Instruct --messages    # the same texts as messages rows

Run it at the root of the repository. An empty plan should be worth nothing, and one that says nothing about nothing.
Computes in float32; on a CPU a row takes minutes.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from openrlhf.config import ModelConfig
from openrlhf.models.actor import load_causal_lm
from openrlhf.models.logprobs import shared_prefix_logprobs
from openrlhf.models.shared_prefix import LabeledSequence, pack_shared_prefix
from openrlhf.utils.devices import current_device, device_type
from openrlhf.vr_cli.datapoints import Datapoint
from openrlhf.vr_cli.dataset import read_rows
from openrlhf.vr_cli.gold_span import tokenize_with_gold
from openrlhf.vr_cli.perplexity import Likelihood, gold_likelihoods, improvement_pct
from prompt_utils import build_baseline_messages, build_planned_messages

SAMPLE = Path("setup_data/sample")
PLANS = ("", ".", "None.", "There is no plan.")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What simple plans pay.")
    parser.add_argument("--model", required=True, help="Hugging Face folder of a chat model")
    splits = [SAMPLE / f"story_dataset_{split}.jsonl" for split in ("train", "val")]
    parser.add_argument("--dataset", type=Path, nargs="+", default=splits, help="datasets of chapters")
    parser.add_argument("--every", type=int, default=3, help="take every so many-th row")
    parser.add_argument("--messages", action="store_true", help="turn the chapters into messages rows")
    parser.add_argument("--plans", nargs="+", default=PLANS, help="plans to try beside the synopsis")
    parser.add_argument("--pack_tokens", type=int, default=3500)
    return parser.parse_args(argv)


def as_messages(chapter: Datapoint) -> Datapoint:
    """The story, the request to write what the synopsis says, and the chapter."""
    header, synopsis = chapter["next_chapter_header"].strip(), chapter["next_chapter_synopsis"].strip()
    ask = f"Write the next chapter. Its heading is {header!r}, and this happens in it: {synopsis}"
    return {
        "messages": [
            {"role": "user", "content": f"{chapter['story_text'].strip()}\n\n{ask}"},
            {"role": "assistant", "content": chapter["next_chapter"].strip()},
        ]
    }


@torch.inference_mode()
def improvements(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, row: Datapoint, plans: Sequence[str], pack_tokens: int
) -> list[float]:
    """The improvement of each plan, in percent."""
    conversations = [build_baseline_messages(row), *(build_planned_messages(row, plan) for plan in plans)]
    sequences = []
    for messages in conversations:
        text = tokenize_with_gold(tokenizer, messages)
        sequences.append(LabeledSequence(token_ids=text.token_ids, label_start=text.gold_start))
    scores: list[Likelihood] = []
    for batch in pack_shared_prefix(sequences, max_tokens=pack_tokens):
        on_device = batch.to(current_device())
        scores += gold_likelihoods(on_device, shared_prefix_logprobs(model, on_device))
    baseline, *planned = scores
    return [improvement_pct(baseline, score) for score in planned]


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model: nn.Module = load_causal_lm(ModelConfig(pretrain=args.model, flash_attn=device_type() == "cuda"))
    model.to(current_device()).eval()
    chapters = [row.datapoint for path in args.dataset for row in read_rows(path)][:: args.every]
    worth: dict[str, list[float]] = {}
    for chapter in tqdm(chapters, desc="rows"):
        row = as_messages(chapter) if args.messages else chapter
        plans = {**{repr(plan): plan for plan in args.plans}, "the synopsis": chapter["next_chapter_synopsis"].strip()}
        found = improvements(model, tokenizer, row, list(plans.values()), args.pack_tokens)
        for name, value in zip(plans, found, strict=True):
            worth.setdefault(name, []).append(value)
    for name, values in worth.items():
        print(f"{name:20} {statistics.median(values):+8.3f} %   {min(values):+.3f} to {max(values):+.3f}")


if __name__ == "__main__":
    main()
