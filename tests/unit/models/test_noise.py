"""Training mode computes what evaluation mode does, whatever randomness an architecture brings."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from openrlhf.config import ModelConfig
from openrlhf.models.actor import load_causal_lm
from openrlhf.models.noise import silence

SIZES = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
GPT2_SIZES = {"vocab_size": 61, "n_embd": 32, "n_layer": 3, "n_head": 4}
OPT_SIZES = {"ffn_dim": 48, "word_embed_proj_dim": 32, "pad_token_id": 0}
XGLM_SIZES = {"d_model": 32, "ffn_dim": 48, "num_layers": 3, "attention_heads": 4, "vocab_size": 61}
DBRX_SIZES = {"vocab_size": 61, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}
EXPERTS = {"num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}
NOISY: dict[str, dict[str, object]] = {
    "gpt2": {**GPT2_SIZES, "embd_pdrop": 0.5, "resid_pdrop": 0.5, "attn_pdrop": 0.5},
    "phi": {**SIZES, "embd_pdrop": 0.5, "resid_pdrop": 0.5, "attention_dropout": 0.5},
    "gpt_neox": {**SIZES, "hidden_dropout": 0.5, "attention_dropout": 0.5},
    "falcon": {**SIZES, "hidden_dropout": 0.5, "attention_dropout": 0.5},
    "stablelm": {**SIZES, "num_key_value_heads": 2, "hidden_dropout": 0.5, "attention_dropout": 0.5},
    "starcoder2": {**SIZES, "residual_dropout": 0.5, "embedding_dropout": 0.5, "attention_dropout": 0.5},
    "opt": {**SIZES, **OPT_SIZES, "dropout": 0.5, "layerdrop": 0.5},
    "biogpt": {**SIZES, "hidden_dropout_prob": 0.5, "activation_dropout": 0.5, "layerdrop": 0.5},
    "xglm": {**XGLM_SIZES, "dropout": 0.5, "activation_dropout": 0.5, "layerdrop": 0.5},
    # a configuration within the configuration, and a router that multiplies its input by noise
    "dbrx": {
        **DBRX_SIZES,
        "resid_pdrop": 0.5,
        "attn_config": {"attn_pdrop": 0.5, "kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2, "moe_jitter_eps": 0.3},
    },
    "mixtral": {**SIZES, **EXPERTS, "router_jitter_noise": 0.3},
    # in evaluation mode too its router uses the jitter, as a threshold; in training mode it samples experts
    "phimoe": {**SIZES, **EXPERTS, "router_jitter_noise": 0.3, "input_jitter_noise": 0.3},
}


def noisy_model(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **NOISY[name]))


def logits(model: nn.Module) -> Tensor:
    return model(input_ids=torch.arange(1, 25)[None], use_cache=False).logits.detach()


@pytest.mark.parametrize("name", NOISY)
def test_training_mode_computes_what_evaluation_mode_does(name):
    model = noisy_model(name)
    expected = logits(model.eval())
    assert not torch.allclose(logits(model.train()), expected, atol=1e-2), "this model has no noise to turn off"
    silence(model)
    for training in (True, False):
        assert torch.equal(logits(model.train(training)), expected)


def test_layers_train_so_that_they_can_be_checkpointed():
    model = noisy_model("mixtral")
    silence(model)
    model.train()
    assert model.training
    assert [layer.training for layer in model.model.layers] == [True, True, True]
    model.eval()
    assert not any(module.training for module in model.modules())


def test_a_loaded_model_is_silent(tmp_path: Path):
    noisy_model("starcoder2").save_pretrained(tmp_path)
    expected = logits(AutoModelForCausalLM.from_pretrained(tmp_path))
    model = load_causal_lm(ModelConfig(pretrain=str(tmp_path), gradient_checkpointing=True))
    torch.testing.assert_close(logits(model.train()), expected)
