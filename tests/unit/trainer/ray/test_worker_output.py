"""What the driver shows of its workers' lines."""

from __future__ import annotations

import inspect
import json

import pytest
from ray._private import worker
from ray.experimental.tqdm_ray import RAY_TQDM_MAGIC

from openrlhf.trainer.ray import worker_output
from openrlhf.trainer.ray.worker_output import WorkerOutput, prefixed

OURS = "12:32:54  step 1/2: reward 0.5"


def batch(*lines: str, is_err: bool = False, ip: str = "127.0.0.1") -> dict:
    return {
        "lines": list(lines),
        "pid": 24,
        "ip": ip,
        "localhost": "127.0.0.1",
        "actor_name": "LLMRayActor",
        "is_err": is_err,
    }


def bar(x: int, *, closed: bool = False) -> str:
    state = {"__magic_token__": RAY_TQDM_MAGIC, "x": x, "pos": 0, "desc": "sampling", "total": 8, "unit": "it"}
    return json.dumps({**state, "ip": "", "pid": 24, "uuid": "u", "closed": closed})


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (OURS, OURS),
        ("Triton is installed, but", "(LLMRayActor pid=24) Triton is installed, but"),
        ("12:32:54 INFO [0] another: step", "(LLMRayActor pid=24) 12:32:54 INFO [0] another: step"),
    ],
)
def test_our_lines_stay_as_they_are_and_others_say_where_they_come_from(line: str, shown: str):
    assert prefixed(line, batch()) == shown


def test_a_line_from_another_host_names_it():
    assert prefixed("hello", batch(ip="10.0.0.2")) == "(LLMRayActor pid=24, ip=10.0.0.2) hello"


def test_files_get_whole_lines_and_no_bars(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENRLHF_PROGRESS_BARS", raising=False)
    WorkerOutput().show(batch(bar(0), OURS, bar(8, closed=True), is_err=True))
    assert capsys.readouterr().err == OURS + "\n"


def test_library_bars_and_the_autoscalers_reports_are_left_out(capsys: pytest.CaptureFixture[str]):
    output = WorkerOutput()
    output.show(batch("Loading weights:   0%|     | 0/26\rLoading weights: 100%|#####| 26/26", "loaded"))
    output.show({**batch("Total Usage:"), "pid": "autoscaler"})
    assert capsys.readouterr().out == "(LLMRayActor pid=24) loaded\n"


def test_bars_are_drawn_where_they_are_wanted_without_a_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENRLHF_PROGRESS_BARS", "1")
    output = WorkerOutput()
    output.show(batch(bar(0), bar(4), OURS, bar(8, closed=True)))
    captured = capsys.readouterr()
    assert "sampling: 100%" in captured.err
    assert "8/8" in captured.err
    assert "it/s" not in captured.err
    assert captured.out == OURS + "\n"
    assert output._bars == {}


def test_ray_still_prints_through_the_handler_that_we_replace():
    """Fails where Ray renames its handler: lines would then be shown twice."""
    source = inspect.getsource(worker)
    assert source.count(f'"{worker_output.RAYS_OWN_HANDLER}"') >= 2
    assert "global_worker_stdstream_dispatcher.emit(data)" in source
