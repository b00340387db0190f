"""The one bar of a run, drawn by the process that has it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from openrlhf.utils.progress import Progress, doing, progress_bar, read_state, render, run_bar, state_line
from openrlhf.utils.terminal import Screen, plain


@pytest.fixture
def drawn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What comes after the bar's figures, state by state, once the test's run is over."""
    monkeypatch.setenv("OPENRLHF_PROGRESS_BARS", "1")
    states: list[str] = []
    yield states
    shown = [bar.partition("]")[2].removeprefix(", ") for bar in capsys.readouterr().err.split("\r")[:-1]]
    assert shown == states


def test_a_resumed_run_leaves_what_was_done_out_of_its_rate():
    # 10 of 40 were there before; 10 more took 100 s: 20 are left, 200 s
    text = render(Progress(done=20, total=40, resumed_at=10, elapsed_s=100.0, doing="scoring"), columns=70)
    assert text.startswith("training:  50%|")
    assert text.endswith("| 20/40 [01:40<03:20], scoring")
    assert len(text) == 70


def test_a_state_survives_its_line():
    state = Progress(done=1, total=2, doing="sampling 3/8")
    assert read_state(state_line(state)) == state
    assert read_state(state_line(None)) is None


def test_phases_nest_and_are_counted_on_the_one_bar(drawn: list[str]):
    with run_bar(2) as bar:
        assert bar is not None
        with doing("evaluating"), progress_bar("sampling", total=2) as counter:
            counter.update(2)
        bar.advance()
    drawn += ["evaluating", "evaluating: sampling", "evaluating: sampling 0/2", "evaluating: sampling 2/2"]
    drawn += ["evaluating", "", "", ""]  # one step more is done; the bar goes


def test_without_a_run_nothing_is_shown(drawn: list[str]):
    with run_bar(2, enabled=False), progress_bar("sampling", total=2) as counter:
        counter.update(1)
    with doing("evaluating"):
        pass
    drawn += []


def test_a_line_is_above_the_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENRLHF_PROGRESS_BARS", raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    screen = Screen()
    screen.bar("10 %")
    screen.line("step 1")
    screen.bar("")
    clear = "\r\x1b[K"
    assert capsys.readouterr().err == f"{clear}10 %{clear}step 1\n10 %{clear}"


def test_plain_text_has_no_escape_codes():
    assert plain("\x1b[36m(a)\x1b[0m b\x1b[K") == "(a) b"
