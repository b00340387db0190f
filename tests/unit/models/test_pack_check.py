"""Packs prove themselves: equal to the model's own forward, or refused, whatever the architecture."""

import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from openrlhf.config import ModelConfig
from openrlhf.errors import UserError
from openrlhf.models import pack_check
from openrlhf.models.actor import load_causal_lm
from openrlhf.models.logprobs import install_logprob_head
from openrlhf.models.noise import silence
from openrlhf.models.pack_check import check_packs, long_tokens, probe_sequences, tolerance_of
from sweep.sweep_architectures import VARIANTS, sweep_one
from sweep.tiny_architectures import tiny_model

SAMPLE = {
    # by name of a type, or of a variant: the outcome and a word of its reason
    "llama": ("equal", "nats"),
    "gpt2": ("equal", "nats"),
    "mixtral": ("equal", "nats"),
    "deepseek_v3": ("equal", "nats"),
    "gemma3, no window": ("equal", "nats"),
    "phi3, longrope": ("equal", "nats"),
    "doge, within its window": ("equal", "nats"),
    "llama, dynamic NTK": ("equal", "nats"),
    # by rule
    "gemma3": ("refused", "windowed attention"),
    "gemma4": ("refused", "windowed attention"),
    "bamba": ("refused", "layers that do not attend to tokens one by one"),
    "gemma2": ("refused", "final_logit_softcapping"),
    "bart": ("refused", "takes no position_ids"),
    "gptj": ("refused", "no sdpa attention"),
    # by the check
    "roberta": ("refused", "nats a token"),
    "doge": ("refused", "nats a token"),
    "falcon, ALiBi": ("refused", "cannot run a shared-prefix pack"),
    "xmod": ("not comparable", "language"),
}


@pytest.mark.parametrize("name", SAMPLE)
def test_sample_of_the_sweep(name):
    """The whole of it is tests/sweep/sweep_architectures.py."""
    model_type, changes = VARIANTS.get(name, (name, {}))
    outcome = sweep_one(name, model_type, **changes)
    kind, reason = SAMPLE[name]
    assert (outcome.kind, reason in outcome.detail) == (kind, True), outcome.detail


def packable(model_type: str = "qwen2", **changes: object) -> PreTrainedModel:
    model = tiny_model(model_type, **changes)
    install_logprob_head(model)
    return model


@pytest.mark.parametrize(
    ("dtype", "implementation"),
    [(torch.float32, "sdpa"), (torch.bfloat16, "sdpa"), (torch.float32, "flex_attention")],
)
def test_a_sound_model_passes_and_stays_as_it_was(dtype, implementation):
    model = packable().to(dtype)
    model.set_attn_implementation(implementation)
    model.train()
    check = check_packs(model, name="tiny")
    assert check.lengths == (40, 160, 49)
    assert max(check.gaps) < (1e-5 if dtype == torch.float32 else 0.05)
    assert model.config._attn_implementation == implementation
    assert model.training


def test_a_policy_that_is_noisy_in_training_is_refused_until_it_is_silent():
    model = packable("gpt2", resid_pdrop=0.2).train()
    with pytest.raises(UserError, match=r"policy-x \(GPT2LMHeadModel\): the log-probs of a sequence of 40 tokens"):
        check_packs(model, name="policy-x")
    silence(model)
    check_packs(model.train(), name="policy-x")
    # it goes on in the mode in which it was, or its layers would no longer checkpoint
    assert model.training
    assert all(layer.training for layer in model.transformer.h)


def test_not_a_number_is_refused():
    model = packable()
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    with pytest.raises(UserError, match="nan nats"):
        check_packs(model, name="broken")


def test_the_long_sequence_goes_past_critical_lengths_or_the_model_is_refused(monkeypatch):
    model = packable("doge", keep_window_size=200, max_position_embeddings=512)
    assert long_tokens(model, "doge") == 200 + 160
    # a window that no sequence can reach needs no look
    assert long_tokens(packable("doge", keep_window_size=512, max_position_embeddings=512), "doge") == 160
    # the machine can afford 2 * parameters * 300 operations, that is 300 tokens
    parameters = sum(p.numel() for p in model.parameters())
    monkeypatch.setitem(pack_check.MAX_FLOP, "cpu", 2 * parameters * 300)
    with pytest.raises(UserError, match=r"keep_window_size 200 .* can check 300 tokens"):
        long_tokens(model, "doge")


def test_probes_fit_the_model_and_hold_no_special_tokens():
    model = packable(max_position_embeddings=45, pad_token_id=3, eos_token_id=[4, 5], bos_token_id=6)
    sequences = probe_sequences(model.config, long_tokens(model, "tiny"))
    assert [len(sequence.token_ids) for sequence in sequences] == [40, 45, 45]
    assert not {3, 4, 5, 6} & {token for sequence in sequences for token in sequence.token_ids}
    check_packs(model, name="tiny")


def test_loading_what_has_no_such_attention_names_the_model(tmp_path: Path):
    torch.manual_seed(0)
    from transformers import GPTJForCausalLM

    from sweep.tiny_architectures import tiny_config

    GPTJForCausalLM(tiny_config("gptj")).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no sdpa attention"):
        load_causal_lm(ModelConfig(pretrain=str(tmp_path)))


def test_a_wrong_pack_is_found(monkeypatch):
    """What the check is for: a pack whose positions do not restart."""
    model = packable()
    packed = pack_check.pack_shared_prefix

    def wrong(*args, **kwargs):
        (batch,) = packed(*args, **kwargs)
        return [dataclasses.replace(batch, position_ids=torch.arange(batch.num_tokens))]

    monkeypatch.setattr(pack_check, "pack_shared_prefix", wrong)
    with pytest.raises(UserError, match="nats a token"):
        check_packs(model, name="tiny")


def test_the_tolerance_is_the_precisions():
    assert torch.get_float32_matmul_precision() == "highest"
    assert tolerance_of(torch.float32) < 0.002
    torch.set_float32_matmul_precision("high")  # as load_causal_lm does for --reference_dtype tf32
    try:
        assert tolerance_of(torch.float32) == pytest.approx(tolerance_of(torch.bfloat16) / 8)
    finally:
        torch.set_float32_matmul_precision("highest")
