"""`--pack_tokens auto`: how many tokens a pack may hold, found by packs of growing size before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from openrlhf.config import BatchConfig
from openrlhf.models.attention import FLEX_LENGTH_MULTIPLE
from openrlhf.models.shared_prefix import LabeledSequence, SharedPrefixBatch, pack_shared_prefix
from openrlhf.utils.deepspeed.collectives import all_reduce
from openrlhf.utils.deepspeed.out_of_memory import drop_gradients, in_step
from openrlhf.utils.devices import GIB, current_device, device_memory, peak_memory_bytes, reset_peak_memory
from openrlhf.utils.logging import init_logger

logger = init_logger(__name__)

FIRST_TOKENS = 2048
MARGIN = 0.1
"""Of a GPU's memory, that no pack is planned to use: for fragments, and for what grows later."""
COLOCATED_SCORING_SHARE = 0.3
"""Of what the models leave free of a GPU, for scoring where the policy trains on the same one."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One pack that was tried."""

    tokens: int
    used: float
    """Share of the room that its pass took at its peak."""


def find_pack_tokens(measure: Callable[[int], float | None], *, first: int, largest: int) -> tuple[int, list[Trial]]:
    """The most tokens that a pack may hold, at most `largest`, and what was tried.

    Packs double in size until the next one would not fit by the line through the last two. Memory grows with the tokens
    or faster, so the line is only trusted up to the double of what was seen.

    Args:
        measure: tokens of a pack -> the share of the room that it takes; None: memory ran out.
        first: tokens of the first pack.
    """
    trials: list[Trial] = []
    tokens = min(first, largest)
    while True:
        used = measure(tokens)
        if used is None or used > 1:
            return _below(trials, tokens), trials
        trials.append(Trial(tokens=tokens, used=used))
        if tokens == largest:
            return largest, trials
        following = min(2 * tokens, largest)
        affordable = following if len(trials) < 2 else _by_line(trials, following)
        if affordable < following:
            return affordable, trials
        tokens = following


def _below(trials: list[Trial], too_many: int) -> int:
    """Where `too_many` did not fit: what did, since memory grew faster than the line."""
    return trials[-1].tokens if trials else max(1, too_many // 2)


def _by_line(trials: list[Trial], most: int) -> int:
    """Tokens at which the line through the last two trials reaches the room; a multiple of what attention rounds to."""
    before, last = trials[-2:]
    slope = (last.used - before.used) / (last.tokens - before.tokens)
    if last.used + slope * (most - last.tokens) <= 1:
        return most
    affordable = last.tokens + int((1 - last.used) / slope)
    return max(last.tokens, affordable - affordable % FLEX_LENGTH_MULTIPLE)


def trial_pack(tokens: int, batch: BatchConfig, *, vocab_size: int) -> SharedPrefixBatch:
    """A pack of random tokens, in the proportions of a full group of samples behind a prompt of full length."""
    samples = batch.n_samples_per_prompt
    response = max(1, tokens * batch.generate_max_len // (batch.prompt_max_len + samples * batch.generate_max_len))
    prompt = max(1, tokens - samples * response)
    ids = torch.randint(vocab_size, (prompt + samples * response,), generator=torch.Generator().manual_seed(0)).tolist()
    starts = range(prompt, len(ids), response)
    sequences = [
        LabeledSequence(token_ids=ids[:prompt] + ids[start : start + response], label_start=prompt) for start in starts
    ]
    return pack_shared_prefix(sequences, max_tokens=len(ids))[0]


def try_packs(
    run: Callable[[SharedPrefixBatch], Any],
    *,
    engine: Any,
    batch: BatchConfig,
    vocab_size: int,
    largest: int,
    kind: str,
    share: float = 1.0,
    reserved: int = 0,
) -> int:
    """Finds the budget of one kind of packs; gradients of the trial are dropped. Collective.

    Args:
        run: a pass over a pack, as it will be run.
        engine: the model that it runs.
        largest: tokens beyond which there is nothing to pack.
        share: of the memory that is free now, for these packs.
        reserved: bytes that will be needed for something else.
    """
    free, total = device_memory()
    room = share * free - MARGIN * total - reserved
    tokens, trials = find_pack_tokens(
        lambda size: _measured(run, engine, trial_pack(size, batch, vocab_size=vocab_size), room),
        first=FIRST_TOKENS,
        largest=largest,
    )
    reset_peak_memory()
    if torch.distributed.get_rank() == 0:
        tried = ", ".join(f"{trial.tokens} tokens took {trial.used * room / GIB:.1f}" for trial in trials)
        logger.info(
            "--pack_tokens auto: %s packs of at most %d tokens; of %.1f GiB %s",
            kind,
            tokens,
            room / GIB,
            tried or "not even the first pack got what it needs",
        )
    return tokens


def _measured(
    run: Callable[[SharedPrefixBatch], Any], engine: Any, pack: SharedPrefixBatch, room: float
) -> float | None:
    """The largest share over the ranks; None where memory ran out on any."""
    reset_peak_memory()
    before = peak_memory_bytes()
    output = in_step(engine, lambda: run(pack), lambda: run(SharedPrefixBatch.empty()))
    used = (peak_memory_bytes() - before) / max(room, 1.0)
    failed = output is None
    del output
    drop_gradients(engine)
    seen = all_reduce({"used": used, "failed": float(failed)}, op="max")
    return None if seen["failed"] else seen["used"]


def pending_optimizer_bytes(engine: Any) -> int:
    """Bytes of Adam's moments on this process's device that its first step will make: torch makes them late."""
    adam = getattr(engine.optimizer, "optimizer", engine.optimizer)
    # ZeRO-3 shows Adam its parameters during a step only
    stepped = getattr(engine.optimizer, "fp32_partitioned_groups_flat", None) or [
        parameter for group in adam.param_groups for parameter in group["params"]
    ]
    here = current_device().type
    return sum(2 * p.numel() * p.element_size() for p in stepped if p.device.type == here and not adam.state.get(p))
