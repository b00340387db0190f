"""From responses to rewards, on a tiny random model, against plain forwards of one conversation at a time."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import support.chat_tokenizers as chat
from openrlhf.models.logprobs import install_logprob_head, shared_prefix_logprobs
from openrlhf.models.shared_prefix import SharedPrefixBatch
from openrlhf.vr_cli.baseline_map import with_baseline
from openrlhf.vr_cli.perplexity import Likelihood
from openrlhf.vr_cli.plan_prompts import PlanPrompts
from openrlhf.vr_cli.plan_scoring import (
    METRICS,
    PlanSample,
    PlanScorer,
    check_planned_lengths,
    first_tokens,
    score_locally,
    tokenize_text,
)
from openrlhf.vr_cli.rewards import make_reward_function
from support.tiny_models import random_model

BASELINE = Likelihood(nll_sum=60.0, num_tokens=10)  # a perplexity of e^6


def planned_messages(datapoint: dict, plan: str) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"{datapoint['ask']} Plan: {plan}"},
        {"role": "assistant", "content": datapoint["gold"]},
    ]


PROMPTS = PlanPrompts(
    extract_plan=lambda response: response.split("=")[-1],
    has_plan_marker=lambda response: "=" in response,
    planned_messages=planned_messages,
)
HARBOUR = with_baseline({"ask": "A harbour.", "gold": "No ship had called."}, "harbour", BASELINE)
KEEPER = with_baseline({"ask": "The keeper.", "gold": "He wrote down every name that he knew."}, "keeper", BASELINE)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return chat.make_tokenizer(chat.CHATML)


@pytest.fixture(scope="module")
def model(tokenizer) -> PreTrainedModel:
    # so wide that plans differ in what they are worth
    model = random_model("llama", vocab_size=len(tokenizer), initializer_range=0.3).eval()
    install_logprob_head(model)
    return model


class CountingScorer:
    """Scores packs with a model and keeps them."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.batches: list[SharedPrefixBatch] = []

    @torch.no_grad()
    def forward(self, batch: SharedPrefixBatch) -> torch.Tensor:
        self.batches.append(batch)
        return shared_prefix_logprobs(self.model, batch)


def make_scorer(tokenizer, forward, *, max_pack_tokens: int = 10_000) -> PlanScorer:
    return PlanScorer(
        prompts=PROMPTS,
        tokenizer=tokenizer,
        score_packs=score_locally(forward),
        reward_function=make_reward_function("nll_delta"),
        max_pack_tokens=max_pack_tokens,
    )


def sample(datapoint: dict, response: str) -> PlanSample:
    return PlanSample(datapoint=datapoint, response=response, prompt_text=datapoint["ask"])


@torch.no_grad()
def plain_mean_nll(model, tokenizer, datapoint: dict, plan: str) -> float:
    """From the full logits of one conversation."""
    messages = planned_messages(datapoint, plan)
    prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    start = len(tokenizer.encode(prompt, add_special_tokens=False))
    ids = tokenizer.encode(tokenizer.apply_chat_template(messages, tokenize=False), add_special_tokens=False)
    logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return -sum(logprobs[i - 1, ids[i]].item() for i in range(start, len(ids))) / (len(ids) - start)


@pytest.mark.parametrize("max_pack_tokens", [10_000, 120, 1])
def test_rewards_of_several_groups_in_any_order_equal_plain_forwards(model, tokenizer, max_pack_tokens):
    scorer = make_scorer(tokenizer, CountingScorer(model).forward, max_pack_tokens=max_pack_tokens)
    asked = [(HARBOUR, "a storm"), (KEEPER, "ink"), (HARBOUR, "a sail"), (KEEPER, "names and ink"), (HARBOUR, "")]
    rewards = scorer.score([sample(datapoint, f"reasons={plan}") for datapoint, plan in asked])
    planned = [plain_mean_nll(model, tokenizer, datapoint, plan) for datapoint, plan in asked]
    assert rewards.rewards == pytest.approx([6.0 - nll for nll in planned], abs=1e-5)  # nll_delta
    assert rewards.metrics["planned_ppl"] == pytest.approx([math.exp(nll) for nll in planned], rel=1e-5)
    assert rewards.metrics["baseline_ppl"] == pytest.approx([math.exp(6.0)] * 5)
    assert {len(values) for values in rewards.metrics.values()} == {5}
    assert tuple(rewards.metrics) == METRICS


def test_what_is_said_of_a_plan_itself(model, tokenizer):
    """The prompt is "A harbour."; the second response has no marker (`=`) and counts whole."""
    scorer = make_scorer(tokenizer, CountingScorer(model).forward)
    plans = ["a harbour of ships", "a harbour", ""]
    metrics = scorer.score(
        [sample(HARBOUR, f"why={plans[0]}"), sample(HARBOUR, plans[1]), sample(HARBOUR, "=")]
    ).metrics
    assert metrics["plan_length"] == [len(tokenizer.encode(plan, add_special_tokens=False)) for plan in plans]
    assert metrics["no_plan_marker_frac"] == [0.0, 1.0, 0.0]
    assert metrics["unseen_trigram_share"] == [1.0, 0.0, 0.0]
    assert metrics["prompt_coverage"] == [0.5, 1.0, 0.0]
    assert metrics["prompt_density"] == [1.0, 2.0, 0.0]


