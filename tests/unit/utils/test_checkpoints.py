"""Which checkpoints count, in which order, and which are removed."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from openrlhf.errors import UserError
from openrlhf.utils import checkpoints
from openrlhf.utils.checkpoints import (
    begin_checkpoint,
    finish_checkpoint,
    last_size,
    newest_checkpoint,
    prune_checkpoints,
    prune_models,
    read_marker,
    remove_checkpoint,
)


def write(directory: Path, tag: str, *, num_bytes: int = 100, finish: bool = True) -> None:
    begin_checkpoint(directory, tag)
    (directory / tag / "weights.pt").write_bytes(b"x" * num_bytes)
    if finish:
        finish_checkpoint(directory, tag, world_size=2, zero_stage=3, state={"step": 1, "rate": 0.1})


def tags(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.is_dir()}


def newest_tag(directory: Path) -> str | None:
    checkpoint = newest_checkpoint(directory)
    return checkpoint.tag if checkpoint else None


def test_no_checkpoint_in_a_missing_or_empty_directory(tmp_path):
    assert newest_checkpoint(tmp_path / "missing") is None
    assert newest_checkpoint(tmp_path) is None


def test_marker_records_ranks_stage_and_size(tmp_path):
    write(tmp_path, "global_step1", num_bytes=321)
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint == read_marker(tmp_path / "global_step1")
    assert (checkpoint.sequence, checkpoint.world_size, checkpoint.zero_stage, checkpoint.num_bytes) == (1, 2, 3, 321)
    assert checkpoint.state == {"step": 1, "rate": 0.1}


def test_newest_is_the_last_written_not_the_highest_step(tmp_path):
    """A second run in the same folder starts from step 1 again, beside the first run's step 64."""
    write(tmp_path, "global_step64")
    write(tmp_path, "global_step8")
    assert newest_tag(tmp_path) == "global_step8"
    assert (tmp_path / "latest").read_text() == "global_step8"


def test_unfinished_checkpoint_does_not_count(tmp_path, caplog):
    write(tmp_path, "global_step1")
    write(tmp_path, "global_step2", finish=False)
    with caplog.at_level(logging.WARNING):
        assert newest_tag(tmp_path) == "global_step1"
    assert "global_step2 was interrupted" in caplog.text
    assert (tmp_path / "latest").read_text() == "global_step1"


@pytest.mark.parametrize("damage", ["truncate", "delete", "flip", "marker", "types", "gone"])
def test_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, caplog, damage):
    write(tmp_path, "global_step1")
    write(tmp_path, "global_step2")
    path = tmp_path / "global_step2"
    if damage == "truncate":
        (path / "weights.pt").write_bytes(b"x" * 99)
    elif damage == "delete":
        (path / "weights.pt").unlink()
    elif damage == "flip":
        (path / "weights.pt").write_bytes(b"x" * 99 + b"y")
    elif damage == "gone":
        (path / "COMPLETE").unlink()
    elif damage == "marker":
        (path / "COMPLETE").write_text('{"sequence": 2, "wor')
    else:
        (path / "COMPLETE").write_text(json.dumps({"sequence": 2, "world_size": 2, "zero_stage": 3, "files": None}))
    with caplog.at_level(logging.WARNING):
        assert newest_tag(tmp_path) == "global_step1"
    assert f"{tmp_path / 'global_step2'}" in caplog.text
    assert "damaged, passed over" in caplog.text


def test_a_flipped_byte_is_named_with_its_file(tmp_path, caplog):
    write(tmp_path, "global_step1")
    write(tmp_path, "global_step2")
    file = tmp_path / "global_step2" / "weights.pt"
    file.write_bytes(b"x" * 50 + b"X" + b"x" * 49)
    with caplog.at_level(logging.WARNING):
        newest_checkpoint(tmp_path)
    assert f"{file} is not what was written" in caplog.text


