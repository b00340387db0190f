"""One rule for the length of a sequence, in agreement with what vLLM accepts."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, PreTrainedConfig

from openrlhf.models.limits import max_sequence_tokens

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192,
    "low_freq_factor": 1.0, "high_freq_factor": 4.0,
}  # fmt: skip
LONGROPE = {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
CONFIGS: dict[str, tuple[str, dict[str, Any], int]] = {
    # model type, settings, tokens
    "plain": ("llama", {"max_position_embeddings": 2048}, 2048),
    # the limit is the one after scaling, also where that looks odd (32768 and a factor of 4)
    "yarn": ("qwen2", {"max_position_embeddings": 131072, "rope_scaling": YARN}, 131072),
    "yarn, limit as before": ("qwen2", {"max_position_embeddings": 32768, "rope_scaling": YARN}, 32768),
    "llama3": ("llama", {"max_position_embeddings": 131072, "rope_scaling": LLAMA3}, 131072),
    # 2048 x 4
    "linear": ("llama", {"max_position_embeddings": 2048, "rope_scaling": {"type": "linear", "factor": 4.0}}, 8192),
    "learned positions": ("gpt2", {"n_positions": 1024}, 1024),
    "other name": ("mpt", {"max_seq_len": 4096}, 4096),
    "composite": ("gemma3", {"text_config": {"max_position_embeddings": 8192}}, 8192),
    "gemma3 scaled": (
        "gemma3_text",
        {"max_position_embeddings": 8192, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        8192,
    ),
}
SWITCHING: dict[str, tuple[str, dict[str, Any], int]] = {
    # vLLM would also take 4096 (2048 x 2) and 131072
    "dynamic": ("llama", {"max_position_embeddings": 2048, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, 2048),
    "longrope": (
        "phi3",
        {
            "max_position_embeddings": 131072, "original_max_position_embeddings": 4096, "rope_scaling": LONGROPE,
            "pad_token_id": 0,
        },
        4096,
    ),
}  # fmt: skip


def make_config(model_type: str, settings: dict[str, Any]) -> PreTrainedConfig:
    return AutoConfig.for_model(model_type, **settings)


def vllm_accepts(config: PreTrainedConfig, tokens: int | None) -> int:
    """What vLLM makes of `max_model_len`. Raises ValueError where it is too long; None: vLLM's own choice."""
    from vllm.config.model import _get_and_verify_max_len
    from vllm.transformers_utils.config import patch_rope_parameters
    from vllm.transformers_utils.model_arch_config_convertor import ModelArchConfigConvertorBase

    text = config.get_text_config()
    patch_rope_parameters(text)
    architecture = ModelArchConfigConvertorBase(config, text).convert()
    return _get_and_verify_max_len(text, architecture, None, tokens, False, None)


@pytest.mark.parametrize(("model_type", "settings", "expected"), CONFIGS.values(), ids=CONFIGS)
def test_the_limit_is_the_longest_that_vllm_accepts(model_type, settings, expected):
    config = make_config(model_type, settings)
    assert max_sequence_tokens(config) == expected
    assert vllm_accepts(config, expected) == expected
    with pytest.raises(ValueError, match="max_model_len"):
        vllm_accepts(config, expected + 1)


@pytest.mark.parametrize(("model_type", "settings", "expected"), SWITCHING.values(), ids=SWITCHING)
def test_angles_that_switch_with_the_length_end_the_sequence_there(model_type, settings, expected):
    config = make_config(model_type, settings)
    assert max_sequence_tokens(config) == expected
    assert vllm_accepts(config, expected) == expected


@pytest.mark.parametrize("name", [*CONFIGS, *SWITCHING])
def test_a_config_json_says_the_same(name, tmp_path: Path):
    model_type, settings, expected = (CONFIGS | SWITCHING)[name]
    make_config(model_type, settings).save_pretrained(tmp_path)
    assert max_sequence_tokens(json.loads((tmp_path / "config.json").read_text())) == expected


def test_no_limit():
    assert max_sequence_tokens(AutoConfig.for_model("bloom")) is None
    assert max_sequence_tokens({"model_type": "bloom"}) is None


def test_it_imports_nothing_heavy():
    code = "import sys, openrlhf.models.limits; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
