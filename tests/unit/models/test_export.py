"""Exports of checkpoints whose weights `transformers` does not save under the names that they have in the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from openrlhf.errors import UserError
from openrlhf.models.export import export_checkpoint, untied
from openrlhf.utils.checkpoints import Checkpoint, begin_checkpoint, finish_checkpoint
from support.tiny_run import make_tokenizer
from sweep.tiny_architectures import tiny_model

TOKENS = torch.arange(10)[None]


def stage_0_checkpoint(folder: Path, model: torch.nn.Module) -> Checkpoint:
    begin_checkpoint(folder, "global_step1")
    torch.save({"module": model.state_dict()}, folder / "global_step1" / "mp_rank_00_model_states.pt")
    return finish_checkpoint(folder, "global_step1", world_size=1, zero_stage=0, state={})


@pytest.mark.parametrize("architecture", ["llama", "mixtral"])  # its experts are one tensor in memory
def test_the_exported_model_computes_what_the_trained_one_did(architecture: str, tmp_path: Path):
    model = tiny_model(architecture).float().eval()
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.6)
    model.save_pretrained(tmp_path / "base")
    make_tokenizer(tmp_path / "base")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
        want = model(TOKENS).logits
    checkpoint = stage_0_checkpoint(tmp_path / "_actor", model)
    export_checkpoint(checkpoint, tmp_path / "out", dtype="fp32", pretrain=str(tmp_path / "base"))
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        torch.testing.assert_close(exported(TOKENS).logits, want, rtol=0, atol=1e-6)
    assert exported.generation_config.temperature == 0.6


def test_the_weights_of_another_model_are_refused(tmp_path: Path):
    tiny_model("llama").save_pretrained(tmp_path / "base")
    make_tokenizer(tmp_path / "base")
    checkpoint = stage_0_checkpoint(tmp_path / "_actor", tiny_model("gpt2"))
    with pytest.raises(UserError, match=r"embed_tokens\.weight is missing; pass --pretrain"):
        export_checkpoint(checkpoint, tmp_path / "out", dtype="bf16", pretrain=str(tmp_path / "base"))


def test_tied_weights_are_there_once_under_their_first_name():
    shared, lone = torch.zeros(2, 2), torch.zeros(2, 2)
    assert list(untied({"embed": shared, "norm": lone, "head": shared})) == ["embed", "norm"]
