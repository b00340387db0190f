"""DeepSpeed's files are read without running code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from openrlhf.utils.deepspeed.reading import FORCE, reading_weights_only


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
