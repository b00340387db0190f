"""The trial that finds how many tokens a pack may hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from openrlhf.config import BatchConfig
from openrlhf.trainer.ppo_utils.pack_trial import Trial, find_pack_tokens, trial_pack


def linear(fixed: float, per_token: float) -> Callable[[int], float | None]:
    return lambda tokens: used if (used := fixed + per_token * tokens) <= 1 else None


def test_the_line_through_two_packs_says_how_far_to_go():
    # 0.1 + 0.0001 T reaches 1 at T = 9,000: 2,048 and 4,096 are tried, 8,192 too (0.9192); 16,384 would not fit.
    # The budget is 8,192 + 0.0808 / 0.0001 = 9,000, as a multiple of 512 8,704.
    tokens, trials = find_pack_tokens(linear(0.1, 1e-4), first=2048, largest=100_000)
    assert tokens == 8704
    assert [trial.tokens for trial in trials] == [2048, 4096, 8192]
    assert trials[0] == Trial(tokens=2048, used=0.1 + 1e-4 * 2048)


def test_there_is_nothing_to_find_beyond_the_largest_pack():
    tokens, trials = find_pack_tokens(linear(0.0, 1e-6), first=2048, largest=5000)
    assert (tokens, [trial.tokens for trial in trials]) == (5000, [2048, 4096, 5000])
    assert find_pack_tokens(linear(0.0, 1e-6), first=2048, largest=100)[0] == 100


def test_memory_that_grows_faster_than_the_line():
    # T squared over 8,000 squared: 2,048 and 4,096 take 0.066 and 0.262; the line says 0.655 for 8,192, which is 1.049.
    # The line is wrong then, so what has been seen to fit counts.
    tokens, trials = find_pack_tokens(lambda tokens: (tokens / 8000) ** 2, first=2048, largest=100_000)
    assert [trial.tokens for trial in trials] == [2048, 4096]
    assert tokens == 4096


@pytest.mark.parametrize("used", [None, 1.5])
def test_where_the_first_pack_does_not_fit(used: float | None):
    assert find_pack_tokens(lambda tokens: used, first=2048, largest=100_000) == (1024, [])


def test_where_the_second_pack_does_not_fit():
    tokens, trials = find_pack_tokens(lambda tokens: 0.9 if tokens == 2048 else None, first=2048, largest=100_000)
    assert (tokens, len(trials)) == (2048, 1)


def test_a_trial_pack_has_the_proportions_of_a_full_group():
    # 1,000 + 4 x 250 tokens fill 2,000: of 400 tokens each response gets an eighth
    batch = BatchConfig(
        rollout_batch_size=1, train_batch_size=1, n_samples_per_prompt=4, prompt_max_len=1000, generate_max_len=250
    )
    pack = trial_pack(400, batch, vocab_size=50)
    assert pack.num_tokens == 400
    assert pack.num_samples == 4
    assert pack.labels.numel() == 4 * 50
    assert int(pack.input_ids.max()) < 50
    assert trial_pack(3, batch, vocab_size=50).num_samples == 4  # never fewer than a token each
