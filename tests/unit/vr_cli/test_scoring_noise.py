"""One sequence scored in packs of different shapes: found in every place, and how far apart its scores are."""

from __future__ import annotations

import math

import pytest
import torch

from openrlhf.models.shared_prefix import LabeledSequence
from openrlhf.vr_cli.perplexity import Likelihood
from openrlhf.vr_cli.plan_scoring import score_locally
from openrlhf.vr_cli.scoring_noise import spread_pct, start_repeated_scoring

MEASURED = LabeledSequence(token_ids=[1, 2, 3, 7, 8], label_start=3)
FILLERS = [LabeledSequence(token_ids=[1, 2, *range(10, 10 + n)], label_start=3) for n in (3, 5, 9)]


@pytest.mark.parametrize("max_pack_tokens", [1000, 12, 1])
def test_the_measured_sequence_is_found_in_all_its_places(max_pack_tokens):
    """A label's log-prob is minus its token id: 7 + 8 = 15 nats for the measured one, others for the fillers."""
    scorer = score_locally(lambda batch: -batch.labels.float())
    for copies, places in ((0, 3), (8, 5 + 8)):
        wait = start_repeated_scoring(scorer, MEASURED, FILLERS, max_pack_tokens=max_pack_tokens, copies=copies)
        assert [(score.nll_sum, score.num_tokens) for score in wait()] == [(15.0, 2)] * places


def test_noise_of_the_scorer_becomes_the_spread():
    """The scorer adds a thousandth of a nat a token for each sample in the pack: 1 to 4, so 3 mnat apart."""
    scorer = score_locally(lambda batch: torch.full((batch.labels.numel(),), -1.0 - 1e-3 * batch.num_samples))
    scores = start_repeated_scoring(scorer, MEASURED, FILLERS, max_pack_tokens=1000)()
    assert spread_pct(scores) == pytest.approx(100 * (math.exp(3e-3) - 1), rel=1e-4)  # 0.3005 %


def test_spread_is_in_percent_of_the_lowest_perplexity():
    two, three = (Likelihood(nll_sum=math.log(ppl), num_tokens=1) for ppl in (2, 3))
    assert spread_pct([two, three, two]) == pytest.approx(50.0)
    assert spread_pct([two]) == 0.0
