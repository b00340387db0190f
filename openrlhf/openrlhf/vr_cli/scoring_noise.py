"""How far apart one and the same conversation comes out when it is scored in packs of different shapes.

A sequence's log-probs do not depend on what else is in its pack, but their last bits do: matrix products of other
shapes add up in another order. In bfloat16 that reaches the first reward tier, in float32 it is far below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from openrlhf.models.shared_prefix import LabeledSequence, SharedPrefixBatch, pack_shared_prefix
from openrlhf.vr_cli.perplexity import Likelihood, gold_likelihoods

if TYPE_CHECKING:
    from torch import Tensor

    from openrlhf.vr_cli.plan_scoring import ScorePacks


def start_repeated_scoring(
    score_packs: ScorePacks,
    measured: LabeledSequence,
    fillers: Sequence[LabeledSequence],
    *,
    max_pack_tokens: int,
    copies: int = 0,
) -> Callable[[], list[Likelihood]]:
    """Submits one sequence several times: alone, before another, and after all the others.

    Args:
        fillers: at least one other sequence that starts like `measured`; lengths of their own make for more shapes.
        copies: more places, last among them so many copies of `measured` side by side.

    Returns:
        What waits for the likelihood of `measured` in each of its places: all equal but for rounding.
    """
    packs = [
        (batch, [slot for slot, index in enumerate(batch.sample_indices) if arrangement[index] is measured])
        for arrangement in _arrangements(measured, fillers, copies)
        for batch in pack_shared_prefix(arrangement, max_tokens=max_pack_tokens)
    ]
    wait = score_packs([batch for batch, _ in packs])
    return lambda: list(_of_measured(packs, wait()))


def spread_pct(likelihoods: Sequence[Likelihood]) -> float:
    """Highest minus lowest perplexity, in percent of the lowest: by so much improvements differ without a reason."""
    perplexities = [likelihood.perplexity for likelihood in likelihoods]
    return 100.0 * (max(perplexities) - min(perplexities)) / min(perplexities)


def _arrangements(
    measured: LabeledSequence, fillers: Sequence[LabeledSequence], copies: int
) -> list[list[LabeledSequence]]:
    first, *rest = fillers
    few = [[measured], [measured, first], [*fillers, measured]]
    return [*few, [first, measured], [first, measured, *rest], [measured] * copies] if copies else few


def _of_measured(
    packs: Sequence[tuple[SharedPrefixBatch, list[int]]], logprobs: Sequence[Tensor]
) -> Iterator[Likelihood]:
    for (batch, slots), values in zip(packs, logprobs, strict=True):
        likelihoods = gold_likelihoods(batch, values)
        yield from (likelihoods[slot] for slot in slots)
