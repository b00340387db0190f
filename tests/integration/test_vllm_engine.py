"""The vLLM engine actor against plain `transformers`: same tokens, same log-probs, continuous batching, failures."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch
from transformers import PreTrainedModel

from openrlhf.config import SamplingConfig
from openrlhf.trainer.ray.vllm_api import spread_seed
from openrlhf.trainer.ray.vllm_engine import create_vllm_engines
from support.engine_cluster import (
    CONFIG,
    GREEDY,
    PROMPT,
    VOCAB_SIZE,
    create_engines,
    generate,
    greedy_tokens,
    local_ray,
    tiny_qwen2,
    trainer_greedy_tokens,
    wait_until_started,
)

SAMPLING = SamplingConfig(n=3, temperature=0.7, max_tokens=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a model, with Ray up."""
    with local_ray():
        yield tmp_path_factory.mktemp("tied")


@pytest.fixture(scope="module")
def model_and_engine(folder: Path) -> tuple[PreTrainedModel, Any]:
    model = tiny_qwen2(folder, tied=True)
    (engine,) = create_engines(folder)
    wait_until_started([engine])
    return model, engine


def test_greedy_tokens_equal_transformers(model_and_engine: tuple[PreTrainedModel, Any]) -> None:
    model, engine = model_and_engine
    for prompt in (PROMPT, PROMPT[:5], [3]):
        assert greedy_tokens(engine, prompt) == trainer_greedy_tokens(model, prompt)


