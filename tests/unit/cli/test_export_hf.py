"""The export's command: what it takes for a checkpoint, what it refuses, the model card."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from openrlhf.cli.export_hf import export, main, parse_args
from openrlhf.cli.model_card import render_card
from openrlhf.cli.run_folder import find_checkpoint, find_run
from openrlhf.errors import UserError
from support.exported import make_checkpoint, make_export, make_run


@pytest.mark.parametrize("below", ["", "checkpoints", "checkpoints/_actor", "checkpoints/_actor/global_step2"])
def test_a_run_its_checkpoints_and_one_of_them_are_found(below: str, tmp_path: Path):
    checkpoint = make_run(tmp_path / "run")
    assert find_checkpoint(tmp_path / "run" / below) == checkpoint
    run = find_run(checkpoint, None)
    assert run is not None
    assert run.config["rollout_batch_size"] == 2


def test_the_newest_whole_checkpoint_of_a_run_is_taken(tmp_path: Path):
    make_run(tmp_path)
    newer = make_checkpoint(tmp_path / "checkpoints" / "_actor", step=4)
    damaged = make_checkpoint(tmp_path / "checkpoints" / "_actor", step=6)
    (damaged.path / "mp_rank_00_model_states.pt").write_bytes(b"weightz")
    assert find_checkpoint(tmp_path) == newer


def test_a_run_that_was_moved_is_found(tmp_path: Path):
    make_run(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    checkpoint = find_checkpoint(tmp_path / "new")
    assert checkpoint.path == tmp_path / "new/checkpoints/_actor/global_step2"
    assert find_run(checkpoint, None) is not None


def test_of_several_runs_one_is_to_be_named(tmp_path: Path):
    make_checkpoint(tmp_path / "checkpoint" / "ncp_7b" / "_actor")
    make_checkpoint(tmp_path / "checkpoint" / "ncp_3b" / "_actor")
    with pytest.raises(UserError, match="several runs"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "mp_rank_00_model_states.pt").write_bytes(b"weightz"), "is not what was written"),
        (lambda path: (path / "mp_rank_00_model_states.pt").unlink(), "is missing"),
        (lambda path: (path / "COMPLETE").unlink(), "no whole checkpoint in"),
    ],
)
def test_a_damaged_checkpoint_is_refused(spoil, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    checkpoint = make_checkpoint(tmp_path / "_actor")
    spoil(checkpoint.path)
    assert main([str(checkpoint.path), str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_in_the_way_stays(tmp_path: Path):
    checkpoint = make_checkpoint(tmp_path / "_actor")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years")
    for extra in ([], ["--push_to_hub", "model"]):
        with pytest.raises(UserError, match="is not empty: give another OUT"):
            export(parse_args([str(checkpoint.path), str(tmp_path / "out"), *extra]))
    assert main([str(checkpoint.path), str(tmp_path / "out" / "thesis.tex")]) == 2
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years"


def test_another_export_is_not_taken_for_this_one(tmp_path: Path):
    """The run has gone on since."""
    make_export(make_run(tmp_path), tmp_path / "out")
    make_checkpoint(tmp_path / "checkpoints" / "_actor", step=4)
    with pytest.raises(UserError, match="is the export of global_step2 in bf16: give another OUT"):
        export(parse_args([str(tmp_path), str(tmp_path / "out"), "--push_to_hub", "model"]))


def test_a_failed_export_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The model's folder is not a model."""
    checkpoint = make_checkpoint(tmp_path / "_actor")
    assert main([str(checkpoint.path), str(tmp_path / "out"), "--pretrain", str(tmp_path)]) == 2
    assert "model configuration" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_actor"]


def test_no_such_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err


def test_help_imports_no_torch():
    code = "import sys; from openrlhf.cli.export_hf import parse_args; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_card_tells_what_was_trained_and_no_ones_folders(tmp_path: Path):
    checkpoint = make_run(tmp_path / "run")
    card = render_card(checkpoint, find_run(checkpoint, None), name="my-model", dtype="bf16")
    assert card.startswith("---\nbase_model: ines/tiny-chat\nlibrary_name: transformers\n")
    assert "* data: json@rl_data\n" in card
    assert "* prompts: 3\n" in card
    assert "shape `nll_delta`" in card
    assert "| metric | step 0 | step 2 |" in card  # step 4 came after the checkpoint
    assert "| reward | 0.25 | 0.75 |" in card
    assert "--rollout_batch_size 2" in card
    assert "--use_kl_loss" in card
    for secret in (str(tmp_path), "/home", "secret_project", "use_wandb", "hidden"):
        assert secret not in card


def test_the_card_of_a_checkpoint_alone(tmp_path: Path):
    checkpoint = make_checkpoint(tmp_path / "_actor")
    card = render_card(checkpoint, find_run(checkpoint, None), name="my-model", dtype="bf16")
    assert "* base model: ines/tiny-chat\n" in card
    assert "## Command" not in card
