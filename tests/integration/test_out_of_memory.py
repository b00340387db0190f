"""Where memory runs out within a pass, packs are halved and repeated: every ZeRO stage, one rank and two."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing

from openrlhf.utils.network import LOOPBACK, free_port
from support.memory_worker import CONFIGS, FIRST_FAILURES, HALF, ON_ONE_RANK, PLACES, WHOLE, run_rank
from support.tiny_models import FOR_ZERO_3, random_model


@pytest.fixture(scope="module", params=[1, 2], ids=["one rank", "two ranks"])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    world: Path = tmp_path_factory.mktemp("memory")
    model = random_model("qwen2", vocab_size=64, **FOR_ZERO_3, tie_word_embeddings=True, initializer_range=0.2)
    model.save_pretrained(world / "model")
    arguments = (request.param, free_port(LOOPBACK), str(world))
    torch.multiprocessing.spawn(run_rank, arguments, nprocs=request.param)
    return [torch.load(world / f"memory_{rank}_of_{request.param}.pt") for rank in range(request.param)]


@pytest.mark.parametrize("first", FIRST_FAILURES)
@pytest.mark.parametrize("place", PLACES)
def test_a_run_that_halves_its_packs_equals_one_whose_packs_are_small_from_there_on(place, first, ranks):
    """Bit for bit: what a broken pass left behind is in no gradient, and nothing is counted twice."""
    for rank in ranks:
        for name in CONFIGS.keys() & rank.keys():
            troubled, small = rank[name][place, first], rank[name][first]
            assert troubled["budget"] == small["budget"] == HALF, name
            assert troubled["rows"] == small["rows"], name
            assert all(torch.equal(troubled["weights"][key], weight) for key, weight in small["weights"].items()), name


@pytest.mark.parametrize("case", list(itertools.product(PLACES, FIRST_FAILURES)), ids=str)
def test_halved_packs_train_as_whole_ones_do(case, ranks):
    for rank in ranks:
        for name in {"zero0", "zero1", "zero2", "zero3"} & rank.keys():
            for found, expected in zip(rank[name][case]["rows"], rank[name]["whole"]["rows"], strict=True):
                assert found == pytest.approx(expected, rel=1e-4), name


def test_a_trial_finds_the_budget_and_changes_nothing(ranks):
    """Packs of 8, 16 and 32 tokens of the room's 40 are tried; where passes break at 20, packs of 8 and 16 fit."""
    for rank in ranks:
        for name in ON_ONE_RANK:
            tried, untried = rank[name]["after trials"], rank[name][0]
            assert tried["found"] == [32, 16, 16], name
            assert tried["rows"] == untried["rows"], name
            assert all(torch.equal(tried["weights"][key], weight) for key, weight in untried["weights"].items()), name


def test_what_the_first_optimizer_step_will_allocate_is_known_before(ranks):
    """Two moments of four bytes a parameter, by rank from stage 1 on; at stage 0 bf16 has them from the start."""
    for rank in ranks:
        for name, (stage, bf16) in CONFIGS.items():
            if name not in rank:
                continue
            before, after = rank[name]["whole"]["pending"]
            parameters = sum(weight.numel() for weight in rank[name]["whole"]["weights"].values())
            expected = 0 if (stage, bf16) == (0, True) else 8 * parameters / (len(ranks) if stage else 1)
            assert expected <= before <= 1.01 * expected, name
            assert after == 0, name


@pytest.mark.parametrize("place", PLACES)
def test_a_sequence_that_does_not_fit_alone_is_refused_by_all_ranks(place, ranks):
    for rank in ranks:
        assert rank["single"][place].startswith(
            "out of memory: a training pack of a single sequence, 24 tokens, does not fit; lower --prompt_max_len"
        )


@pytest.mark.parametrize("stage", [2, 3])
def test_scores_of_halved_packs_are_those_of_whole_ones(stage, ranks):
    for index, rank in enumerate(ranks):
        scores = rank["scores"][stage]
        assert scores["plenty_budget"] == WHOLE
        assert scores["little_budget"] == (HALF if index == 0 or stage == 3 else WHOLE)
        for expected, found in zip(scores["plenty"], scores["little"], strict=True):
            for a, b in zip(expected, found, strict=True):
                torch.testing.assert_close(b, a, rtol=0, atol=1e-5)
