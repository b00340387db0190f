"""How a line of ours looks."""

from __future__ import annotations

import logging

import pytest

from openrlhf.utils.logging import ROOT_NAME, LineFormatter, is_our_line


def line(level: int, message: str) -> str:
    return LineFormatter().format(logging.LogRecord("openrlhf.trainer", level, "", 0, message, None, None))


def test_a_line_is_time_and_message_and_a_warning_says_so():
    assert line(logging.INFO, "step 1/2")[8:] == "  step 1/2"
    assert line(logging.WARNING, "equal")[8:] == "  WARNING: equal"
    assert is_our_line(line(logging.INFO, "step 1/2"))


def test_another_rank_says_which(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "3")
    assert line(logging.ERROR, "full")[8:] == "  ERROR (rank 3): full"


def test_with_everything_told_the_logger_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logging.getLogger(ROOT_NAME), "level", logging.DEBUG)
    assert line(logging.INFO, "step 1/2")[8:] == "  INFO openrlhf.trainer: step 1/2"


@pytest.mark.parametrize("text", ["INFO 11-25 12:32:54 [core.py:1] step", "12:32:54 step", "  12:32:54  step", ""])
def test_what_libraries_say_is_not_ours(text: str):
    assert not is_our_line(text)
