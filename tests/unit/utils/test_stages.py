"""What a run says while it starts."""

from __future__ import annotations

import logging
import re
import time

import pytest

from openrlhf.utils import stages
from openrlhf.utils.durations import duration
from openrlhf.utils.stages import stage


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1:00"),
        (125, "2:05"),
        (3_599.7, "1:00:00"),
        (3_725, "1:02:05"),
        (86_400 * 3 + 3_725, "3 d 01:02:05"),
    ],
)
def test_durations_are_as_long_as_they_need_to_be(seconds: float, expected: str):
    assert duration(seconds) == expected


def test_a_stage_says_what_it_waits_for_and_then_how_long_it_took(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stages, "SHORT_S", 0.0)
    with caplog.at_level(logging.INFO), stage("loading models: 2 of them") as loading:
        assert caplog.messages == ["loading models: 2 of them ..."]
        loading.ready("the first")
    ready, done = caplog.messages[1:]
    assert re.fullmatch(r"the first: ready after \d\.\d s", ready)
    assert re.fullmatch(r"loading models: done in \d\.\d s", done)


def test_a_short_stage_ends_without_a_line(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stages, "SHORT_S", 60.0)
    with caplog.at_level(logging.INFO), stage("reading"):
        pass
    assert caplog.messages == ["reading ..."]


def fail_once_reminded(caplog: pytest.LogCaptureFixture) -> None:
    with stage("reading", remind_every_s=0.01):
        deadline = time.monotonic() + 10
        while not any("so far" in message for message in caplog.messages):
            assert time.monotonic() < deadline
        raise OSError("gone")


def test_a_long_stage_says_that_it_still_waits_and_a_failed_one_is_not_done(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO), pytest.raises(OSError, match="gone"):
        fail_once_reminded(caplog)
    assert caplog.messages[0] == "reading ..."
    assert re.fullmatch(r"reading: \d\.\d s so far", caplog.messages[1])
    assert not any("done" in message for message in caplog.messages)
