"""The DeepSpeed strategy on real processes over gloo, against plain torch: one spawn per number of ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from openrlhf.cli import export_hf
from openrlhf.utils.checkpoints import newest_checkpoint
from openrlhf.utils.deepspeed.optimizer import lr_factor, parameter_groups
from openrlhf.utils.network import LOOPBACK, free_port
from support.deepspeed_worker import (
    CONFIGS,
    MAX_NORM,
    NUM_STEPS,
    OPTIMIZER,
    STEPS_BEFORE_SAVE,
    VOCAB_SIZE,
    nll_sum,
    num_labels,
    run_rank,
    step_batches,
)
from support.tiny_models import FOR_ZERO_3, random_model
from sweep.tiny_architectures import tiny_model

WORLD_SIZES = (1, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds `model/`, a tiny tied Qwen2 that ZeRO-3 really partitions."""
    folder = tmp_path_factory.mktemp("deepspeed")
    model = random_model("qwen2", vocab_size=VOCAB_SIZE, **FOR_ZERO_3, tie_word_embeddings=True)
    model.save_pretrained(folder / "model")
    tiny_model("doge", keep_window_size=64).save_pretrained(folder / "doge")
    words = Tokenizer(WordLevel({"<eos>": 0, "a": 1, "<unk>": 2}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>")
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module", params=WORLD_SIZES, ids=lambda n: f"{n}rank")
def ranks(request: pytest.FixtureRequest, folder: Path) -> list[dict[Any, Any]]:
    """What each rank found, in rank order."""
    world_size = request.param
    port = free_port(LOOPBACK)
    torch.multiprocessing.spawn(run_rank, (world_size, port, str(folder)), nprocs=world_size)
    return [torch.load(folder / f"results_{world_size}_{rank}.pt") for rank in range(world_size)]


@pytest.fixture(scope="module")
def plain_steps(folder: Path) -> list[dict[str, Any]]:
    """The same optimizer steps in plain torch: each step's sequences of one length in one forward."""
    model = AutoModelForCausalLM.from_pretrained(folder / "model").train()
    adamw = torch.optim.AdamW(parameter_groups(model, OPTIMIZER.weight_decay), betas=OPTIMIZER.adam_betas)
    return [plain_step(model, adamw, step) for step in range(NUM_STEPS)]


def plain_step(model: PreTrainedModel, adamw: torch.optim.AdamW, step: int) -> dict[str, Any]:
    batches = [token_ids for own in step_batches(step) for token_ids in own]
    total = sum(num_labels(token_ids) for token_ids in batches)
    by_length: dict[int, list[Tensor]] = {}
    for token_ids in batches:
        by_length.setdefault(token_ids.shape[1], []).append(token_ids)
    loss = torch.stack([nll_sum(model, torch.cat(group)) for group in by_length.values()]).sum() / total
    loss.backward()
    gradients = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM).item()
    # ceil(0.3 * 4) = 2 warm-up steps
    learning_rate = 1e-3 * lr_factor(step, num_steps=NUM_STEPS, num_warmup_steps=2, min_lr_ratio=0.1)
    for group in adamw.param_groups:
        group["lr"] = learning_rate
    adamw.step()
    adamw.zero_grad()
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    return {"loss": loss.item(), "gradients": gradients, "norm": norm, "lr": learning_rate, "weights": weights}


@pytest.mark.parametrize("name", CONFIGS)
def test_accumulated_micro_batches_equal_one_plain_batch(name, ranks, plain_steps):
    for rank in ranks:
        for got, want in zip(rank[name]["steps"], plain_steps, strict=True):
            assert got["loss"] == pytest.approx(want["loss"], abs=1e-5)
            assert got["norm"] == pytest.approx(want["norm"], rel=1e-5)
            assert got["norm"] > MAX_NORM  # so clipping takes part
            assert got["lr"] == pytest.approx(want["lr"], rel=1e-9)
            assert_close(got["gradients"], want["gradients"], 1e-6)
            assert_close(got["weights"], want["weights"], 1e-5)


def assert_close(got: dict[str, Tensor], want: dict[str, Tensor], tolerance: float) -> None:
    """Equal but for key biases: softmax does not see them, so their gradients are rounding noise that Adam blows up."""
    assert set(got) == set(want)
    for name in set(want) - {name for name in want if name.endswith("k_proj.bias")}:
        difference = (got[name] - want[name]).abs().max().item()
        assert difference <= tolerance, f"{name} differs by {difference}"


@pytest.mark.parametrize("name", CONFIGS)
def test_resumed_equals_uninterrupted(name, ranks):
    for rank in ranks:
        result = rank[name]
        assert result["nothing"] is None
        assert result["client_state"] == {"step": 2, "kl": {"coef": 0.5}}
        for got, want in zip(result["steps_again"], result["steps"][STEPS_BEFORE_SAVE:], strict=True):
            assert got["draws"] == want["draws"]
            assert (got["loss"], got["norm"], got["lr"]) == (want["loss"], want["norm"], want["lr"])
            assert all(torch.equal(got["weights"][key], want["weights"][key]) for key in want["weights"])


@pytest.mark.parametrize("name", CONFIGS)
def test_resuming_with_other_settings_applies_them(name, ranks):
    """After 2 of 4 steps with 2 of warm-up: the third step has 1/2 of the cosine's way, factor 0.1 + 0.9 / 2 = 0.55."""
    for rank in ranks:
        settings = rank[name]["changed_settings"]
        assert settings["lr"] == pytest.approx(3e-3 * 0.55)
        assert settings["weight_decay"] == [0.2, 0.0]


def test_a_save_that_fails_on_one_rank_fails_on_all_and_leaves_nothing(ranks):
    for rank in ranks:
        result = rank["failed_save"]
        assert result["raised"].startswith("WriteError: ")
        assert "global_step2" in result["raised"]
        assert "free" in result["raised"]
        assert result["left"] == ["global_step1"]
        assert result["newest"] == "global_step3"


@pytest.mark.parametrize("name", CONFIGS)
def test_saved_hf_model_is_the_trained_one(name, ranks, folder):
    path = folder / f"hf_{len(ranks)}_{name}"
    model = AutoModelForCausalLM.from_pretrained(path)
    weights = ranks[0][name]["steps"][-1]["weights"]
    assert all(torch.equal(parameter, weights[key]) for key, parameter in model.named_parameters())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert AutoTokenizer.from_pretrained(path).chat_template
    assert (path / "model.safetensors").exists()
    assert not list(folder.glob(".hf_*"))


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_zero_to_fp32_gives_the_trained_weights(name, ranks, folder):
    checkpoints = folder / f"ckpt_{len(ranks)}_{name}"
    command = [sys.executable, "zero_to_fp32.py", "./", "converted", "-t", "global_step2"]
    subprocess.run(
        command, cwd=checkpoints, check=True, capture_output=True, env={**os.environ, "DS_ACCELERATOR": "cpu"}
    )
    converted = torch.load(checkpoints / "converted" / "pytorch_model.bin", weights_only=True)
    weights = ranks[0][name]["steps"][STEPS_BEFORE_SAVE - 1]["weights"]
    assert all(torch.equal(converted[key], weights[key]) for key in weights)


@pytest.mark.parametrize("name", CONFIGS)
def test_export_gives_the_trained_model(name, ranks, folder, tmp_path):
    """Of the checkpoint alone: configuration and tokenizer lie in it. Tied weights are there once."""
    checkpoint = folder / f"ckpt_{len(ranks)}_{name}" / "global_step2"
    assert export_hf.main([str(checkpoint), str(tmp_path / "fp32"), "--dtype", "fp32"]) == 0
    weights = ranks[0][name]["steps"][STEPS_BEFORE_SAVE - 1]["weights"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "fp32")
    assert model.dtype == torch.float32
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert all(torch.equal(parameter, weights[key]) for key, parameter in model.named_parameters())
    assert AutoTokenizer.from_pretrained(tmp_path / "fp32").chat_template
    with safe_open(tmp_path / "fp32" / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118 (no mapping)


def test_export_is_bf16_unless_asked_otherwise(ranks, folder, tmp_path):
    assert export_hf.main([str(folder / f"ckpt_{len(ranks)}_zero3" / "global_step2"), str(tmp_path / "model")]) == 0
    weights = ranks[0]["zero3"]["steps"][STEPS_BEFORE_SAVE - 1]["weights"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto")
    assert all(torch.equal(parameter, weights[key].bfloat16()) for key, parameter in model.named_parameters())


def test_zero_to_fp32_at_stage_0_gives_the_trained_weights(ranks, folder):
    checkpoints = folder / f"ckpt_{len(ranks)}_zero0"
    command = [sys.executable, "zero_to_fp32.py", "./", "converted", "-t", "global_step2"]
    subprocess.run(
        command, cwd=checkpoints, check=True, capture_output=True, env={**os.environ, "DS_ACCELERATOR": "cpu"}
    )
    converted = load_file(checkpoints / "converted" / "model.safetensors")
    weights = ranks[0]["zero0"]["steps"][STEPS_BEFORE_SAVE - 1]["weights"]
    assert all(torch.equal(converted[key], weights[key]) for key in weights)


def test_a_rank_killed_before_the_marker_leaves_the_previous_checkpoint(ranks, folder):
    checkpoints = folder / f"ckpt_{len(ranks)}_zero2"
    files = {path.name for path in (checkpoints / "global_step3").iterdir()}
    assert {"INCOMPLETE", "mp_rank_00_model_states.pt", "rng_rank0.pt"} <= files
    newest = newest_checkpoint(checkpoints)
    assert newest is not None
    assert newest.tag == "global_step2"
    assert (checkpoints / "latest").read_text() == "global_step2"
    assert json.loads((newest.path / "COMPLETE").read_text())["world_size"] == len(ranks)


@pytest.mark.parametrize("name", CONFIGS)
def test_buckets_hold_every_whole_parameter_once(name, ranks, folder):
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    want = {key: tuple(parameter.shape) for key, parameter in model.named_parameters()}
    for rank in ranks:
        buckets = rank[name]["buckets"]
        assert {key: shape for bucket in buckets for key, shape in bucket.items()} == want
        assert sum(len(bucket) for bucket in buckets) == len(want)
        for bucket in buckets:  # 524,288 bytes are one matrix of 64 x 2048
            num_bytes = sum(4 * torch.Size(shape).numel() for shape in bucket.values())
            assert num_bytes <= 600_000


def test_bf16_partitioned_model_keeps_fp32_rotary_frequencies(ranks, folder):
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.bfloat16)
    with torch.no_grad():
        want = nll_sum(model, step_batches(0)[0][2]).item()
    for rank in ranks:
        result = rank["rotary"]
        assert result["partitioned"]
        assert not result["later_partitioned"]
        assert result["inv_freq"].dtype == torch.float32
        assert torch.equal(result["inv_freq"], model.model.rotary_emb.inv_freq)
        assert result["loss"] == want


def test_eval_engines_give_plain_logits(ranks):
    for rank in ranks:
        for name in ("zero3", "offloaded"):
            torch.testing.assert_close(rank["eval"][name], rank["eval"]["plain"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("stage", ["zero0", "zero2", "zero3"])
@pytest.mark.parametrize("kind", ["on", "reentrant"])
def test_gradient_checkpointing_recomputes_and_changes_nothing(stage, kind, ranks):
    """Two layers: each MLP runs once forward, and once more in the backward pass only where it is checkpointed."""
    for rank in ranks:
        uses = rank["checkpointing"]
        assert uses[stage, "off"]["mlp_forwards"] == 2
        assert uses[stage, kind]["mlp_forwards"] == 4
        assert_close(uses[stage, kind]["gradients"], uses[stage, "off"]["gradients"], 1e-6)


@pytest.mark.parametrize("stage", ["zero0", "zero2", "zero3"])
@pytest.mark.parametrize("kind", ["on", "reentrant"])
def test_gradient_checkpointing_bounds_the_saved_activations(stage, kind, ranks):
    """28 packed tokens of 64 dimensions: kept are the inputs of two layers, of the final norm and of the head, and what
    all layers share (angles, mask, ids), together below six hidden states. One MLP alone would keep 3 x 28 x 2048."""
    hidden_state = 28 * 64
    for rank in ranks:
        uses = rank["checkpointing"]
        assert uses[stage, kind]["saved_elements"] < 6 * hidden_state
        assert uses[stage, "off"]["saved_elements"] > 2 * 3 * 28 * 2048


def test_a_model_whose_packs_are_not_its_own_is_refused_on_every_rank(ranks, folder):
    for rank in ranks:
        assert rank["refusal"].startswith(f"{folder}/doge (DogeForCausalLM): the log-probs of a sequence of 224 tokens")


def test_collectives(ranks):
    n = len(ranks)
    for rank in ranks:
        result = rank["collectives"]
        assert result["mean"] == (n - 1) / 2  # of 0 .. n-1
        assert result["sum"] == {"a": 10.0 * (n - 1) * n / 2, "b": n}
        assert result["max"] == n - 1
        assert result["gathered"] == [{"rank": i} for i in range(n)]
        assert result["broadcast"] == "from 0"
    assert len({rank["collectives"]["draw"] for rank in ranks}) == n  # seed + rank