def test_logprobs_are_the_trainers_at_the_sampling_temperature(model_and_engine: tuple[PreTrainedModel, Any]) -> None:
    model, engine = model_and_engine
    for completion in generate(engine, PROMPT, SAMPLING, seed=5):
        tokens = torch.tensor(completion.token_ids)
        with torch.no_grad():
            logits = model(torch.tensor([PROMPT + completion.token_ids])).logits[0, len(PROMPT) - 1 : -1]
        expected = torch.log_softmax(logits / SAMPLING.temperature, dim=-1).gather(1, tokens[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)


def test_calls_at_once_get_their_own_counts_and_the_tokens_they_get_alone(
    model_and_engine: tuple[PreTrainedModel, Any],
) -> None:
    _, engine = model_and_engine
    requests = [
        (PROMPT[: 20 + 3 * i], SamplingConfig(n=1 + i % 4, temperature=1.0, max_tokens=4 + 2 * i), 100 + i)
        for i in range(12)
    ]
    alone = [generate(engine, *request) for request in requests]
    together = ray.get([engine.generate.remote(*request) for request in requests], timeout=60)
    assert [len(group) for group in together] == [sampling.n for _, sampling, _ in requests]
    assert [[c.token_ids for c in group] for group in together] == [[c.token_ids for c in group] for group in alone]
    assert all(c.finish_reason == "length" for group in together for c in group)


def test_a_short_group_returns_while_a_long_one_generates(model_and_engine: tuple[PreTrainedModel, Any]) -> None:
    _, engine = model_and_engine
    long = engine.generate.remote(PROMPT[:8], SamplingConfig(max_tokens=400), 0)
    short = engine.generate.remote(PROMPT[:9], SamplingConfig(max_tokens=2), 0)
    first, _ = ray.wait([long, short], timeout=60)
    assert first == [short]
    assert len(ray.get(long, timeout=60)[0].token_ids) == 400


def test_neighbouring_seeds_share_no_sample(model_and_engine: tuple[PreTrainedModel, Any]) -> None:
    _, engine = model_and_engine
    groups = [generate(engine, PROMPT[:30], SAMPLING, seed=seed) for seed in (1, 2, 3)]
    assert len({tuple(completion.token_ids) for group in groups for completion in group}) == 9
    # vLLM gives sample i of a group the seed + i: no two of 10,000 groups of 1,000 samples may meet.
    seeds = sorted(spread_seed(seed) for seed in range(10_000))
    assert min(b - a for a, b in itertools.pairwise(seeds)) > 1000


def test_stop_token_ends_a_response(model_and_engine: tuple[PreTrainedModel, Any]) -> None:
    # Greedy decoding repeats itself exactly, so its fourth token is a stop token that certainly comes.
    _, engine = model_and_engine
    tokens = greedy_tokens(engine, PROMPT)
    stop = tokens[3]
    ray.get(engine.__ray_call__.remote(lambda actor: actor._stop_token_ids.append(stop)))
    try:
        completion = generate(engine, PROMPT, GREEDY)[0]
    finally:
        ray.get(engine.__ray_call__.remote(lambda actor: actor._stop_token_ids.clear()))
    assert completion.finish_reason == "stop"
    assert completion.token_ids == tokens[: tokens.index(stop) + 1]


def test_an_impossible_request_fails_alone(model_and_engine: tuple[PreTrainedModel, Any]) -> None:
    _, engine = model_and_engine
    running = engine.generate.remote(PROMPT, GREEDY, 0)
    with pytest.raises(ValueError, match=str(CONFIG.max_model_len)):
        generate(engine, [1] * CONFIG.max_model_len, GREEDY)
    assert len(ray.get(running, timeout=60)[0].token_ids) == GREEDY.max_tokens


def test_logprobs_come_only_where_they_are_asked_for(model_and_engine: tuple[PreTrainedModel, Any]) -> None:
    _, engine = model_and_engine
    asked = generate(engine, PROMPT, SAMPLING, seed=5)
    call = engine.generate.remote(PROMPT, SAMPLING, 5, with_logprobs=False)
    unasked = ray.get(call, timeout=60)
    assert [c.logprobs for c in unasked] == [None] * SAMPLING.n
    assert [c.token_ids for c in unasked] == [c.token_ids for c in asked]


def test_an_error_in_step_fails_every_call_with_its_cause(model_and_engine: tuple[PreTrainedModel, Any]) -> None:
    """Breaks the engine for good."""
    _, engine = model_and_engine

    def break_it(actor: Any) -> None:
        def lose_head(worker: Any) -> None:
            del worker.model_runner.model.lm_head

        loop = actor._engine.output_handler.get_loop()
        asyncio.run_coroutine_threadsafe(actor._engine.collective_rpc(lose_head), loop).result(timeout=30)

    calls = [engine.generate.remote(PROMPT[:i], SamplingConfig(max_tokens=400), i) for i in (10, 20, 30)]
    ray.wait(calls, timeout=0.3)
    ray.get(engine.__ray_call__.remote(break_it))
    started = time.monotonic()
    for call in calls:
        with pytest.raises(RuntimeError, match="lm_head"):
            ray.get(call, timeout=30)
    with pytest.raises(RuntimeError, match="lm_head"):
        generate(engine, [VOCAB_SIZE - 1], GREEDY)
    with pytest.raises(RuntimeError, match="lm_head"):
        ray.get(engine.start_weight_update.remote(), timeout=30)
    assert time.monotonic() - started < 30


def engine_processes(engine: Any) -> list[psutil.Process]:
    """What the actor started: one process of vLLM's, and Python's tracker of resources."""
    return psutil.Process(ray.get(engine.__ray_call__.remote(lambda _: os.getpid()))).children(recursive=True)


def test_a_killed_process_of_an_engine_fails_every_call(folder: Path) -> None:
    """Also those that vLLM itself leaves unanswered. Beside it, an engine that cannot start says why."""
    cramped = create_vllm_engines(str(folder), CONFIG, num_cpu_threads=1, cpu_kv_cache_gib=1e-5)
    (engine,) = create_engines(folder)
    starts = [cramped[0].start.remote(), engine.start.remote()]
    with pytest.raises(RuntimeError, match="did not start: ValueError: No available memory for the cache blocks"):
        ray.get(starts[0], timeout=120)
    ray.get(starts[1], timeout=120)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        nobody = {"master_address": "127.0.0.1", "master_port": silent.getsockname()[1], "world_size": 2}
        calls = [engine.generate.remote(PROMPT[:i], SamplingConfig(max_tokens=400), i) for i in (10, 20)]
        calls.append(engine.init_weight_transfer.remote({**nobody, "rank_offset": 1}))
        assert ray.wait(calls, timeout=0.3)[0] == []
        for process in engine_processes(engine):
            process.kill()
        calls.append(engine.generate.remote(PROMPT, GREEDY, 0))
        for call in calls:
            with pytest.raises(RuntimeError, match="engine failed: its process ended without a word"):
                ray.get(call, timeout=30)
    with pytest.raises(RuntimeError, match="engine failed: its process ended without a word"):
        ray.get(engine.start_weight_update.remote(), timeout=30)


def test_an_actor_that_is_killed_while_it_starts_leaves_nothing_behind(folder: Path) -> None:
    """Until then it answers. That a killed actor takes an engine along that runs is in `test_kills.py`."""
    (engine,) = create_engines(folder)
    start = engine.start.remote()
    deadline = time.monotonic() + 60
    while not (started := engine_processes(engine)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert ray.wait([start], timeout=0)[0] == []
    ray.kill(engine)
    assert psutil.wait_procs(started, timeout=60)[1] == []
