"""Small utilities: atomic output, logging, seeds, tokenizer, DeepSpeed's configuration, the learning-rate schedule."""

from __future__ import annotations

import logging
import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.optimization import get_cosine_with_min_lr_schedule_with_warmup

from openrlhf.config import DeepspeedConfig, OptimizerConfig
from openrlhf.utils import devices
from openrlhf.utils.atomic_io import atomic_directory, atomic_write
from openrlhf.utils.deepspeed.checkpointing import _check_plain
from openrlhf.utils.deepspeed.config import inference_config, training_config
from openrlhf.utils.deepspeed.optimizer import build_scheduler, lr_factor, parameter_groups
from openrlhf.utils.deepspeed.parameters import named_parameter_buckets, restore_rotary_buffers
from openrlhf.utils.logging import init_logger, quiet_libraries
from openrlhf.utils.rng import rng_state, set_rng_state, set_seed
from openrlhf.utils.tokenizer import get_tokenizer


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Atomic output


@pytest.mark.parametrize(("mode", "content"), [("w", "é"), ("wb", b"\xff")])
def test_atomic_write_appears_at_the_end_only(tmp_path, mode, content):
    path = tmp_path / "new" / "file"
    with atomic_write(path, mode) as file:
        file.write(content)
        assert not path.exists()
    assert path.read_bytes() == (content.encode() if mode == "w" else content)
    assert names(path.parent) == ["file"]


