"""After a transfer vLLM answers with the trainer's new weights, token for token; a dead engine raises in time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import ray
import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PreTrainedModel

from openrlhf.config import SamplingConfig
from openrlhf.trainer.ray.weight_transfer import WeightSender, make_buckets, unpack_bucket
from support.engine_cluster import (
    GREEDY,
    PROMPT,
    create_engines,
    generate,
    greedy_tokens,
    local_ray,
    tiny_qwen2,
    wait_until_started,
)
from support.engine_cluster import trainer_greedy_tokens as expected_tokens

SMALL_BUCKET_BYTES = 100_000  # The 256 KiB embedding goes alone, layers are cut across buckets.


@dataclass
class Run:
    """A model, the engines that serve it and the sender that joins them."""

    model: PreTrainedModel
    engines: list[Any]
    sender: WeightSender

    def send(self) -> None:
        self.sender.send(self.model.named_parameters())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """`tied`: one engine; `untied`: two. This process also has a default process group, as a trainer has."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("tied", "untied")}
    models = {name: tiny_qwen2(folder, tied=name == "tied") for name, folder in folders.items()}
    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    with local_ray():
        tied = create_engines(folders["tied"])
        untied = create_engines(folders["untied"], num_engines=2)
        wait_until_started(tied + untied)
        runs = {
            "tied": Run(models["tied"], tied, WeightSender(backend="gloo")),
            "untied": Run(
                models["untied"], untied, WeightSender(backend="gloo", bucket_bytes=SMALL_BUCKET_BYTES, timeout_s=20)
            ),
        }
        for run in runs.values():
            run.sender.connect(run.engines)
        yield runs
    dist.destroy_process_group()


def perturb(model: PreTrainedModel, seed: int) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)


@pytest.mark.parametrize("name", ["tied", "untied"])
def test_greedy_tokens_follow_the_weights(runs: dict[str, Run], name: str) -> None:
    run = runs[name]
    seen = []
    for seed in range(3):
        expected = expected_tokens(run.model, PROMPT)
        for engine in run.engines:
            # Twice: the second time the prompt's keys and values come from the prefix cache.
            assert greedy_tokens(engine, PROMPT) == expected
            assert greedy_tokens(engine, PROMPT) == expected
        seen.append(expected)
        perturb(run.model, seed)
        run.send()
    assert seen[0] != seen[1] != seen[2]


@pytest.mark.parametrize("name", ["tied", "untied"])
def test_first_token_logprob_follows_the_weights(runs: dict[str, Run], name: str) -> None:
    """Finer than tokens: shows stale keys and values that happen not to flip any."""
    run = runs[name]
    for seed in (10, 11):
        for engine in run.engines:
            completion = generate(engine, PROMPT, SamplingConfig(max_tokens=1), seed=seed)[0]
            with torch.no_grad():
                logits = run.model(torch.tensor([PROMPT])).logits[0, -1]
            expected = torch.log_softmax(logits, dim=-1)[completion.token_ids[0]].item()
            assert completion.logprobs is not None
            assert completion.logprobs[0] == pytest.approx(expected, abs=1e-4)
        perturb(run.model, seed)
        run.send()


def test_weights_do_not_change_while_requests_are_in_flight(runs: dict[str, Run]) -> None:
    run = runs["tied"]
    call = run.engines[0].generate.remote(PROMPT, SamplingConfig(max_tokens=200), 0)
    ray.wait([call], timeout=0.2)
    with pytest.raises(RuntimeError, match="in flight"):
        run.send()
    ray.get(call, timeout=60)
    run.send()
    assert greedy_tokens(run.engines[0], PROMPT) == expected_tokens(run.model, PROMPT)


def test_calls_during_an_update_get_the_new_weights(runs: dict[str, Run]) -> None:
    run = runs["tied"]
    perturb(run.model, 20)
    calls: list[Any] = []

    def generate_meanwhile() -> Iterator[tuple[str, Tensor]]:
        for name, parameter in run.model.named_parameters():
            if not calls:
                calls.append(run.engines[0].generate.remote(PROMPT, GREEDY, 0))
                assert ray.wait(calls, timeout=0.5)[0] == []
            yield name, parameter

    run.sender.send(generate_meanwhile())
    assert ray.get(calls[0], timeout=60)[0].token_ids == expected_tokens(run.model, PROMPT)


def test_the_trainers_default_group_still_works(runs: dict[str, Run]) -> None:
    value = torch.ones(1)
    dist.all_reduce(value)
    assert value.item() == dist.get_world_size() == 1


def test_buckets_hold_what_was_yielded() -> None:
    # Of 40 bytes. 6 x 4 B; 5 x 2 B of another dtype, so in the next; 100 x 2 B, alone; 3 x 2 B and 15 x 2 B together.
    tensors = {
        "a": torch.arange(6, dtype=torch.float32).view(2, 3).t(),
        "b": torch.arange(5, dtype=torch.bfloat16),
        "large": torch.arange(100, dtype=torch.bfloat16),
        "c": torch.arange(3, dtype=torch.bfloat16),
        "d": torch.arange(15, dtype=torch.bfloat16),
    }

    def released_after_use() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in tensors.items():
            gathered = tensor.clone()
            yield name, gathered
            gathered.fill_(-1)

    names, seen = [], {}
    for bucket in make_buckets(released_after_use(), 40, torch.device("cpu")):
        names.append(bucket.names)
        for name, tensor in unpack_bucket(bucket.data, **bucket.update_info()):
            seen[name] = tensor.clone()
    assert names == [["a"], ["b"], ["large"], ["c", "d"]]
    for name, tensor in tensors.items():
        torch.testing.assert_close(seen[name], tensor, atol=0, rtol=0)


def test_an_engine_that_dies_during_a_transfer_raises_in_time(runs: dict[str, Run]) -> None:
    """From here on the untied run has one engine left."""
    run = runs["untied"]

    def kill_meanwhile() -> Iterator[tuple[str, Tensor]]:
        for index, (name, parameter) in enumerate(run.model.named_parameters()):
            if index == 5:
                ray.kill(run.engines[1])
            yield name, parameter

    started = time.monotonic()
    with pytest.raises((ray.exceptions.RayActorError, RuntimeError)):
        run.sender.send(kill_meanwhile())
    assert time.monotonic() - started < 60
    with pytest.raises(RuntimeError, match="engine failed"):
        generate(run.engines[0], PROMPT, GREEDY)


def test_a_dead_engine_raises_before_a_transfer(runs: dict[str, Run]) -> None:
    run = runs["tied"]
    ray.kill(run.engines[0])
    started = time.monotonic()
    with pytest.raises(ray.exceptions.RayActorError):
        run.send()
    assert time.monotonic() - started < 60


def test_connecting_to_a_dead_engine_raises(runs: dict[str, Run]) -> None:
    started = time.monotonic()
    with pytest.raises(ray.exceptions.RayActorError):
        WeightSender(backend="gloo", timeout_s=20).connect(runs["tied"].engines)
    assert time.monotonic() - started < 60
