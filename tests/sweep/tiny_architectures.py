"""Builds any causal architecture that transformers knows, tiny and at random.

A configuration class says by its fields what it can be told; a field in `TINY` gets that value, a nested configuration
is made the same way. What a type needs beyond that stands in `SPECIAL`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

CAUSAL_TYPES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)

HIDDEN, HEADS, HEAD_DIM, LAYERS, VOCAB, FFN, EXPERTS = 32, 4, 8, 2, 97, 48, 4
TINY: dict[str, Any] = {
    **dict.fromkeys(["hidden_size", "n_embd", "d_model", "dim_model", "embedding_size", "word_embed_proj_dim"], HIDDEN),
    **dict.fromkeys(["backbone_hidden_size", "attention_hidden_size", "cross_attention_hidden_size"], HIDDEN),
    **dict.fromkeys(["input_embedding_size", "emb_dim", "output_dim", "embed_dim"], HIDDEN),
    **dict.fromkeys(["num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"], LAYERS),
    **dict.fromkeys(["decoder_layers", "num_encoder_layers", "num_decoder_layers", "depth"], LAYERS),
    **dict.fromkeys(["num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"], HEADS),
    **dict.fromkeys(["encoder_attention_heads", "decoder_attention_heads"], HEADS),
    **dict.fromkeys(["num_encoder_attention_heads", "num_decoder_attention_heads"], HEADS),
    **dict.fromkeys(["num_key_value_heads", "num_kv_heads"], 2),
    **dict.fromkeys(["head_dim", "kv_channels", "dim_head", "attention_head_dim"], HEAD_DIM),
    **dict.fromkeys(["vocab_size", "decoder_vocab_size", "vocab_size_per_layer_input"], VOCAB),
    **dict.fromkeys(["intermediate_size", "ffn_dim", "n_inner", "encoder_ffn_dim", "decoder_ffn_dim", "dff"], FFN),
    **dict.fromkeys(["dim_ff", "moe_intermediate_size", "ffn_hidden_size", "shared_intermediate_size"], FFN),
    **dict.fromkeys(["shared_expert_intermediate_size", "expert_ffn_hidden_size", "intermediate_size_mlp"], FFN),
    **dict.fromkeys(["n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts"], EXPERTS),
    **dict.fromkeys(["num_experts_per_tok", "moe_topk", "moe_top_k", "moe_k", "top_k_experts"], 2),
    **dict.fromkeys(["n_group", "topk_group", "n_shared_experts", "moe_num_shared_experts", "num_shared_experts"], 1),
    **dict.fromkeys(["q_lora_rank", "kv_lora_rank"], 16),
    **dict.fromkeys(["qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"], HEAD_DIM),
    **dict.fromkeys(["max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"], 512),
    **dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "sep_token_id"], 0),
    **dict.fromkeys(["mamba_n_heads", "mamba_num_heads", "n_mamba_heads"], 4),
    **dict.fromkeys(["mamba_d_head", "mamba_head_dim", "state_size", "ssm_state_size", "mamba_d_state"], 16),
    **dict.fromkeys(["linear_num_key_heads", "linear_num_value_heads"], 2),
    **dict.fromkeys(["linear_key_head_dim", "linear_value_head_dim"], 8),
    **dict.fromkeys(["image_size"], 28),
    **dict.fromkeys(["patch_size"], 14),
    # larger than any default, so that what a token reads shows in its logits
    **dict.fromkeys(["initializer_range", "init_std"], 0.2),
    **dict.fromkeys(["n_groups", "mamba_n_groups", "num_query_groups"], 1),
    "rotary_dim": 4,
    "is_decoder": True,
}

WINDOWS = {"sliding_window": 32, "sliding_window_size": 32, "window_size": 32, "attention_chunk_size": 32}
WINDOWS |= {"index_topk": 16, "keep_window_size": 48}
"""How far a token reads, short enough to matter, for types that are limited by default."""
SPECIAL: dict[str, dict[str, Any]] = {
    "dbrx": {"attn_config": {"rope_theta": 1e4, "clip_qkv": 8.0, "kv_n_heads": 2}},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {"num_kv_shared_layers": 0, "layer_types": ["full_attention", "full_attention"]},
    "got_ocr2": {"vision_config": {"hidden_size": 32, "num_hidden_layers": 1, "mlp_dim": 32, "output_channels": 32}},
    "gpt_neo": {"attention_types": [[["global"], 2]]},
    "mamba2": {"head_dim": 16},
    "lfm2_moe": {"layer_types": ["full_attention", "full_attention"]},
    "zamba": {"num_hidden_layers": 3},
    "zaya": {"num_experts_per_tok": 1},
}


def tiny_config(model_type: str, **changes: Any) -> PreTrainedConfig:
    """The configuration of a tiny model of this type; `changes` win, nested ones by the name of their part."""
    config_class = CONFIG_MAPPING[model_type]
    return config_class(**_merged(_tiny_fields(config_class), SPECIAL.get(model_type, {}), changes))


def tiny_model(model_type: str, **changes: Any) -> PreTrainedModel:
    """An fp32 model of that configuration with the CPU's attention, in evaluation mode."""
    torch.manual_seed(0)
    config = tiny_config(model_type, **changes)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    return model.eval()


def _tiny_fields(config_class: type[PreTrainedConfig]) -> dict[str, Any]:
    fields = {field.name: field.default for field in dataclasses.fields(config_class)}
    values = {name: value for name, value in TINY.items() if name in fields}
    values |= {name: value for name, value in WINDOWS.items() if isinstance(fields.get(name), int)}
    if "kv_lora_rank" in fields:  # latent attention: as many key heads as query heads
        values["num_key_value_heads"] = HEADS
    for name, part in config_class.sub_configs.items():
        if part.__name__ != "AutoConfig":
            values[name] = _tiny_fields(part)
    return values


def _merged(*parts: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            nested = isinstance(value, dict) and isinstance(result.get(name), dict)
            result[name] = _merged(result[name], value) if nested else value
    return result
