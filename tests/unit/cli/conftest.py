"""A folder that a good command line works in."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.command_line import Problems, find_problems, make_folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model, prompts and a baseline map in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BASELINE_PPL_PATH", raising=False)
    make_folder(tmp_path)
    return tmp_path


@pytest.fixture
def problems(folder: Path) -> Problems:
    """What the checks say of a good command line with a change, in that folder."""
    return find_problems
