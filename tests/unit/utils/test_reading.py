"""DeepSpeed's files are read without running code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from openrlhf.utils.deepspeed.library import import_deepspeed
from openrlhf.utils.deepspeed.reading import FORCE, load_weights_only, reading_weights_only


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("evil",)


def test_deepspeeds_own_reads_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(FORCE, raising=False)
    torch.save({"module": Evil()}, "file.pt")
    with reading_weights_only(), pytest.raises(pickle.UnpicklingError):
        torch.load("file.pt", weights_only=False)
    assert not Path("evil").exists()
    assert FORCE not in os.environ


def test_a_checkpoints_zero_stage_is_read_whatever_python_pickled_it(tmp_path: Path):
    """Up to Python 3.11.3 an enum's own pickle is `getattr(ZeroStageEnum, name)`, from 3.11.4 on it is a call."""
    import_deepspeed()
    from deepspeed.runtime.zero.config import ZeroStageEnum

    path = tmp_path / "states.pt"
    torch.save({"zero_stage": ZeroStageEnum.gradients, "most": ZeroStageEnum.max_stage}, path)
    assert load_weights_only(str(path)) == {"zero_stage": ZeroStageEnum.gradients, "most": ZeroStageEnum.weights}
    assert b"getattr" not in pickle.dumps(ZeroStageEnum.gradients, protocol=2)
