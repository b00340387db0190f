"""How commands end: exit codes, messages and tracebacks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from openrlhf.cli.command import files_are_the_users, run_command
from openrlhf.errors import UserError


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (1, 1)])
def test_a_command_that_returns(result: int | None, code: int) -> None:
    assert run_command(lambda: result) == code


def test_what_a_user_can_mend_is_one_message_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        raise UserError("rows.jsonl:3: no prompt; add it")

    assert run_command(body) == 2
    assert capsys.readouterr().err == "error: rows.jsonl:3: no prompt; add it\n"


def test_a_fault_is_no_message() -> None:
    def body() -> None:
        raise ValueError("from inside a library")

    with pytest.raises(ValueError, match="from inside"):
        run_command(body)


PROGRAM = """
import os, signal, sys
from openrlhf.cli.command import run_command

def body():
    try:
        {action}
        signal.pause()
    finally:
        print("cleaned up", flush=True)

sys.exit(run_command(body))
"""


@pytest.mark.parametrize(
    ("action", "code", "last"),
    [
        ("os.kill(os.getpid(), signal.SIGINT)", 130, "interrupted"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, ""),
        ("raise ValueError('a fault')", 1, "ValueError: a fault"),
    ],
)
def test_signals_end_quietly_and_faults_with_a_traceback(action: str, code: int, last: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(action=action)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (code, "cleaned up\n")
    assert (done.stderr.splitlines() or [""])[-1] == last
    assert ("Traceback" in done.stderr) == (code == 1)


def test_a_file_that_the_user_named_is_the_users(tmp_path, capsys):
    def read(path):
        with files_are_the_users():
            open(path).close()

    assert run_command(lambda: read(tmp_path / "none")) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'none'}: No such file or directory\n"
    with pytest.raises(OSError, match="no path"), files_are_the_users():
        raise OSError("no path")
