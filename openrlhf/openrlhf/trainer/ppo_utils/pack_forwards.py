"""Forward passes over packs where memory may run out: a pack that does not fit is halved and repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from openrlhf.models.shared_prefix import SharedPrefixBatch
from openrlhf.trainer.ppo_utils.lockstep import in_lockstep
from openrlhf.trainer.ppo_utils.pack_budget import PackBudget, TooBig
from openrlhf.utils.deepspeed.collectives import all_reduce
from openrlhf.utils.deepspeed.out_of_memory import in_step

Piece = tuple[int, int, SharedPrefixBatch]
"""Index of the batch that it is of, its first sample there, and the piece itself."""


class PackForwards:
    """Runs a model without gradient over packs, in step with the other ranks where they share the model."""

    def __init__(
        self,
        forward: Callable[[SharedPrefixBatch], Tensor],
        *,
        engine: Any,
        budget: PackBudget,
        in_step_with_others: bool,
    ) -> None:
        """`forward`: batch of L labels -> (L, ...); `engine` is the model behind it."""
        self._forward = forward
        self._engine = engine
        self.budget = budget
        self._together = in_step_with_others

    @torch.no_grad()
    def run(self, batches: Sequence[SharedPrefixBatch]) -> list[Tensor]:
        """`forward` of each batch; as if there had been memory for all. Collective where ranks go in step.

        Raises:
            UserError: there is no memory for a single sequence.
        """
        results: dict[tuple[int, int], Tensor] = {}
        pieces: list[Piece] = [(index, 0, batch) for index, batch in enumerate(batches)]
        while self._anything_left(pieces):
            pieces = self._sweep([part for piece in pieces for part in self._cut(piece)], results)
        return [torch.cat([results[key] for key in sorted(results) if key[0] == i]) for i in range(len(batches))]

    def _anything_left(self, pieces: Sequence[Piece]) -> bool:
        return all_reduce(len(pieces), op="max") > 0 if self._together else bool(pieces)

    def _cut(self, piece: Piece) -> list[Piece]:
        """Halves of halves, as far as the budget asks for it."""
        index, first, batch = piece
        if batch.num_tokens <= self.budget.tokens or batch.num_samples < 2:
            return [piece]
        left, right = batch.halved()
        return [*self._cut((index, first, left)), *self._cut((index, first + left.num_samples, right))]

    def _sweep(self, pieces: Sequence[Piece], results: dict[tuple[int, int], Tensor]) -> list[Piece]:
        """One forward a piece; returns the pieces that did not fit, once the budget is lowered for them."""
        nothing: Piece = (-1, 0, SharedPrefixBatch.empty())
        failed: list[Piece] = []
        for piece in (item for item, _ in in_lockstep(pieces, nothing)) if self._together else pieces:
            index, first, batch = piece
            output = in_step(
                self._engine, partial(self._forward, batch), partial(self._forward, SharedPrefixBatch.empty())
            )
            if output is None:
                failed.append(piece)
            elif index >= 0:
                results[index, first] = output
        self.budget.lower([TooBig.of(batch) for _, _, batch in failed], together=self._together)
        return failed
