"""Token budgets that fall where memory runs out."""

from __future__ import annotations

import pytest

from openrlhf.errors import UserError
from openrlhf.models.shared_prefix import LabeledSequence, SharedPrefixBatch, pack_shared_prefix
from openrlhf.trainer.ppo_utils.pack_budget import PackBudget, TooBig


def pack(*lengths: int) -> SharedPrefixBatch:
    """A prefix of 10 tokens and one segment of each length."""
    sequences = [LabeledSequence(token_ids=[*range(10), *range(50, 50 + n)], label_start=10) for n in lengths]
    sequences = [*sequences, LabeledSequence(token_ids=[*range(10), 99], label_start=10)]  # the prefix ends at 10
    (batch,) = pack_shared_prefix(sequences, max_tokens=1000)
    return batch


def test_the_budget_falls_to_the_larger_half_of_the_smallest_pack_that_failed(caplog):
    # 10 + 20 + 4 + 1 = 35 tokens; its first half has the samples of 20 and 4: 34 tokens
    # 10 + 5 + 6 + 1 = 22 tokens; halves of 10 + 5 + 6 = 21 and 11
    budget = PackBudget(100, kind="training", remedy="buy memory")
    assert TooBig.of(pack(20, 4)) == TooBig(num_tokens=35, num_samples=3, half_tokens=34)
    assert budget.lower([TooBig.of(pack(20, 4)), TooBig.of(pack(5, 6))], together=False)
    assert budget.tokens == 21
    assert "out of memory at a training pack of 22 tokens" in caplog.text
    assert "hold at most 21 tokens from here on (100 before)" in caplog.text


def test_without_a_failure_nothing_changes():
    budget = PackBudget(100, kind="training", remedy="")
    assert not budget.lower([], together=False)
    assert budget.tokens == 100


def test_a_single_sequence_is_refused_with_what_helps():
    budget = PackBudget(100, kind="scoring", remedy="buy memory")
    alone, _ = pack(20).halved()
    with pytest.raises(UserError, match="a scoring pack of a single sequence, 30 tokens, does not fit; buy memory"):
        budget.lower([TooBig.of(pack(5, 6)), TooBig.of(alone)], together=False)
