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
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from openrlhf.utils.logging import is_our_line

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
WORKER = re.compile(r"^\((?:\S+ )?pid=\d+[^)]*\) ?")
"""Ray's prefix of a worker's line."""
BAR = re.compile(r"^(?P<name>[^|:]{1,40}): +\d+%\|")
LIBRARY_BARS = ("Loading", "Converting", "Writing", "Fetching", "Capturing", "Saving", "Processed", "Map", "Generating")
DEEPSPEED_LOG = re.compile(r"^\[\d{4}-\d\d-\d\d [\d:,]+\] \[")
SECONDS_BETWEEN_BARS = 10.0
TAIL_LINES = 30


def visible(segment: str, *, from_stdout: bool) -> tuple[str, bool] | None:
    """What of a line (or state of a progress bar) is shown, and whether it is a bar; None: the log has it."""
    text = ANSI.sub("", segment).strip("\n").rstrip()
    bare = WORKER.sub("", text)
    bar = BAR.match(bare)
    if bar:
        return None if bar["name"].startswith(LIBRARY_BARS) else (bare, True)
    if is_our_line(bare):
        return bare, False
    of_command = from_stdout and bare == text and not DEEPSPEED_LOG.match(text)
    return (text, False) if of_command else None


class Screen:
    """Bars are redrawn in place on a terminal; elsewhere one is printed now and then, and when it is full."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._bar_open = False
        self._last_bar = 0.0

    def show(self, text: str, *, is_bar: bool) -> None:
        with self._lock:
            if is_bar and self._out.isatty():
                self._out.write(f"\r\x1b[K{text}")
                self._bar_open = True
            elif not is_bar or "100%|" in text or time.monotonic() - self._last_bar > SECONDS_BETWEEN_BARS:
                self._out.write(("\r\x1b[K" if self._bar_open else "") + text + "\n")
                self._bar_open = False
                if is_bar:
                    self._last_bar = time.monotonic()
            self._out.flush()

    def close(self) -> None:
        if self._bar_open:
            self._out.write("\n")
            self._out.flush()


def segments(stream: IO[bytes], log: IO[bytes]) -> Iterator[str]:
    """What `stream` says, cut at line ends and carriage returns. `log` gets the whole lines, without progress bars."""
    rest = b""
    while chunk := os.read(stream.fileno(), 65536):
        *parts, rest = re.split(rb"(\r\n|\r(?!\n)(?!$)|\n)", rest + chunk)
        for part, end in zip(parts[::2], parts[1::2], strict=True):
            text = part.decode(errors="replace")
            if end != b"\r":
                write_line(text, log)
            yield text
    if rest:
        text = rest.decode(errors="replace")
        write_line(text.rstrip("\r"), log)
        yield text


def write_line(text: str, log: IO[bytes]) -> None:
    """Both streams' threads write to `log`, a line at a time."""
    if not BAR.match(WORKER.sub("", ANSI.sub("", text))):
        log.write(text.encode() + b"\n")
        log.flush()


def run(command: Sequence[str], log_path: Path) -> int:
    """Runs the command; its exit code."""
    screen = Screen(sys.stdout)
    screen.show("+ " + shlex.join(command), is_bar=False)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OPENRLHF_PROGRESS_BARS": "1"}  # into a pipe, from which they are drawn here
    with (
        open(log_path, "wb") as log,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
    ):

        def follow(stream: IO[bytes], from_stdout: bool) -> None:
            previous = None
            for segment in segments(stream, log):
                shown = visible(segment, from_stdout=from_stdout)
                # Ray draws a bar again whenever another worker says something.
                if shown is not None and (not shown[1] or shown != previous):
                    screen.show(shown[0], is_bar=shown[1])
                    previous = shown if shown[1] else previous

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
            screen.show(f"interrupted: the same command goes on from what is there (log: {log_path})", is_bar=False)
            return 130
        for follower in followers:
            follower.join(timeout=5)  # a worker that outlives the command may hold the pipe open
        screen.close()
    return code


def show_failure(log_path: Path, code: int) -> None:
    lines = re.split(r"[\r\n]+", ANSI.sub("", log_path.read_text(encoding="utf-8", errors="replace")))
    wanted = [line for line in lines if line.strip() and not BAR.match(WORKER.sub("", line))]
    print("\n".join(wanted[-TAIL_LINES:]), file=sys.stderr)
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
