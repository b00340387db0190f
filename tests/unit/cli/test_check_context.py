"""Prompt and response fit into the model, as far as its configuration says, before anything starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import LlamaConfig

from openrlhf.cli.train_ppo_ray import check_context
from openrlhf.cli.validate import ConfigError
from openrlhf.config import BatchConfig, ModelConfig


def test_the_context_of_a_configuration_as_transformers_reads_it(tmp_path: Path) -> None:
    """A hub id's config.json is seen once transformers has fetched it."""
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
    LlamaConfig(max_position_embeddings=2048, rope_parameters=yarn).save_pretrained(tmp_path)
    batch = BatchConfig(rollout_batch_size=1, train_batch_size=1, prompt_max_len=1024, generate_max_len=1024)
    config: Any = SimpleNamespace(policy=ModelConfig(pretrain=str(tmp_path)), batch=batch)
    check_context(config)
    config.batch = replace(batch, generate_max_len=1025)
    with pytest.raises(ConfigError, match="the model has 2048 positions"):
        check_context(config)
