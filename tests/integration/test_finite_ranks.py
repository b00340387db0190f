"""A loss or gradient that is not finite never reaches the weights: every ZeRO stage and precision, two ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing

from openrlhf.utils.network import LOOPBACK, free_port
from support.finite_worker import CONFIGS, run_rank
from support.tiny_run import make_model

WORLD_SIZE = 2


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    world: Path = tmp_path_factory.mktemp("finite")
    make_model(world / "model")
    port = free_port(LOOPBACK)
    torch.multiprocessing.spawn(run_rank, (WORLD_SIZE, port, str(world)), nprocs=WORLD_SIZE)
    return [torch.load(world / f"finite_{rank}.pt") for rank in range(WORLD_SIZE)]


@pytest.mark.parametrize("name", CONFIGS)
def test_an_infinite_loss_on_one_rank_is_refused_by_all_with_its_sample(name, ranks):
    for rank in ranks:
        assert rank[name]["raised"]["loss"].startswith(
            "NonFiniteError: step 5: loss not finite for prompt 0 (datapoint 'point0'), sample 0"
        )
        assert rank[name]["unchanged"]["loss"]


@pytest.mark.parametrize("name", CONFIGS)
def test_an_infinite_gradient_of_a_finite_loss_is_refused_by_all(name, ranks):
    for rank in ranks:
        assert rank[name]["raised"]["gradient"].startswith("NonFiniteError: step 5: the norm of the gradient is")
        assert rank[name]["unchanged"]["gradient"]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_sound_update_trains(name, ranks):
    for rank in ranks:
        assert rank[name]["raised"]["sound"] is None
        assert not rank[name]["unchanged"]["sound"]
