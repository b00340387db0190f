"""Dataset -> RL prompts: `N_{train,val,test}.jsonl` -> `D/{train,val,test}.jsonl`, one prompt a datapoint.

    python setup_rl_data.py --tokenizer_name Qwen/Qwen2.5-7B-Instruct-1M --data_dir rl_data --dataset_name story_dataset

Reads the dataset from the current folder (or `--dataset_dir`), checks every row, drops what the filters exclude and
writes `{"prompt": [messages], "datapoint_id": "..."}` rows. The filters are the paper's; `--no_filter` keeps all rows.
Chapter filters concern chapters only: a `messages` row, whose gold text may be a single line, is only ever dropped for
a prompt that is too long. A chapter without `chapter_index` is not dropped for its index.

The tokenizer serves to check that its chat template gives a gold span for every row, and to count tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from openrlhf.cli.command import files_are_the_users, run_command
from openrlhf.datasets.chat import tokenize_prompt
from openrlhf.errors import UserError
from openrlhf.utils.atomic_io import atomic_write
from openrlhf.utils.logging import init_logger
from openrlhf.utils.progress import bars_wanted
from openrlhf.utils.tokenizer import get_tokenizer
from openrlhf.vr_cli.dataset import SPLITS, Filters, Row, add_filter_arguments, filters_from, index_by_key, read_dataset
from openrlhf.vr_cli.gold_span import tokenize_with_gold
from prompt_utils import (
    PromptSettings,
    add_prompt_arguments,
    build_baseline_messages,
    build_reasoning_messages,
    prompt_settings_from,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = init_logger("setup_rl_data")


@dataclass(frozen=True, kw_only=True)
class SplitPrompts:
    """The prompts of one split, and what there is to report about them."""

    rows: list[dict]
    sources: list[Row]
    """Of each prompt, the dataset row."""
    dropped: Counter[str]
    """Reason -> rows."""
    prompt_tokens: list[int]
    gold_tokens: list[int]


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)

    def body() -> None:
        with files_are_the_users():
            print(run(args))

    return run_command(body)


def run(args: argparse.Namespace) -> str:
    """Everything is checked before anything is written. Returns the report."""
    filters, settings = filters_from(args), prompt_settings_from(args)
    rows_by_split = read_dataset(args.dataset_dir, args.dataset_name)
    tokenizer = get_tokenizer(args.tokenizer_name, trust_remote_code=args.trust_remote_code)
    prompts = {split: make_prompts(rows, tokenizer, settings, filters) for split, rows in rows_by_split.items()}
    if not any(split.rows for split in prompts.values()):
        raise UserError(f"the filters drop every row ({drop_report(prompts)}); relax them, or pass --no_filter")
    index_by_key([row for split in prompts.values() for row in split.sources])  # what the next command would refuse
    write_prompts(prompts, args.data_dir)
    return report(prompts, args.data_dir)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Turn a dataset into RL prompts.")
    parser.add_argument("--tokenizer_name", required=True, help="Hugging Face folder or hub id")
    parser.add_argument(
        "--data_dir", type=Path, default=Path("rl_data"), help="where the prompts go (default: rl_data)"
    )
    parser.add_argument("--dataset_name", default="story_dataset", help="files are NAME_{train,val,test}.jsonl")
    parser.add_argument("--dataset_dir", type=Path, default=Path("."), help="where the dataset lies (default: here)")
    parser.add_argument("--trust_remote_code", action="store_true", help="run Python code that the tokenizer brings")
    add_filter_arguments(parser)
    add_prompt_arguments(parser)
    return parser.parse_args(argv)


def make_prompts(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, settings: PromptSettings, filters: Filters | None
) -> SplitPrompts:
    """Raises UserError, naming the row, where the tokenizer's chat template cannot render it."""
    split = SplitPrompts(rows=[], sources=[], dropped=Counter(), prompt_tokens=[], gold_tokens=[])
    for row in tqdm(rows, desc=rows[0].path.name if rows else "", unit="row", disable=not bars_wanted()):
        prompt = build_reasoning_messages(row.datapoint, settings)
        reason = filters and filters.reason_to_drop(row.datapoint, prompt)
        if reason:
            split.dropped[reason] += 1
            continue
        try:
            num_prompt_tokens = len(tokenize_prompt(tokenizer, prompt))
            gold = tokenize_with_gold(tokenizer, build_baseline_messages(row.datapoint, settings))
        except UserError as error:
            raise UserError(f"{row.where}: {error}") from error
        split.rows.append({"prompt": prompt, "datapoint_id": row.datapoint_id})
        split.sources.append(row)
        split.prompt_tokens.append(num_prompt_tokens)
        split.gold_tokens.append(gold.num_gold_tokens)
    return split


def write_prompts(prompts: dict[str, SplitPrompts], data_dir: Path) -> None:
    """Writes every split, or none. A split that the dataset no longer has is set aside, so that no run takes it."""
    with ExitStack() as stack:
        files = {split: stack.enter_context(atomic_write(data_dir / f"{split}.jsonl")) for split in prompts}
        for split, file in files.items():
            for row in prompts[split].rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    for split in set(SPLITS) - prompts.keys():
        stale = data_dir / f"{split}.jsonl"
        if stale.is_file():
            logger.warning(
                "%s is of an earlier dataset, this one has no %s split: renamed to %s.previous", stale, split, stale
            )
            stale.replace(f"{stale}.previous")


def report(prompts: dict[str, SplitPrompts], data_dir: Path) -> str:
    """The table that the command prints: rows and token counts by split, and what was dropped."""
    header = f"{'split':<6} {'rows':>7} {'dropped':>8}   {'prompt tokens':^31}   {'gold tokens':^31}"
    columns = "".join(f"{name:>7} " for name in ("min", "median", "p95", "max"))
    lines = [header, f"{'':<23}   {columns}   {columns}".rstrip()]
    for split, result in prompts.items():
        counts = f"{split:<6} {len(result.rows):>7,} {result.dropped.total():>8,}"
        lines.append(f"{counts}   {_summary(result.prompt_tokens)}   {_summary(result.gold_tokens)}".rstrip())
    lines += ["", f"dropped: {drop_report(prompts)}", f"prompts: {data_dir.resolve()}"]
    return "\n".join(lines)


def drop_report(prompts: dict[str, SplitPrompts]) -> str:
    total: Counter[str] = Counter()
    for result in prompts.values():
        total.update(result.dropped)
    return ", ".join(f"{count:,} {reason}" for reason, count in total.most_common()) or "none"


def _summary(values: Sequence[int]) -> str:
    """Minimum, median, 95th percentile (nearest rank) and maximum in four columns."""
    if not values:
        return "".join(f"{'-':>7} " for _ in range(4))
    ordered = sorted(values)
    p95 = ordered[-(-95 * len(ordered) // 100) - 1]
    return "".join(f"{number:>7,.0f} " for number in (ordered[0], statistics.median(ordered), p95, ordered[-1]))


if __name__ == "__main__":
    sys.exit(main())
