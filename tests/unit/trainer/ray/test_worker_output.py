"""What the driver shows of its workers' lines."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from ray._private import worker

from openrlhf.trainer.ray import worker_output
from openrlhf.trainer.ray.worker_output import Once, WorkerOutput, labelled
from openrlhf.utils.child_output import is_library_line
from openrlhf.utils.progress import Progress, state_line

OURS = "12:32:54  step 1/2  reward 0.5"


def batch(*lines: str, is_err: bool = False, ip: str = "127.0.0.1", pid: Any = 24) -> dict[str, Any]:
    return {
        "lines": list(lines),
        "pid": pid,
        "ip": ip,
        "localhost": "127.0.0.1",
        "actor_name": "LLMRayActor",
        "is_err": is_err,
    }


def bar(done: int, doing: str = "") -> str:
    return state_line(Progress(done=done, total=8, elapsed_s=3.0, doing=doing))


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (OURS, OURS),
        ("\x1b[33mTriton is installed\x1b[0m, but", "engine | Triton is installed, but"),
        ("INFO 11-25 12:32:54 [core.py:1] step", "engine | INFO 11-25 12:32:54 [core.py:1] step"),
    ],
)
def test_our_lines_stay_as_they_are_and_others_say_where_they_come_from(line: str, shown: str):
    assert labelled(line, batch()) == shown
    assert is_library_line(shown) == (line != OURS)


def test_another_host_is_named_and_so_is_ray_itself():
    assert labelled("hello", batch(ip="10.0.0.2")) == "engine@10.0.0.2 | hello"
    assert labelled("a worker died", {"lines": [], "pid": "raylet", "is_err": False}) == "ray | a worker died"
    assert labelled("hello", {**batch(), "actor_name": "TwentyTokensActor"}) == "policy | hello"


def test_files_get_whole_lines_and_no_bars(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENRLHF_PROGRESS_BARS", raising=False)
    WorkerOutput().show(batch(bar(0), OURS, bar(8), is_err=True))
    assert capsys.readouterr().err == OURS + "\n"


def test_library_bars_and_the_autoscalers_reports_are_left_out(capsys: pytest.CaptureFixture[str]):
    output = WorkerOutput()
    output.show(batch("Loading weights:   0%|     | 0/26\rLoading weights: 100%|#####| 26/26", "loaded"))
    output.show(batch("Total Usage:", pid="autoscaler"))
    assert capsys.readouterr().out == "engine | loaded\n"


def test_one_bar_is_drawn_where_it_is_wanted_and_goes_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENRLHF_PROGRESS_BARS", "1")
    WorkerOutput().show(batch(bar(0), bar(4, "sampling 2/3"), OURS, state_line(None)))
    captured = capsys.readouterr()
    _, second, gone, rest = captured.err.split("\r")
    assert second.startswith("training:  50%|")
    assert second.endswith("4/8 [00:03<00:03], sampling 2/3")
    assert gone == rest == ""
    assert captured.out == OURS + "\n"


def passed(*lines: str) -> list[str]:
    once = Once()
    return [line for line in lines if once.lets_pass(line, "24")]


def test_what_is_said_again_is_shown_once():
    first, again = "WARNING 11-25 12:32:54 [x.py:1] slow", "WARNING 11-26 01:02:03 [x.py:1] slow"
    assert passed(first, "  because", again, "  because", "") == [first, "  because"]
    assert passed("12:32:54  WARNING: full", "12:32:55  WARNING (rank 1): full", OURS, OURS) == [
        "12:32:54  WARNING: full",
        "12:32:55  WARNING (rank 1): full",
        OURS,
        OURS,
    ]


def test_tracebacks_are_always_whole():
    traceback = ["Traceback (most recent call last):", '  File "x.py", line 1', "    x", "    ^", "ValueError: x"]
    assert passed(*traceback, *traceback) == traceback * 2


def test_ray_still_prints_through_what_we_replace():
    """Fails where Ray renames its handler or its function: lines would then be shown twice, or with colours."""
    source = inspect.getsource(worker)
    assert source.count(f'"{worker_output.RAYS_OWN_HANDLER}"') >= 2
    assert "global_worker_stdstream_dispatcher.emit(data)" in source
    assert "print_to_stdstream(" in inspect.getsource(worker.listen_error_messages)
