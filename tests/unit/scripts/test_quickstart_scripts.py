"""What quickstart.sh shows: its commands' own lines and bars, and the table at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.quickstart import report, run_step

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("line", "from_stdout", "expected"),
    [
        ("train  20 rows", True, True),  # a command's own output
        ("12:32:54  step 1/2", False, True),
        ("engine | Triton is installed, but", True, False),
        ("[2026-11-22 11:41:52,409] [WARNING] [real_accelerator.py:213] CPU", True, False),
        ("FutureWarning: old", False, False),
    ],
)
def test_only_our_own_lines_are_shown(line: str, from_stdout: bool, expected: bool) -> None:
    assert run_step.is_shown(line, from_stdout=from_stdout) == expected


def run_a_step(tmp_path: Path, code: str) -> subprocess.CompletedProcess[str]:
    script = [
        sys.executable,
        str(ROOT / "scripts" / "quickstart" / "run_step.py"),
        "--log",
        str(tmp_path / "logs" / "step.log"),
        "--",
    ]
    return subprocess.run([*script, sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_step_shows_its_command_and_logs_everything(tmp_path: Path) -> None:
    result = run_a_step(tmp_path, "import sys; print('result 1'); print('library noise', file=sys.stderr)")
    assert result.returncode == 0
    command, shown = result.stdout.splitlines()
    assert command.startswith("+ ")
    assert "result 1" in command
    assert shown == "result 1"
    log = (tmp_path / "logs" / "step.log").read_text()
    assert "result 1" in log
    assert "library noise" in log


def test_the_log_has_whole_lines_and_no_bars(tmp_path: Path) -> None:
    """Bars end with a carriage return, or with the line when they are full; lines may come in pieces and with CRLF."""
    code = """
import sys, time
for piece in ("one\\r\\n", "\\rtraining:  50%|#    | 1/2", "\\r        \\rtw", "o\\n", "\\rtraining: 100%|##| 2/2\\n",
              "three\\r", "\\nfour"):
    sys.stderr.write(piece); sys.stderr.flush(); time.sleep(0.05)
"""
    result = run_a_step(tmp_path, code)
    assert result.returncode == 0
    assert (tmp_path / "logs" / "step.log").read_text().split("\n") == ["one", "two", "three", "four", ""]


def test_a_failed_step_shows_why_names_its_log_and_keeps_its_code(tmp_path: Path) -> None:
    result = run_a_step(tmp_path, "import sys; print('error: the cause', file=sys.stderr); sys.exit(7)")
    assert result.returncode == 7
    assert "error: the cause" in result.stderr
    assert f"failed with code 7; its whole output is in {tmp_path / 'logs' / 'step.log'}" in result.stderr


def test_ctrl_c_says_that_the_command_goes_on_from_there(tmp_path: Path) -> None:
    code = "import sys, time\nprint('ready', flush=True)\ntry: time.sleep(60)\nexcept KeyboardInterrupt: sys.exit(130)"
    log = tmp_path / "log"
    step = subprocess.Popen(
        [sys.executable, run_step.__file__, "--log", str(log), "--", sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # nohup's shell ignores it
    )
    assert step.stdout is not None
    while step.stdout.readline() != "ready\n":
        pass
    os.killpg(step.pid, signal.SIGINT)  # a terminal sends it to both
    assert step.stdout.read() == f"interrupted: the same command goes on from what is there (log: {log})\n"
    assert step.wait(timeout=10) == 130


def test_the_report_compares_the_first_with_the_last_evaluation() -> None:
    rows = [
        {"step": 0, "phase": "eval", "reward": 0.25, "improvement_pct": -1.5, "response_length": 60.0},
        {"step": 1, "phase": "train", "reward": 0.3, "kl": 0.001, "response_length": 64.0, "time/step_s": 12.345},
        {"step": 2, "phase": "eval", "reward": 0.5, "improvement_pct": 0.75, "response_length": 62.0},
        {
            "step": 4,
            "phase": "eval",
            "reward": 0.75,
            "improvement_pct": 2.0,
            "improvement_pct_ci_low": -0.5,
            "improvement_pct_ci_high": 4.0,
            "response_length": 63.0,
        },
    ]
    lines = report.report(rows, None)
    assert [line.split() for line in lines if line.strip() and line.split()[0].isdigit()] == [
        ["0", "0.25", "-1.5", "-", "-", "60"],
        ["4", "0.75", "2", "-0.5", "4", "63"],
        ["1", "0.3", "0.001", "64", "12.35"],
    ]


def test_the_report_needs_no_row_in_particular() -> None:
    assert report.report([], None) == []
    _, _, values, _ = report.report([{"step": 1, "phase": "train", "reward": None}], None)
    assert values.split() == ["1", "-", "-", "-"]


def test_a_run_without_metrics_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["--run", str(tmp_path)]) == 2
    assert "metrics.jsonl is not there" in capsys.readouterr().err
