"""What the vLLM tests share: a private Ray cluster, tiny random models, engines, and the trainer in plain torch."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch
from transformers import PreTrainedModel

from openrlhf.config import EngineConfig, SamplingConfig
from openrlhf.trainer.ray.vllm_api import Completion
from openrlhf.trainer.ray.vllm_engine import create_vllm_engines
from support.tiny_models import FOR_VLLM, random_model

VOCAB_SIZE = 512
CONFIG = EngineConfig(
    device="cpu", sync_backend="gloo", enable_prefix_caching=True, enforce_eager=True, max_model_len=512
)
GREEDY = SamplingConfig(temperature=0.0, max_tokens=24)
# Longer than two of the CPU's KV blocks (128 tokens), so that the prefix cache has something to keep.
PROMPT = [(7 * i * i + 3 * i + 11) % VOCAB_SIZE for i in range(300)]


@contextmanager
def local_ray() -> Iterator[None]:
    """A cluster of this test module's own."""
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray's spelling)
    importable_as_here = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    functions_into_engines = {"VLLM_ALLOW_INSECURE_SERIALIZATION": "1"}
    ray.init(
        address="local",
        num_cpus=8,
        include_dashboard=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": importable_as_here | functions_into_engines},
    )
    try:
        yield
    finally:
        ray.shutdown()


def tiny_qwen2(folder: Path, *, tied: bool, std: float = 0.3) -> PreTrainedModel:
    """Saves a random fp32 Qwen2 (2 layers, 128 wide) that never ends a response, and returns it.

    With weights as wide as 0.3, greedy outputs vary and depend on the whole prompt.
    """
    model = random_model(
        "qwen2",
        vocab_size=VOCAB_SIZE,
        **FOR_VLLM,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        initializer_range=std,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    ).eval()
    model.save_pretrained(folder)
    return model


def create_engines(folder: Path, **config: Any) -> list[Any]:
    """Engines with one thread each, not yet started."""
    return create_vllm_engines(
        str(folder), EngineConfig(**{**vars(CONFIG), **config}), num_cpu_threads=1, cpu_kv_cache_gib=0.25
    )


def wait_until_started(engines: list[Any], timeout_s: float = 120) -> None:
    ray.get([engine.start.remote() for engine in engines], timeout=timeout_s)


def generate(engine: Any, prompt: list[int], sampling: SamplingConfig, seed: int = 0) -> list[Completion]:
    return ray.get(engine.generate.remote(prompt, sampling, seed), timeout=60)


def greedy_tokens(engine: Any, prompt: list[int]) -> list[int]:
    return generate(engine, prompt, GREEDY)[0].token_ids


@torch.no_grad()
def trainer_greedy_tokens(model: Any, prompt: list[int]) -> list[int]:
    output = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=GREEDY.max_tokens)
    return output[0, len(prompt) :].tolist()
