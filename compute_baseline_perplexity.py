"""Dataset -> baseline map: the perplexity of each gold text without any plan, under the model that will score plans.

    python compute_baseline_perplexity.py --model_name Qwen/Qwen2.5-7B-Instruct-1M --nice_model_name 7B

Scores the datapoints whose prompts `setup_rl_data.py` has put into `--data_dir` (or `--all_rows` of the dataset) and
writes `prompt_to_datapoint_with_baseline_ppl_X.pkl`, with what it was computed with: training refuses a map made by
other weights or settings of the model, with another tokenizer, in another precision or with other prompts, so give the
`--reference_dtype`, `--flash_attn` and prompt switches that it will have.

May be interrupted or killed at any time: the same command goes on from the scores kept in `<map>.scores.jsonl`. What a
finished map holds for the same model and settings is not scored again; delete the map to have it computed anew.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from tqdm import tqdm

from openrlhf.cli.command import files_are_the_users, run_command
from openrlhf.cli.machine import default_reference_dtype, driver_num_gpus
from openrlhf.config import ModelConfig, Precision
from openrlhf.errors import UserError
from openrlhf.models.limits import max_sequence_tokens
from openrlhf.utils.jsonl import read_jsonl
from openrlhf.utils.model_config import get_model_config
from openrlhf.utils.progress import bars_wanted
from openrlhf.utils.tokenizer import get_tokenizer
from openrlhf.vr_cli.baseline_map import BaselineMap, with_baseline
from openrlhf.vr_cli.dataset import SPLITS, Row, index_by_key, read_dataset
from openrlhf.vr_cli.gold_span import GoldText, tokenize_with_gold
from openrlhf.vr_cli.perplexity import Likelihood, gold_likelihoods
from openrlhf.vr_cli.provenance import Provenance
from openrlhf.vr_cli.score_log import ScoreLog, score_key
from prompt_utils import (
    PROMPT_TEMPLATE_VERSION,
    PromptSettings,
    add_prompt_arguments,
    build_baseline_messages,
    build_reasoning_messages,
    prompt_settings_from,
)

if TYPE_CHECKING:  # torch and transformers take seconds, so functions import them once the flags are checked
    from torch import nn
    from transformers import PreTrainedTokenizerBase

PACKING_WINDOW = 256
"""Conversations that are packed at a time; bounds the memory that packed batches take."""


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of loading weights; this command has a bar of its own
    map_path = args.output_dir / f"prompt_to_datapoint_with_baseline_ppl_{args.nice_model_name}.pkl"
    log_path = map_path.with_suffix(".scores.jsonl")

    def body() -> None:
        try:
            with files_are_the_users():
                print(run(args, map_path, log_path))
        except torch.OutOfMemoryError as error:
            advice = f"lower --batch_tokens. {_how_to_resume(log_path)}"
            raise UserError(f"out of memory: {error}\n{advice}") from error
        except KeyboardInterrupt:
            print(f"\n{_how_to_resume(log_path)}", file=sys.stderr)
            raise

    return run_command(body)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    without_gpu = driver_num_gpus() == 0
    parser = argparse.ArgumentParser(description="Compute the baseline perplexity of a dataset's gold texts.")
    parser.add_argument("--model_name", required=True, help="Hugging Face folder or hub id of the model to train")
    parser.add_argument("--nice_model_name", required=True, help="X in the map's name, ..._baseline_ppl_X.pkl")
    parser.add_argument("--data_dir", type=Path, default=Path("rl_data"), help="prompts to cover (default: rl_data)")
    parser.add_argument("--all_rows", action="store_true", help="cover the whole dataset instead, filtered rows too")
    parser.add_argument("--dataset_name", default="story_dataset", help="files are NAME_{train,val,test}.jsonl")
    parser.add_argument("--dataset_dir", type=Path, default=Path("."), help="where the dataset lies (default: here)")
    parser.add_argument("--output_dir", type=Path, default=Path("."), help="where the map goes (default: here)")
    parser.add_argument(
        "--reference_dtype",
        choices=get_args(Precision),
        default=default_reference_dtype(),
        help="precision of scoring, as in training (default: tf32 on a GPU, fp32 without)",
    )
    parser.add_argument(
        "--bf16",
        action="store_const",
        const="bf16",
        dest="reference_dtype",
        help="--reference_dtype bf16: faster, and noisier than the first reward tier is high",
    )
    parser.add_argument(
        "--flash_attn", action="store_true", help="FlexAttention (GPU), as in training with --flash_attn"
    )
    parser.add_argument(
        "--batch_tokens",
        type=int,
        default=1024 if without_gpu else 4096,
        help="tokens a forward; a longer text goes alone (default: 4096 on a GPU, 1024 on the CPU)",
    )
    parser.add_argument("--trust_remote_code", action="store_true", help="run Python code that the model brings")
    add_prompt_arguments(parser)
    args = parser.parse_args(argv)
    if Path(args.nice_model_name).name != args.nice_model_name:
        parser.error(f"--nice_model_name {args.nice_model_name!r} is part of a file name: it must hold no '/'")
    if args.flash_attn and without_gpu:
        parser.error("--flash_attn needs a GPU; drop it, here and in training")
    if args.reference_dtype == "tf32" and without_gpu:
        parser.error("--reference_dtype tf32 needs a GPU; pass fp32, here and in training")
    if args.batch_tokens < 1:
        parser.error("--batch_tokens must be at least 1")
    return args


def run(args: argparse.Namespace, map_path: Path, log_path: Path) -> str:
    """Everything is checked before the model loads. Returns the report."""
    check_torch_has_gpu(args)
    settings = prompt_settings_from(args)
    rows = read_rows_to_score(args, settings)
    rows_by_key = index_by_key(rows)
    tokenizer = get_tokenizer(args.model_name, trust_remote_code=args.trust_remote_code)
    texts = tokenize_rows(rows, tokenizer, settings)
    model_config = get_model_config(args.model_name, trust_remote_code=args.trust_remote_code)
    check_lengths(rows, texts, args.model_name, max_sequence_tokens(model_config))
    provenance = Provenance.of_model(
        args.model_name,
        tokenizer,
        dtype=args.reference_dtype,
        flash_attn=args.flash_attn,
        prompt_template_version=PROMPT_TEMPLATE_VERSION,
        prompt_settings=settings.to_dict(),
    )
    log = ScoreLog(log_path)
    keys = [score_key(text, provenance) for text in texts]
    known = {**scores_in_map(map_path, rows, keys, provenance), **log.scores}
    left = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if len(left) < len(texts):
        source = log_path if log.scores else map_path
        print(f"{len(texts) - len(left):,} of {len(texts):,} texts are scored already ({source})")
    model = ModelConfig(
        pretrain=args.model_name,
        bf16=args.reference_dtype == "bf16",
        tf32=args.reference_dtype == "tf32",
        flash_attn=args.flash_attn,
        trust_remote_code=args.trust_remote_code,
    )
    speed = score_texts(model, left, log, args.batch_tokens)
    known.update(log.scores)
    scores = [known[key] for key in keys]
    baselines = {row.datapoint_id: score for row, score in zip(rows, scores, strict=True)}
    by_key = {
        key: with_baseline(row.datapoint, row.datapoint_id, baselines[row.datapoint_id])
        for key, row in rows_by_key.items()
    }
    BaselineMap(by_key, provenance).save(map_path)
    log.remove()
    return report(scores, speed, map_path)


def check_torch_has_gpu(args: argparse.Namespace) -> None:
    """Raises UserError where the driver shows a GPU, or does not say, and torch cannot use one that is asked for."""
    from openrlhf.utils.devices import device_type

    if device_type() == "cpu" and (args.flash_attn or args.reference_dtype == "tf32"):
        raise UserError(
            "torch sees no GPU, which --flash_attn and --reference_dtype tf32 need (tf32 is the default where the "
            "driver shows one); install a CUDA build of torch, or pass --reference_dtype fp32 without --flash_attn"
        )


def read_rows_to_score(args: argparse.Namespace, settings: PromptSettings) -> list[Row]:
    """The dataset's rows, or those of them that are in the prompt files.

    Raises:
        UserError: bad or missing files, or prompts that were not made from this dataset with these settings.
    """
    rows_by_split = read_dataset(args.dataset_dir, args.dataset_name)
    rows = [row for split_rows in rows_by_split.values() for row in split_rows]
    if args.all_rows:
        return rows
    wanted = check_prompts(args.data_dir, {row.datapoint_id: row for row in rows}, settings)
    return [row for row in rows if row.datapoint_id in wanted]


def check_prompts(data_dir: Path, rows_by_id: Mapping[str, Row], settings: PromptSettings) -> set[str]:
    """The ids in the prompt files, each of which must be what `settings` make of its row."""
    paths = [path for split in SPLITS if (path := data_dir / f"{split}.jsonl").is_file()]
    wanted = set()
    for path in paths:
        for line, prompt in read_jsonl(path):
            where = f"{path}:{line}"
            datapoint_id = prompt.get("datapoint_id") if isinstance(prompt, dict) else None
            if not isinstance(datapoint_id, str):
                raise UserError(
                    f"{where}: field 'datapoint_id' is missing; make the prompts with setup_rl_data.py, "
                    "or pass --all_rows"
                )
            if datapoint_id not in rows_by_id:
                raise UserError(
                    f"{where}: datapoint {datapoint_id!r} is not in the dataset; give the --dataset_dir and "
                    "--dataset_name that the prompts were made from, or make them again with setup_rl_data.py"
                )
            if prompt.get("prompt") != build_reasoning_messages(rows_by_id[datapoint_id].datapoint, settings):
                raise UserError(
                    f"{where}: the prompt is not what these switches make of {rows_by_id[datapoint_id].where}; pass "
                    "the same prompt switches as to setup_rl_data.py, or run that again"
                )
            wanted.add(datapoint_id)
    if not wanted:
        raise UserError(f"no prompts in {data_dir.resolve()}: run setup_rl_data.py first, or pass --all_rows")
    return wanted


def scores_in_map(
    map_path: Path, rows: Sequence[Row], keys: Sequence[str], provenance: Provenance
) -> dict[str, Likelihood]:
    """By score key: what a finished map holds of these rows, if it was computed with the same model and settings."""
    try:
        earlier = BaselineMap.load(map_path)
    except UserError:  # none, or one that is to be replaced
        return {}
    if earlier.provenance.mismatches(provenance):
        return {}
    baselines = {key: earlier.baseline_of(row.datapoint_id, row.datapoint) for key, row in zip(keys, rows, strict=True)}
    return {key: baseline for key, baseline in baselines.items() if baseline is not None}


def tokenize_rows(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, settings: PromptSettings) -> list[GoldText]:
    """The baseline conversation of each row. Raises UserError, naming the row, where it has no gold span."""
    texts = []
    for row in tqdm(rows, desc="tokenizing", unit="row", disable=not bars_wanted()):
        try:
            texts.append(tokenize_with_gold(tokenizer, build_baseline_messages(row.datapoint, settings)))
        except UserError as error:
            raise UserError(f"{row.where}: {error}") from error
    return texts


def check_lengths(rows: Sequence[Row], texts: Sequence[GoldText], model_name: str, limit: int | None) -> None:
    """Raises UserError naming the first row that is longer than the model's context, where that has a limit."""
    for row, text in zip(rows, texts, strict=True):
        if limit is not None and len(text.token_ids) > limit:
            raise UserError(
                f"{row.where}: prompt and gold text have {len(text.token_ids):,} tokens, more than {model_name!r} can "
                f"take ({limit:,}); remove the row, or filter such prompts out with setup_rl_data.py"
            )


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How much was computed in this run, and how fast."""

    num_tokens: int
    """Prompts included."""
    seconds: float
    """Loading the model not included."""


def score_texts(config: ModelConfig, texts: Mapping[str, GoldText], log: ScoreLog, batch_tokens: int) -> Speed:
    """Scores texts by their key into the log, each batch as soon as it is done."""
    num_tokens = sum(len(text.token_ids) for text in texts.values())
    if not texts:
        return Speed(num_tokens=0, seconds=0.0)
    from openrlhf.models.actor import load_causal_lm
    from openrlhf.models.pack_check import check_packs
    from openrlhf.utils.devices import current_device

    model: nn.Module = load_causal_lm(config)
    model.to(current_device()).eval()
    check_packs(model, name=config.pretrain)
    start = time.perf_counter()
    with tqdm(total=num_tokens, desc="scoring", unit="tok", unit_scale=True, disable=not bars_wanted()) as bar:
        for batch_keys, scores in score_batches(model, texts, batch_tokens):
            log.append(dict(zip(batch_keys, scores, strict=True)))
            bar.update(sum(len(texts[key].token_ids) for key in batch_keys))
    return Speed(num_tokens=num_tokens, seconds=time.perf_counter() - start)


def score_batches(
    model: nn.Module, texts: Mapping[str, GoldText], batch_tokens: int
) -> Iterator[tuple[list[str], list[Likelihood]]]:
    """Yields keys and scores batch by batch, longest texts first: what does not fit in memory shows at once.

    A batch's texts share their first tokens as its prefix (the template's header and the preamble, or more).
    """
    import torch

    from openrlhf.models.logprobs import shared_prefix_logprobs
    from openrlhf.models.shared_prefix import LabeledSequence, pack_shared_prefix
    from openrlhf.utils.devices import current_device

    by_first_token: dict[int, list[str]] = {}
    for key in sorted(texts, key=lambda key: len(texts[key].token_ids), reverse=True):
        by_first_token.setdefault(texts[key].token_ids[0], []).append(key)
    for keys in by_first_token.values():
        for start in range(0, len(keys), PACKING_WINDOW):
            window = keys[start : start + PACKING_WINDOW]
            sequences = [
                LabeledSequence(token_ids=texts[key].token_ids, label_start=texts[key].gold_start) for key in window
            ]
            for batch in pack_shared_prefix(sequences, max_tokens=batch_tokens):
                with torch.inference_mode():
                    on_device = batch.to(current_device())
                    scores = gold_likelihoods(on_device, shared_prefix_logprobs(model, on_device))
                yield [window[index] for index in batch.sample_indices], scores


def report(scores: Sequence[Likelihood], speed: Speed, map_path: Path) -> str:
    """What the command prints at its end."""
    nll_sum = math.fsum(score.nll_sum for score in scores)
    num_tokens = sum(score.num_tokens for score in scores)
    perplexities = sorted(score.perplexity for score in scores)
    lines = [
        f"texts                {len(scores):>10,}",
        f"gold tokens          {num_tokens:>10,}",
        f"baseline perplexity  {math.exp(nll_sum / num_tokens):>10.3f}   over all gold tokens",
        f"                     {statistics.median(perplexities):>10.3f}   median text, "
        f"{perplexities[0]:.3f} to {perplexities[-1]:.3f}",
    ]
    if speed.num_tokens:
        from openrlhf.utils.devices import peak_memory_gib

        lines += [
            f"speed                {speed.num_tokens / speed.seconds:>10,.0f}   tokens/s, prompts included "
            f"({speed.seconds:,.1f} s)",
            f"peak memory          {peak_memory_gib():>10.2f}   GiB",
        ]
    return "\n".join([*lines, f"map: {map_path.resolve()}"])


def _how_to_resume(log_path: Path) -> str:
    if not log_path.exists():
        return "Nothing was scored yet."
    return f"Finished scores are kept in {log_path}: run the same command again to go on from there."


if __name__ == "__main__":
    sys.exit(main())