def test_all_damaged_is_refused_but_none_ever_finished_is_a_fresh_start(tmp_path):
    write(tmp_path, "global_step1", finish=False)
    assert newest_checkpoint(tmp_path) is None
    write(tmp_path, "global_step2")
    write(tmp_path, "global_step3")
    (tmp_path / "global_step2" / "weights.pt").write_bytes(b"y" * 100)
    (tmp_path / "global_step3" / "weights.pt").unlink()
    with pytest.raises(UserError, match=r"every checkpoint in .*step3/weights.pt is missing.*step2/weights.pt is not"):
        newest_checkpoint(tmp_path)


def test_a_checkpoint_that_is_half_removed_is_none(tmp_path, monkeypatch):
    """Its marker goes first, the mark of an interrupted one last."""
    write(tmp_path, "global_step1")
    (tmp_path / "global_step1" / "offloaded").mkdir()
    seen = []
    rmtree = checkpoints.shutil.rmtree

    def look_and_remove(path):
        seen.append(sorted(child.name for child in Path(path).iterdir()))
        rmtree(path)

    monkeypatch.setattr(checkpoints.shutil, "rmtree", look_and_remove)
    remove_checkpoint(tmp_path / "global_step1")
    assert seen[-1] == ["INCOMPLETE"]
    assert tags(tmp_path) == set()


def test_the_next_checkpoint_needs_what_the_last_one_took(tmp_path):
    assert last_size(tmp_path) == 0
    write(tmp_path, "global_step1", num_bytes=321)
    assert last_size(tmp_path) == 321


def test_writing_a_tag_anew_gives_up_the_old_one_first(tmp_path):
    write(tmp_path, "global_step1")
    write(tmp_path, "global_step2")
    begin_checkpoint(tmp_path, "global_step2")
    assert newest_tag(tmp_path) == "global_step1"
    assert (tmp_path / "latest").read_text() == "global_step1"
    assert {path.name for path in (tmp_path / "global_step2").iterdir()} == {"INCOMPLETE"}
    finish_checkpoint(tmp_path, "global_step2", world_size=2, zero_stage=3, state={})
    assert newest_tag(tmp_path) == "global_step2"


def test_prune_keeps_the_newest_by_number(tmp_path):
    for step in (1, 2, 3, 4):
        write(tmp_path, f"global_step{step}")
    prune_checkpoints(tmp_path, max_num=2, max_gb=1.0)
    assert tags(tmp_path) == {"global_step3", "global_step4"}


def test_prune_keeps_the_newest_by_size(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path, f"global_step{step}", num_bytes=1000)
    prune_checkpoints(tmp_path, max_num=9, max_gb=2500e-9)
    assert tags(tmp_path) == {"global_step2", "global_step3"}
    prune_checkpoints(tmp_path, max_num=9, max_gb=10e-9)  # too little for one: the newest stays all the same
    assert tags(tmp_path) == {"global_step3"}


def test_prune_removes_interrupted_ones_but_no_folder_that_is_not_ours(tmp_path):
    write(tmp_path, "global_step1", finish=False)
    (tmp_path / "global_step7").mkdir()  # DeepSpeed's, from elsewhere
    write(tmp_path, "global_step2")
    prune_checkpoints(tmp_path, max_num=1, max_gb=1.0)
    assert tags(tmp_path) == {"global_step2", "global_step7"}


def test_prune_removes_nothing_while_no_checkpoint_is_complete(tmp_path):
    write(tmp_path, "global_step1", finish=False)
    prune_checkpoints(tmp_path, max_num=1, max_gb=1.0)
    assert tags(tmp_path) == {"global_step1"}


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="plain folder name"):
        begin_checkpoint(tmp_path, "a/b")
    with pytest.raises(ValueError, match="max_ckpt_num"):
        prune_checkpoints(tmp_path, max_num=0, max_gb=1.0)


def test_saved_models_are_pruned_like_checkpoints_oldest_first(tmp_path):
    """Step 64 is an earlier run's; what has another name is not ours."""
    for age, name in enumerate(["global_step64_hf", "global_step8_hf", "global_step16_hf", "mine_hf"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
        os.utime(tmp_path / name, (age, age))
    prune_models(tmp_path, max_num=2)
    assert tags(tmp_path) == {"global_step8_hf", "global_step16_hf", "mine_hf"}
