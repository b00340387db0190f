"""Runs one command of quickstart.sh: shows it, its own output and its progress bars; the rest goes to a log file.

    python scripts/quickstart/run_step.py --log runs/quickstart/train.log -- python train_ncp.py ...

What the libraries under the command say (vLLM, Ray, DeepSpeed) fills screens and matters only when something fails:
then the log's last lines are shown and the log is named. The exit code is the command's.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from openrlhf.utils.child_output import is_library_line, pieces
from openrlhf.utils.logging import is_our_line
from openrlhf.utils.terminal import BARS_VARIABLE, bars_wanted, screen

DEEPSPEED_LOG = re.compile(r"^\[\d{4}-\d\d-\d\d [\d:,]+\] \[")
TAIL_LINES = 30


def is_shown(line: str, *, from_stdout: bool) -> bool:
    """Whether a line is; the log has it in any case."""
    if is_our_line(line):
        return True
    return from_stdout and not is_library_line(line) and not DEEPSPEED_LOG.match(line)


def run(command: Sequence[str], log_path: Path) -> int:
    """Runs the command; its exit code."""
    screen().line("+ " + shlex.join(command), sys.stdout)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    bars = "1" if bars_wanted() and sys.stdout.isatty() else "0"
    environment = {**os.environ, BARS_VARIABLE: bars}  # into a pipe, from which they are drawn here
    with (
        open(log_path, "wb") as log,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
    ):

        def keep(line: str) -> None:  # both streams' threads do, a line at a time
            log.write(line.encode() + b"\n")
            log.flush()

        def follow(stream: IO[bytes], from_stdout: bool) -> None:
            for text, is_bar in pieces(stream, keep):
                if is_bar:
                    screen().bar(text)
                elif is_shown(text, from_stdout=from_stdout):
                    screen().line(text, sys.stdout)

        assert process.stdout is not None
        assert process.stderr is not None
        followers = [
            threading.Thread(target=follow, args=(process.stdout, True), daemon=True),
            threading.Thread(target=follow, args=(process.stderr, False), daemon=True),
        ]
        try:
            for follower in followers:
                follower.start()
            code = process.wait()
        except KeyboardInterrupt:  # the command got it too: let it stop its own workers
            process.wait()
            screen().bar("")
            screen().line(f"interrupted: the same command goes on from what is there (log: {log_path})", sys.stdout)
            return 130
        for follower in followers:
            follower.join(timeout=5)  # a worker that outlives the command may hold the pipe open
        screen().bar("")
    return code


def show_failure(log_path: Path, code: int) -> None:
    lines = [line for line in log_path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    print("\n".join(lines[-TAIL_LINES:]), file=sys.stderr)
    print(f"\nthe command failed with code {code}; its whole output is in {log_path}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run a command, with its libraries' noise in a log file.")
    parser.add_argument("--log", type=Path, required=True, help="gets the whole output")
    parser.add_argument("command", nargs="+", help="after --")
    args = parser.parse_args(argv)
    code = run(args.command, args.log)
    if code not in (0, 130):
        show_failure(args.log, code)
    return code


if __name__ == "__main__":
    sys.exit(main())
