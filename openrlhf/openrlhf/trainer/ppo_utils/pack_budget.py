"""How many tokens a pack may hold, and what happens where memory runs out: packs are halved, and stay smaller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch.distributed as dist

from openrlhf.errors import UserError
from openrlhf.models.shared_prefix import SharedPrefixBatch
from openrlhf.utils.deepspeed.collectives import all_gather_object
from openrlhf.utils.logging import init_logger

logger = init_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class TooBig:
    """A pack for which there was no memory."""

    num_tokens: int
    num_samples: int
    half_tokens: int
    """Tokens of the larger half of its samples; of a single sample its own."""

    @classmethod
    def of(cls, batch: SharedPrefixBatch) -> Self:
        halves = batch.halved() if batch.num_samples > 1 else (batch,)
        return cls(
            num_tokens=batch.num_tokens,
            num_samples=batch.num_samples,
            half_tokens=max(half.num_tokens for half in halves),
        )


class PackBudget:
    """The token budget of one kind of packs. Ranks lower it alike, so that they stay in step."""

    def __init__(self, tokens: int, *, kind: str, remedy: str) -> None:
        """`kind` of packs and `remedy` for a sequence that does not fit alone: words for messages."""
        self.tokens = tokens
        self._kind = kind
        self._remedy = remedy

    def lower(self, failures: Sequence[TooBig], *, together: bool) -> bool:
        """Lowers the budget to half of the smallest pack that failed; returns whether one did.

        Args:
            failures: of this rank.
            together: of all ranks, on all of them: a collective.

        Raises:
            UserError: one of them holds a single sequence.
        """
        if together:
            failures = [failure for of_rank in all_gather_object(list(failures)) for failure in of_rank]
        if not failures:
            return False
        single = next((failure for failure in failures if failure.num_samples < 2), None)
        if single is not None:
            raise UserError(
                f"out of memory: a {self._kind} pack of a single sequence, {single.num_tokens} tokens, does not fit; "
                f"{self._remedy}"
            )
        smallest = min(failures, key=lambda failure: failure.num_tokens)
        before, self.tokens = self.tokens, smallest.half_tokens
        if not together or dist.get_rank() == 0:
            logger.warning(
                "out of memory at a %s pack of %d tokens: it is split and repeated, and %s packs hold at most %d "
                "tokens from here on (%d before)",
                self._kind,
                smallest.num_tokens,
                self._kind,
                self.tokens,
                before,
            )
        return True


TRAINING_REMEDY = (
    "lower --prompt_max_len or --generate_max_len, or make room with --gradient_checkpointing, --zero_stage 3, "
    "--adam_offload or more GPUs (--actor_num_gpus_per_node)"
)
SCORING_REMEDY = (
    "lower --prompt_max_len or --generate_max_len, or make room with --zero_stage 3, --ref_reward_offload, "
    "--reference_dtype bf16 or more GPUs"
)
