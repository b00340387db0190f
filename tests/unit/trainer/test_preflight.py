"""What the end needs is tried at the start: places, room, a save of the model's small parts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, GenerationConfig

from openrlhf.cli.flags import parse_args, to_config
from openrlhf.config import CheckpointConfig, DeepspeedConfig, ModelConfig
from openrlhf.errors import UserError
from openrlhf.models.actor import load_causal_lm
from openrlhf.trainer import preflight
from openrlhf.trainer.preflight import check_disks, check_outputs, expected_sizes, model_shape, rehearse_save
from support.tiny_run import arguments, make_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def write_generation_config(model: Path, **content: Any) -> None:
    (model / "generation_config.json").write_text(json.dumps(content))


def test_a_contradicting_generation_config_is_mended_with_a_line(model: Path, tmp_path: Path, caplog):
    write_generation_config(model, do_sample=False, temperature=0.6, top_p=0.9, eos_token_id=2)
    with caplog.at_level(logging.WARNING):
        loaded = load_causal_lm(ModelConfig(pretrain=str(model)))
    assert "do_sample False with temperature 0.6, top_p 0.9" in caplog.text
    loaded.save_pretrained(tmp_path / "saved")
    saved = GenerationConfig.from_pretrained(tmp_path / "saved")
    assert (saved.do_sample, saved.temperature, saved.top_p, saved.eos_token_id) == (False, None, None, 2)


def test_a_sound_generation_config_stays_as_it_is(model: Path, caplog):
    write_generation_config(model, do_sample=True, temperature=0.6)
    assert load_causal_lm(ModelConfig(pretrain=str(model))).generation_config.temperature == 0.6
    assert caplog.text == ""


def refuse(folder: str) -> None:
    raise OSError("no room")


def test_what_cannot_be_saved_at_the_end_is_refused_at_the_start(model: Path):
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    rehearse_save(ModelConfig(pretrain=str(model)), tokenizer)
    tokenizer.save_pretrained = refuse
    with pytest.raises(UserError, match="cannot be saved, so the trained model could not be either"):
        rehearse_save(ModelConfig(pretrain=str(model)), tokenizer)
    write_generation_config(model, num_beams=1, num_return_sequences=5)
    with pytest.raises(UserError, match=r"generation_config.json is refused: .*num_return_sequences"):
        rehearse_save(ModelConfig(pretrain=str(model)), tokenizer)


def test_parameters_are_counted_without_weights(model: Path):
    expected = load_causal_lm(ModelConfig(pretrain=str(model))).num_parameters()
    (model / "model.safetensors").unlink()
    assert model_shape(ModelConfig(pretrain=str(model))).parameters == expected


@pytest.mark.parametrize(
    ("stage", "bf16", "per_parameter"),
    # Adam's moments 8; fp32 masters 4 beside bf16 weights or ZeRO's partitions; the model's weights below stage 3
    [(0, False, 12), (0, True, 14), (2, False, 16), (2, True, 14), (3, False, 12), (3, True, 12)],
)
def test_the_size_of_a_checkpoint(stage: int, bf16: bool, per_parameter: int):
    deepspeed = DeepspeedConfig(zero_stage=stage, bf16=bf16)
    sizes = expected_sizes(CheckpointConfig(save_path="s", ckpt_path="c", save_steps=1), deepspeed, 1000)
    assert sizes == {Path("s/final_model"): 2000 if bf16 else 4000, Path("c/_actor"): 1000 * per_parameter}
    assert list(expected_sizes(CheckpointConfig(save_path="s"), deepspeed, 1000)) == [Path("s/final_model")]


def test_a_disk_that_is_too_small_is_named_with_both_numbers(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(preflight, "free_bytes", lambda path: 5_000_000_000)
    check_disks({tmp_path / "a": 3_000_000_000, tmp_path / "b": 2_000_000_000})
    with pytest.raises(UserError, match=r"a and .*b: not enough room, needed 6.000 GB .*, free 5.000 GB"):
        check_disks({tmp_path / "a": 3_000_000_000, tmp_path / "b": 3_000_000_000})


@pytest.mark.parametrize("flag", ["save_path", "ckpt_path"])
def test_a_place_that_cannot_be_written_is_refused(flag: str, model: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    changes = {"save_steps": 1, flag: tmp_path / "file" / "folder"}
    config = to_config(parse_args(arguments(tmp_path, tmp_path / "out", **changes)))
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    with pytest.raises(UserError, match=f"--{flag} {tmp_path}/file/folder: cannot write there"):
        check_outputs(config, tokenizer)