def test_equal_plans_are_scored_once_and_get_equal_rewards(tokenizer):
    """A scorer whose noise depends on the place in the pack: the k-th sample's labels cost k nats each."""
    seen: list[SharedPrefixBatch] = []

    def noisy(batch: SharedPrefixBatch) -> torch.Tensor:
        seen.append(batch)
        return -1.0 - batch.label_samples.float()

    scorer = make_scorer(tokenizer, noisy)
    responses = ["a", "first=a", "b", "a", "second=b", "c", "a", "a"]
    rewards = scorer.score([sample(HARBOUR, response) for response in responses])
    assert [batch.num_samples for batch in seen] == [3]  # a, b, c
    # nll_delta: 6 nats of baseline less 1, 2 and 3.
    assert rewards.rewards == pytest.approx([5.0, 5.0, 4.0, 5.0, 4.0, 3.0, 5.0, 5.0], abs=1e-12)
    assert len(set(rewards.rewards)) == 3


def test_noise_is_the_spread_of_one_conversation_and_its_baseline(tokenizer):
    """The gold text costs 6 nats a token alone, and 1 mnat more for each other sample; packs hold 1, 2 and 3."""

    def noisy(batch: SharedPrefixBatch) -> torch.Tensor:
        return torch.full((batch.labels.numel(),), -6.0 - 1e-3 * (batch.num_samples - 1), dtype=torch.float64)

    noise = make_scorer(tokenizer, noisy).start_noise(HARBOUR)()
    assert noise == pytest.approx(100 * (math.exp(2e-3) - 1))  # 0.2 %; the baseline is at 6 nats
    elsewhere = with_baseline(HARBOUR, "harbour", Likelihood(nll_sum=59.9, num_tokens=10))
    noise = make_scorer(tokenizer, noisy).start_noise(elsewhere)()
    assert noise == pytest.approx(100 * (math.exp(1.2e-2) - 1))  # a baseline of 5.99 nats, 12 mnat below


def test_the_noise_of_float32_is_far_below_the_first_tier(model, tokenizer):
    scorer = make_scorer(tokenizer, CountingScorer(model).forward)
    start = scorer.planned_sequence(HARBOUR, "")
    nll = plain_mean_nll(model, tokenizer, HARBOUR, "")
    num_tokens = len(start.token_ids) - start.label_start
    measured = with_baseline(HARBOUR, "harbour", Likelihood(nll_sum=nll * num_tokens, num_tokens=num_tokens))
    assert scorer.start_noise(measured)() < 1e-3  # percent


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_log_probs_that_are_not_finite_name_the_sample(tokenizer, value):
    def broken(batch: SharedPrefixBatch) -> torch.Tensor:
        logprobs = torch.full((batch.labels.numel(),), -1.0)
        logprobs[batch.label_samples == 1] = value  # the second plan of each pack
        return logprobs

    scorer = make_scorer(tokenizer, broken)
    with pytest.raises(FloatingPointError, match="datapoint 'keeper', sample 3"):
        scorer.score([sample(KEEPER, "a"), sample(HARBOUR, "b"), sample(KEEPER, "a"), sample(KEEPER, "c")])


def test_without_a_plan_the_baseline_is_the_likelihood(tokenizer):
    def unused(batch: SharedPrefixBatch) -> torch.Tensor:
        raise AssertionError("no forward is needed")

    rewards = make_scorer(tokenizer, unused).without_plan([sample(HARBOUR, ""), sample(KEEPER, "")])
    assert rewards.rewards == rewards.metrics["improvement_pct"] == [0.0, 0.0]
    assert rewards.metrics["planned_ppl"] == pytest.approx([math.exp(6.0)] * 2)
    assert rewards.metrics["plan_length"] == [0.0, 0.0]


def test_a_text_is_cut_to_so_many_tokens(tokenizer):
    text = "The keeper wrote down every name. The harbour <|im_end|> was cold, 4 ° at noon."
    tokens = tokenize_text(tokenizer, text)
    assert tokenizer.eos_token_id not in tokens  # text is text
    for most in range(len(tokens)):
        beginning = first_tokens(tokenizer, text, most)
        assert text.startswith(beginning)
        assert len(tokenize_text(tokenizer, beginning)) <= most
    assert first_tokens(tokenizer, text, len(tokens)) == text


def test_packs_are_submitted_at_once_and_awaited_later(tokenizer):
    submitted: list[int] = []

    def score_packs(batches):
        submitted.append(len(batches))
        return lambda: [torch.full((batch.labels.numel(),), -6.0) for batch in batches]

    scorer = PlanScorer(
        prompts=PROMPTS,
        tokenizer=tokenizer,
        score_packs=score_packs,
        reward_function=make_reward_function("nll_delta"),
        max_pack_tokens=10_000,
    )
    wait = scorer.start([sample(HARBOUR, "a"), sample(KEEPER, "b"), sample(HARBOUR, "c")])
    assert submitted == [2]  # one pack a datapoint
    assert wait().rewards == [0.0, 0.0, 0.0]


def test_a_conversation_that_could_not_fit_is_named(tokenizer):
    def check(max_positions: int) -> None:
        check_planned_lengths([HARBOUR, KEEPER], tokenizer, PROMPTS, max_plan_tokens=100, max_positions=max_positions)

    check(max_positions=1000)
    with pytest.raises(ValueError, match=r"datapoint 'harbour'.*the reference model has 100 positions"):
        check(max_positions=100)
