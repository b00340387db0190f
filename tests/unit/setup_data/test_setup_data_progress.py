"""Progress of answers and books: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from setup_data import progress
from setup_data.progress import Progress
from setup_data.writing.answer_store import Answer, AnswerStore
from setup_data.writing.client import Prompt, ServerSettings, Writer

ANSWER = Answer(key="k", about="emma", text="Yes.", usable=True, prompt_tokens=300, completion_tokens=60)
LOGGER = "openrlhf.setup_data.progress"


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def answers_in(count: int, seconds_each: float, clock: Clock) -> None:
    """A step of `count` answers."""
    shown = Progress("synopses", unit="answer")
    shown.add(count)
    for _ in range(count):
        clock.now += seconds_each
        shown.count(read=ANSWER.prompt_tokens, written=ANSWER.completion_tokens)
        shown.done()
    shown.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock.monotonic)
    monkeypatch.delenv("OPENRLHF_PROGRESS_BARS", raising=False)
    return clock


def test_no_bar_in_a_file(clock: Clock, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, LOGGER):
        answers_in(100, 1.0, clock)
    written = capsys.readouterr()
    assert "\r" not in written.err + written.out
    assert "answer/s" not in written.err + written.out
    # lines at 30, 60 and 90 s, and one at the end; 300 and 60 tokens a second
    assert [record.getMessage() for record in caplog.records] == [
        f"synopses: {done} of 100 answers (read 300 tokens/s, written 60 tokens/s)" for done in (30, 60, 90, 100)
    ]


def test_a_bar_where_it_is_wanted(
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OPENRLHF_PROGRESS_BARS", "1")
    with caplog.at_level(logging.INFO, LOGGER):
        answers_in(3, 1.0, clock)
    assert "3/3" in capsys.readouterr().err
    assert caplog.records == []


def test_kept_answers_count_as_done(
    clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A writer whose answers are all there: no request, no bar, one line."""

    async def ask_again() -> list[str]:
        store = AnswerStore(tmp_path / "plan.jsonl", writable=True)
        writer = Writer(ServerSettings(url="http://127.0.0.1:9/v1", model="m"), {"plan": store}, may_ask=frozenset())
        prompt = Prompt(step="plan", about="emma", messages=({"role": "user", "content": "?"},), max_tokens=8)
        await store.put(Answer(**{**vars(ANSWER), "key": writer._key(prompt)}))
        with writer.show_progress("plan"):
            answers = [await writer.ask(prompt, str) for _ in range(2)]
        await writer.close()
        store.close()
        return answers

    with caplog.at_level(logging.INFO, LOGGER):
        assert asyncio.run(ask_again()) == ["Yes.", "Yes."]
    assert "\r" not in capsys.readouterr().err
    assert [record.getMessage() for record in caplog.records] == ["plan: 2 of 2 answers"]
