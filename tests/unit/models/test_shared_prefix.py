"""Shared-prefix batches: the layout by hand, and packed = one by one for values and gradients."""

import shutil
from functools import partial

import pytest
import torch

from openrlhf.models import logprobs as logprobs_module
from openrlhf.models.attention import attention_mask, block_visibility, dense_mask, flex_block_mask
from openrlhf.models.logprobs import install_logprob_head, shared_prefix_logprobs
from openrlhf.models.shared_prefix import LabeledSequence, SharedPrefixBatch, pack_shared_prefix
from support.tiny_models import random_model

MODELS = {
    "qwen2_tied": partial(random_model, "qwen2", vocab_size=61, num_attention_heads=4, tie_word_embeddings=True),
    "qwen2_untied": partial(random_model, "qwen2", vocab_size=61, num_attention_heads=4),
    "llama": partial(random_model, "llama", vocab_size=61, num_attention_heads=4),
}


def make_model(name: str):
    model = MODELS[name]()
    install_logprob_head(model)
    return model


def group(seed: int = 0) -> list[LabeledSequence]:
    """Four sequences behind a prefix of 20: the labels start at, right after, or well behind its end."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> list[int]:
        return torch.randint(0, 61, (count,), generator=generator).tolist()

    prefix = tokens(20)
    return [
        LabeledSequence(token_ids=prefix + [1] + tokens(4), label_start=20),
        LabeledSequence(token_ids=prefix + [2] + tokens(9), label_start=25),
        LabeledSequence(token_ids=prefix + [3], label_start=20),
        LabeledSequence(token_ids=prefix + [4] + tokens(2), label_start=21),
    ]


def test_layout_of_two_segments():
    #  token     7 8 | 1 2 | 3 4 5        labels: 2 (of the first), 4 5 (of the second)
    #  index     0 1   2 3   4 5 6
    #  predicted by      2     4 5
    sequences = [
        LabeledSequence(token_ids=[7, 8, 1, 2], label_start=3),
        LabeledSequence(token_ids=[7, 8, 3, 4, 5], label_start=3),
    ]
    (batch,) = pack_shared_prefix(sequences, max_tokens=100)
    assert batch.input_ids.tolist() == [7, 8, 1, 2, 3, 4, 5]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 2, 3, 4]
    assert batch.segment_ids.tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert batch.label_positions.tolist() == [2, 4, 5]
    assert batch.labels.tolist() == [2, 4, 5]
    assert batch.label_samples.tolist() == [0, 1, 1]
    assert batch.sum_per_sample(torch.tensor([1.0, 10.0, 100.0])).tolist() == [1.0, 110.0]


def test_first_label_is_predicted_by_the_last_prefix_token():
    sequences = [LabeledSequence(token_ids=[7, 8, token], label_start=2) for token in (1, 2)]
    (batch,) = pack_shared_prefix(sequences, max_tokens=100)
    assert batch.label_positions.tolist() == [1, 1]
    assert batch.labels.tolist() == [1, 2]


def test_mask_by_hand():
    #  segments 0 1 1 2 -1 (padding): rows are queries
    expected = [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 0, 1],
    ]
    assert dense_mask(torch.tensor([0, 1, 1, 2, -1]))[0, 0].int().tolist() == expected


def test_one_segment_needs_no_mask():
    (batch,) = pack_shared_prefix(group()[:1], max_tokens=100)
    assert attention_mask(batch, "sdpa") is None


def test_identical_sequences_keep_their_labels_out_of_the_prefix():
    sequence = LabeledSequence(token_ids=[5, 6, 7, 8], label_start=2)
    (batch,) = pack_shared_prefix([sequence, sequence], max_tokens=100)
    assert batch.segment_ids.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("max_tokens", "expected"), [(1000, [(0, 1, 2, 3)]), (35, [(0, 1), (2, 3)]), (1, [(0,), (1,), (2,), (3,)])]
)
def test_token_budget_splits_by_segments_and_drops_nothing(max_tokens, expected):
    # prefix 20; segments 5, 10, 1, 3: 20 + 5 + 10 = 35 fits into 35, one more token does not
    assert [batch.sample_indices for batch in pack_shared_prefix(group(), max_tokens=max_tokens)] == expected


def test_halves_by_hand():
    #  token     7 8 | 1 | 2 3 | 4 5      samples 0, 1 | 2 ; padding goes
    sequences = [
        LabeledSequence(token_ids=[7, 8, 1], label_start=2),
        LabeledSequence(token_ids=[7, 8, 2, 3], label_start=2),
        LabeledSequence(token_ids=[7, 8, 4, 5], label_start=3),
    ]
    (batch,) = pack_shared_prefix(sequences, max_tokens=100)
    left, right = batch.padded(16).halved()
    assert left.input_ids.tolist() == [7, 8, 1, 2, 3]
    assert left.label_positions.tolist() == [1, 1, 3]
    assert (left.label_samples.tolist(), left.sample_indices) == ([0, 1, 1], (0, 1))
    assert right.input_ids.tolist() == [7, 8, 4, 5]
    assert right.position_ids.tolist() == [0, 1, 2, 3]
    assert right.segment_ids.tolist() == [0, 0, 1, 1]
    assert (right.label_positions.tolist(), right.labels.tolist()) == ([2], [5])
    assert (right.label_samples.tolist(), right.sample_indices) == ([0], (2,))
    with pytest.raises(ValueError, match="a batch of 1 samples has no halves"):
        right.halved()


def test_halves_give_what_the_whole_gives():
    model = make_model("qwen2_tied")
    (batch,) = pack_shared_prefix(group(), max_tokens=100)
    with torch.no_grad():
        halves = [shared_prefix_logprobs(model, half) for half in batch.halved()]
        torch.testing.assert_close(torch.cat(halves), shared_prefix_logprobs(model, batch), rtol=0, atol=1e-6)


def test_sequences_must_share_a_token():
    sequences = [LabeledSequence(token_ids=[first, 5], label_start=1) for first in (1, 2)]
    with pytest.raises(ValueError, match="share at least their first token"):
        pack_shared_prefix(sequences, max_tokens=10)


@pytest.mark.parametrize("label_start", [0, 3])
def test_label_start_must_leave_context_and_labels(label_start):
    with pytest.raises(ValueError, match="label_start"):
        LabeledSequence(token_ids=[1, 2, 3], label_start=label_start)


def one_by_one(model, sequence: LabeledSequence, temperature: float) -> torch.Tensor:
    """Log-probs from plain logits, with nothing of ours."""
    ids = torch.tensor([sequence.token_ids])
    logits = model(ids).logits[0].float() / temperature
    targets = ids[0, sequence.label_start :]
    return logits.log_softmax(-1)[sequence.label_start - 1 : -1].gather(-1, targets[:, None]).squeeze(-1)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("max_tokens", [1000, 35])
def test_packed_equals_one_by_one(name, max_tokens, monkeypatch):
    monkeypatch.setattr(logprobs_module, "MAX_LOGITS", 61 * 3)  # three rows a chunk
    model, sequences, temperature = make_model(name), group(), 0.7
    weights = torch.linspace(-1, 1, 61)  # a loss in which every label counts differently

    def loss_of(values: torch.Tensor, sequence: LabeledSequence) -> torch.Tensor:
        return (values * weights[torch.tensor(sequence.token_ids[sequence.label_start :])]).sum()

    expected = [one_by_one(model, sequence, temperature) for sequence in sequences]
    torch.stack([loss_of(v, s) for v, s in zip(expected, sequences, strict=True)]).sum().backward()
    expected_gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()

    for batch in pack_shared_prefix(sequences, max_tokens=max_tokens):
        values = batch.split_per_sample(shared_prefix_logprobs(model, batch, temperature=temperature))
        for index, value in zip(batch.sample_indices, values, strict=True):
            torch.testing.assert_close(value, expected[index], atol=1e-5, rtol=0)
        losses = [loss_of(v, sequences[i]) for i, v in zip(batch.sample_indices, values, strict=True)]
        torch.stack(losses).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected_gradients[parameter_name], atol=1e-5, rtol=1e-4)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_entropy_is_that_of_the_whole_distribution(temperature, monkeypatch):
    """-sum p log p from plain logits, also over several chunks of the head; the log-probs stay what they are."""
    monkeypatch.setattr(logprobs_module, "MAX_LOGITS", 1000)
    model = make_model("llama")
    (batch,) = pack_shared_prefix(group(), max_tokens=1000)
    with torch.no_grad():
        both = shared_prefix_logprobs(model, batch, temperature=temperature, with_entropy=True)
        alone = shared_prefix_logprobs(model, batch, temperature=temperature)
        logprobs = torch.cat([plain_logprobs(model, sequence, temperature) for sequence in group()])  # (L, V)
    torch.testing.assert_close(both[:, 0], alone, atol=0, rtol=0)
    torch.testing.assert_close(both[:, 1], -(logprobs.exp() * logprobs).sum(-1), atol=1e-5, rtol=0)


def plain_logprobs(model, sequence: LabeledSequence, temperature: float) -> torch.Tensor:
    logits = model(torch.tensor([sequence.token_ids])).logits[0, sequence.label_start - 1 : -1]
    return (logits.float() / temperature).log_softmax(-1)


def test_compiling_the_head_changes_nothing():
    model, batches = make_model("qwen2_untied"), pack_shared_prefix(group(), max_tokens=35)
    torch.cat([shared_prefix_logprobs(model, batch) for batch in batches]).sum().backward()
    expected = model.lm_head.weight.grad.clone()
    model.zero_grad()
    install_logprob_head(model, compiled=True)
    torch.cat([shared_prefix_logprobs(model, batch) for batch in batches]).sum().backward()
    torch.testing.assert_close(model.lm_head.weight.grad, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("with_entropy", [False, True])
def test_the_compiled_head_computes_on_one_device(monkeypatch, with_entropy):
    """A tensor of the CPU among a GPU's makes torch.compile build and probe C++ code: a minute before the first step.

    The meta device stands in for the GPU.
    """
    devices: list[str] = []

    def backend(graph, inputs):
        devices.extend(value.device.type for value in inputs if isinstance(value, torch.Tensor))
        return graph.forward

    model = make_model("qwen2_untied").to("meta")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    install_logprob_head(model, compiled=True)
    hidden = torch.empty(5, model.config.hidden_size, device="meta", requires_grad=True)
    with model.lm_head.returning_logprobs(
        torch.empty(5, dtype=torch.long, device="meta"), 0.7, with_entropy=with_entropy
    ):
        model.lm_head(hidden)
    assert set(devices) == {"meta"}


def test_padding_changes_nothing():
    model, (batch,) = make_model("llama"), pack_shared_prefix(group(), max_tokens=1000)
    padded = batch.padded(64)
    assert padded.num_tokens == 64
    torch.testing.assert_close(shared_prefix_logprobs(model, padded), shared_prefix_logprobs(model, batch))


def test_empty_batch_runs_forward_and_backward():
    model = make_model("qwen2_untied")
    logprobs = shared_prefix_logprobs(model, SharedPrefixBatch.empty())
    assert logprobs.shape == (0,)
    logprobs.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_the_head_still_gives_logits():
    plain = MODELS["llama"]()
    ids = torch.tensor([[1, 2, 3]])
    expected = plain(ids).logits
    install_logprob_head(plain)
    torch.testing.assert_close(plain(ids).logits, expected)


def test_windowed_attention_is_refused():
    with pytest.raises(ValueError, match="windowed attention"):
        install_logprob_head(random_model("mistral", vocab_size=61, sliding_window=16))


@pytest.mark.parametrize(
    "lengths", [[300, 100, 100], [128, 128, 128], [1, 600, 3, 200], [700], [130, 2, 2, 2, 250, 260]]
)
def test_block_mask_equals_the_dense_mask(lengths):
    ids = [segment for segment, length in enumerate(lengths) for _ in range(length)]
    ids += [-1] * (-len(ids) % 128)
    segment_ids = torch.tensor(ids)
    dense = dense_mask(segment_ids)[0, 0]
    some, every = block_visibility(segment_ids)
    blocks = dense.unflatten(1, (-1, 128)).unflatten(0, (-1, 128)).transpose(1, 2).flatten(2)  # (N, N, 128 * 128)
    assert not (blocks.any(-1) & ~some).any()
    assert not (every & ~blocks.all(-1)).any()
    block_mask = flex_block_mask(segment_ids)
    index = torch.arange(len(ids))
    allowed = block_mask.mask_mod(torch.tensor(0), torch.tensor(0), index[:, None], index[None, :])
    assert torch.equal(allowed, dense)
    # Visited blocks, masked where they are partial, give back the dense mask.
    visited = block_mask.to_dense()[0, 0].bool()
    assert torch.equal(visited, some)


def test_flex_attention_gives_the_same_logprobs():
    """Uncompiled FlexAttention runs on the CPU, forward only."""
    model, (batch,) = make_model("llama"), pack_shared_prefix(group(), max_tokens=1000)
    expected = shared_prefix_logprobs(model, batch)
    model.set_attn_implementation("flex_attention")
    with torch.no_grad():
        torch.testing.assert_close(shared_prefix_logprobs(model, batch), expected, atol=1e-5, rtol=0)
