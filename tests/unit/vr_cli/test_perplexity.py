"""Likelihood, perplexity and improvement, by hand and against plain `transformers`."""

from __future__ import annotations

import math

import pytest
import torch

from openrlhf.models.logprobs import install_logprob_head, shared_prefix_logprobs
from openrlhf.models.shared_prefix import LabeledSequence, pack_shared_prefix
from openrlhf.vr_cli.perplexity import Likelihood, gold_likelihoods, improvement_pct
from support.tiny_models import random_model


def likelihood_of_ppl(perplexity: float, num_tokens: int = 2) -> Likelihood:
    return Likelihood(nll_sum=num_tokens * math.log(perplexity), num_tokens=num_tokens)


def test_perplexity_is_exp_of_the_mean_nll():
    # Probabilities 1/2 and 1/8: sum of NLL = ln 16 over 2 tokens, so the perplexity is sqrt(16) = 4.
    likelihood = Likelihood(nll_sum=math.log(16), num_tokens=2)
    assert likelihood.mean_nll == pytest.approx(math.log(4))
    assert likelihood.perplexity == pytest.approx(4.0)


def test_improvement_is_relative_to_the_baseline():
    assert improvement_pct(likelihood_of_ppl(4), likelihood_of_ppl(3)) == pytest.approx(25.0)  # 100 * (4 - 3) / 4
    assert improvement_pct(likelihood_of_ppl(4), likelihood_of_ppl(5)) == pytest.approx(-25.0)
    assert improvement_pct(likelihood_of_ppl(4), likelihood_of_ppl(4, num_tokens=7)) == pytest.approx(0.0)


@pytest.mark.parametrize("nll_sum", [math.nan, math.inf, -math.inf, 1e6])
def test_broken_likelihoods_are_errors(nll_sum):
    with pytest.raises(ValueError, match="broken"):
        Likelihood(nll_sum=nll_sum, num_tokens=3)


def test_likelihood_needs_a_token():
    with pytest.raises(ValueError, match="at least one token"):
        Likelihood(nll_sum=0.0, num_tokens=0)


def test_gold_likelihoods_sum_each_samples_own_labels():
    sequences = [
        LabeledSequence(token_ids=[1, 2, 3, 4], label_start=2),
        LabeledSequence(token_ids=[1, 9], label_start=1),
    ]
    (batch,) = pack_shared_prefix(sequences, max_tokens=100)
    first, second = gold_likelihoods(batch, torch.tensor([-0.5, -1.0, -3.0]))
    assert (first.nll_sum, first.num_tokens) == (1.5, 2)
    assert (second.nll_sum, second.num_tokens) == (3.0, 1)


def test_sums_are_exact_where_float32_is_not():
    # 2^24 + 1 = 2^24 in float32. 2^24 nats over 30,000 tokens keep the mean below the limit.
    length = 30_000
    (batch,) = pack_shared_prefix([LabeledSequence(token_ids=[0] * (length + 1), label_start=1)], max_tokens=1)
    logprobs = torch.full((length,), -1.0)
    logprobs[0] = -(2.0**24)
    assert gold_likelihoods(batch, logprobs)[0].nll_sum == 2**24 + length - 1


def test_packed_likelihoods_equal_plain_forwards():
    model = random_model("llama", vocab_size=50).eval()
    sequences = [
        LabeledSequence(token_ids=[5, 6, 7, 8, 9, 10, 11], label_start=4),
        LabeledSequence(token_ids=[5, 6, 7, 20, 21, 22], label_start=5),
    ]
    expected = [plain_likelihood(model, sequence) for sequence in sequences]
    install_logprob_head(model)
    (batch,) = pack_shared_prefix(sequences, max_tokens=100)
    with torch.no_grad():
        found = gold_likelihoods(batch, shared_prefix_logprobs(model, batch))
    for mine, plain in zip(found, expected, strict=True):
        assert mine.num_tokens == plain.num_tokens
        assert mine.perplexity == pytest.approx(plain.perplexity, rel=1e-5)


@torch.no_grad()
def plain_likelihood(model, sequence: LabeledSequence) -> Likelihood:
    """From the full logits of one unpacked forward: token t is predicted by the logits at t - 1."""
    logprobs = model(torch.tensor([sequence.token_ids])).logits[0].log_softmax(-1)  # (T, V)
    positions = range(sequence.label_start, len(sequence.token_ids))
    nll_sum = -sum(logprobs[t - 1, sequence.token_ids[t]].item() for t in positions)
    return Likelihood(nll_sum=nll_sum, num_tokens=len(positions))