def test_atomic_write_leaves_the_old_file_and_nothing_else_after_an_error(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(TypeError), atomic_write(path) as file:
        file.write(b"bytes into a text file")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_atomic_write_keeps_a_symbolic_link(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with atomic_write(tmp_path / "link") as file:
        file.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_atomic_write_refuses_to_append(tmp_path):
    with pytest.raises(ValueError, match="whole files"), atomic_write(tmp_path / "file", "a"):
        pass


def test_atomic_directory_replaces_whole_or_not_at_all(tmp_path):
    path = tmp_path / "model"
    with atomic_directory(path) as aside:
        (aside / "old").touch()
    with pytest.raises(FileNotFoundError), atomic_directory(path) as aside:
        (aside / "no folder" / "file").touch()
    assert names(path) == ["old"]
    with atomic_directory(path) as aside:
        (aside / "new").touch()
    assert names(path) == ["new"]
    assert names(tmp_path) == ["model"]


# Logging and devices


@pytest.mark.parametrize(
    ("rank", "level", "seen"), [("0", "INFO", "iw"), ("1", "INFO", "w"), ("1", "DEBUG", "iw"), ("0", "WARNING", "w")]
)
def test_only_rank_0_speaks_below_warning(request, monkeypatch, capsys, rank, level, seen):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("OPENRLHF_LOG_LEVEL", level)
    root = logging.getLogger("openrlhf")
    request.addfinalizer(partial(root.setLevel, root.level))
    monkeypatch.setattr(root, "handlers", [])  # so that the handler is made anew, on the captured stream
    logger = init_logger("some_script")
    assert logger.name == "openrlhf.some_script"
    logger.info("i")
    logger.warning("w")
    lines = capsys.readouterr().err.splitlines()
    assert "".join(line[-1] for line in lines) == seen


def test_unknown_log_level_is_refused(monkeypatch):
    monkeypatch.setenv("OPENRLHF_LOG_LEVEL", "LOUD")
    with pytest.raises(ValueError, match="OPENRLHF_LOG_LEVEL='LOUD'"):
        quiet_libraries()


def test_devices_agree_with_each_other():
    assert devices.current_device().type == devices.device_type()
    assert (devices.dist_backend() == "nccl") == (devices.device_type() == "cuda") == (devices.num_gpus() > 0)
    assert 0 < devices.peak_memory_gib() < 1000


def test_random_state_continues_where_it_was_taken(tmp_path):
    def draws() -> tuple[float, float, float]:
        return random.gauss(0, 1), float(np.random.standard_normal()), float(torch.randn(()))

    set_seed(3)
    draws()  # leaves half a pair of Gaussian numbers in the generators
    torch.save(rng_state(), tmp_path / "rng.pt")
    want = draws()
    set_seed(4)
    set_rng_state(torch.load(tmp_path / "rng.pt", weights_only=True))
    assert draws() == want


# Tokenizer


def save_tokenizer(folder: Path, chat_template: str | None = "{{ messages }}", **special_tokens: str) -> str:
    words = Tokenizer(WordLevel({"<eos>": 0, "<pad>": 1, "<unk>": 2}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **special_tokens)
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_tokenizer_pads_left_with_eos_only_where_it_has_no_padding(tmp_path):
    tokenizer = get_tokenizer(save_tokenizer(tmp_path / "a", eos_token="<eos>"))
    assert (tokenizer.pad_token, tokenizer.padding_side) == ("<eos>", "left")
    tokenizer = get_tokenizer(save_tokenizer(tmp_path / "b", eos_token="<eos>", pad_token="<pad>"))
    assert tokenizer.pad_token == "<pad>"


def test_a_tokenizer_without_end_or_padding_is_refused(tmp_path):
    with pytest.raises(ValueError, match="neither a pad_token nor an eos_token"):
        get_tokenizer(save_tokenizer(tmp_path / "b"))


# DeepSpeed's configuration


def test_every_setting_lands_in_the_deepspeed_config():
    config = DeepspeedConfig(
        zero_stage=3, bf16=True, adam_offload=True, zpg=2, grad_accum_dtype="fp32", overlap_comm=True, max_norm=0.7
    )
    result = training_config(config, world_size=4)
    zero = result["zero_optimization"]
    assert (zero["stage"], zero["overlap_comm"], zero["zero_hpz_partition_size"]) == (3, True, 2)
    assert zero["offload_optimizer"]["device"] == "cpu"
    assert "offload_param" not in zero
    assert result["bf16"] == {"enabled": True}
    assert result["data_types"] == {"grad_accum_dtype": "fp32"}
    assert result["gradient_clipping"] == 0.7
    assert (result["train_micro_batch_size_per_gpu"], result["gradient_accumulation_steps"]) == (1, 1)


def test_inference_config_offloads_parameters_and_knows_no_optimizer():
    result = inference_config(DeepspeedConfig(zero_stage=3, param_offload=True, adam_offload=True), world_size=1)
    assert result["zero_optimization"]["offload_param"]["device"] == "cpu"
    assert "offload_optimizer" not in result["zero_optimization"]
    assert "gradient_clipping" not in result


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"zero_stage": 4}, "--zero_stage"),
        ({"zero_stage": 0, "adam_offload": True}, "--adam_offload"),
        ({"zero_stage": 2, "param_offload": True}, "--ref_reward_offload"),
        ({"zero_stage": 3, "zpg": 3}, "--zpg"),
        ({"zero_stage": 2, "zpg": 2}, "--zpg"),
        ({"grad_accum_dtype": "fp8"}, "--grad_accum_dtype"),
        ({"grad_accum_dtype": "bf16"}, "--bf16"),
        ({"zero_stage": 0, "grad_accum_dtype": "fp32"}, "--grad_accum_dtype"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, flag):
    with pytest.raises(ValueError, match=flag):
        training_config(DeepspeedConfig(**settings), world_size=4)


# Optimizer


def test_only_matrices_decay():
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    model[1].weight.requires_grad_(False)
    decayed, not_decayed = parameter_groups(model, 0.1)
    assert decayed == {"params": [model[0].weight], "weight_decay": 0.1}
    assert not_decayed == {"params": [model[0].bias, model[1].bias], "weight_decay": 0.0}


def test_lr_factor_by_hand():
    # 2 warm-up steps of 6: 1/2, 1; then progress 1/4, 2/4, 3/4, 1 of the cosine from 1 to 0.1;
    # cos(pi/4) = 0.7071068: 0.1 + 0.45 * 1.7071068 = 0.8681981, 0.1 + 0.45 * 1 = 0.55, 0.1 + 0.45 * 0.2928932
    factors = [lr_factor(step, num_steps=6, num_warmup_steps=2, min_lr_ratio=0.1) for step in range(7)]
    assert factors == pytest.approx([0.5, 1.0, 0.8681981, 0.55, 0.2318019, 0.1, 0.1], abs=1e-7)


def test_schedule_is_transformers_one_step_ahead():
    def adamw() -> torch.optim.AdamW:
        return torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=2.0)

    ours, theirs = adamw(), adamw()
    scheduler = build_scheduler(ours, OptimizerConfig(lr_warmup_ratio=0.03), num_steps=70)  # ceil(2.1) = 3
    reference = get_cosine_with_min_lr_schedule_with_warmup(theirs, 3, 70, min_lr_rate=0.1)
    for _ in range(70):
        theirs.step()
        reference.step()
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-9)
        ours.step()
        scheduler.step()


# Parameters


def test_buckets_are_bounded_and_in_order():
    # bytes in fp32: (3, 4) 48, 3 12, (1, 3) 12, 1 4; a bound of 24 leaves the first one alone, above the bound
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    buckets = [[name for name, _ in bucket] for bucket in named_parameter_buckets(model, 24)]
    assert buckets == [["0.weight"], ["0.bias", "1.weight"], ["1.bias"]]


def test_rotary_frequencies_are_recomputed_with_scaling():
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=32,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    )
    model = LlamaForCausalLM(config)
    want = model.model.rotary_emb.inv_freq.clone()
    model.bfloat16()
    assert not torch.equal(model.model.rotary_emb.inv_freq.float(), want)
    restore_rotary_buffers(model)
    assert torch.equal(model.model.rotary_emb.inv_freq, want)
    assert "inv_freq" in dict(model.model.rotary_emb.named_buffers())
    assert model.lm_head.weight.dtype == torch.bfloat16


def test_client_state_must_be_plain():
    _check_plain({"step": 1, "kl": [0.1, None, ("a", True)]}, "client_state")
    with pytest.raises(ValueError, match=r"client_state\['kl'\]\[0\] is a float64"):
        _check_plain({"kl": [np.float64(0.1)]}, "client_state")
