"""`build_dataset.sh`: the whole pipeline by one command, with a server of its own, through kills."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from setup_data.compile_dataset import main as compile_dataset
from setup_data.write_annotations import main as write_annotations
from support.books import make_books
from support.fake_openai_server import FakeServer

ROOT = Path(__file__).resolve().parents[2]
FILES = ("splits.json", "story_dataset_train.jsonl", "story_dataset_val.jsonl")


@pytest.fixture
def books(tmp_path: Path) -> Path:
    return make_books(tmp_path / "in") / "books"


@pytest.fixture
def fake_vllm(tmp_path: Path) -> Path:
    """An interpreter that is python, but whose `vllm serve` is the fake server."""
    path = tmp_path / "python"
    fake = "-m tests.support.fake_openai_server"
    path.write_text(
        f'#!/usr/bin/env bash\nif [[ $2 == *.vllm_cli ]]; then shift 2; exec "{sys.executable}" {fake} "$@"; fi\n'
        f'exec "{sys.executable}" "$@"\n'
    )
    path.chmod(0o755)
    return path


def start(books: Path, out_dir: Path, *flags: str, **settings: str) -> subprocess.Popen[str]:
    env = os.environ | {"OUT_DIR": str(out_dir), "COMPILE_ARGS": "--no_filter", "PYTHON": sys.executable} | settings
    command = [str(ROOT / "setup_data" / "build_dataset.sh"), str(books), "--concurrency", "4", *flags]
    return subprocess.Popen(
        command, env=env, cwd=out_dir.parent, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def dataset_of(out_dir: Path) -> list[bytes]:
    return [(out_dir / name).read_bytes() for name in FILES]


@pytest.fixture
def expected(books: Path) -> list[bytes]:
    """What the steps give when they are run one by one."""
    work_dir = books.parent
    with FakeServer() as server:
        assert write_annotations(["--work_dir", str(work_dir), "--server_url", server.url]) == 0
    assert compile_dataset(["--source_dir", str(work_dir), "--output_dir", str(work_dir), "--no_filter"]) == 0
    return dataset_of(work_dir)


def stops_serving(log: str) -> bool:
    """Whether the server that the script has started is gone, now or in a moment."""
    port = int(re.findall(r"on port (\d+)", log)[-1])
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return True
        time.sleep(0.1)
    return False


def test_one_command_with_a_server_that_runs(tmp_path: Path, books: Path, expected: list[bytes]) -> None:
    with FakeServer() as server:
        process = start(books, tmp_path / "out", SERVER_URL=server.url)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "Next: python setup_rl_data.py" in output
    assert dataset_of(tmp_path / "out") == expected


def test_own_server_is_started_and_stopped_through_kills(
    tmp_path: Path, books: Path, fake_vllm: Path, expected: list[bytes]
) -> None:
    rng = random.Random(2)
    answers = tmp_path / "out" / "answers"
    for _ in range(3):
        process = start(books, tmp_path / "out", MODEL="fake", PYTHON=str(fake_vllm))
        wanted = rng.randrange(1, 10) + sum(len(path.read_bytes().splitlines()) for path in answers.glob("*"))
        while (
            sum(len(path.read_bytes().splitlines()) for path in answers.glob("*")) < wanted and process.poll() is None
        ):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate(timeout=60)  # ends when everything it started has ended
        assert stops_serving(output)
    process = start(books, tmp_path / "out", MODEL="fake", PYTHON=str(fake_vllm))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert stops_serving(output)
    assert dataset_of(tmp_path / "out") == expected


def test_server_that_does_not_start_is_reported_with_its_log(tmp_path: Path, books: Path, fake_vllm: Path) -> None:
    process = start(books, tmp_path / "out", MODEL="broken", PYTHON=str(fake_vllm))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "vllm serve ended before it was ready" in output
    assert "made to order: the model is broken" in output


def test_server_that_dies_is_reported_with_its_log(
    tmp_path: Path, books: Path, fake_vllm: Path, expected: list[bytes]
) -> None:
    process = start(books, tmp_path / "out", "--max_attempts", "2", MODEL="fake", PYTHON=str(fake_vllm))
    store, log = tmp_path / "out" / "answers" / "synopses.jsonl", tmp_path / "out" / "vllm.log"
    while not (store.exists() and store.read_bytes()):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(int(log.read_text().split()[1]), signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "failed 2 times" in output
    assert "vllm serve died" in output
    process = start(books, tmp_path / "out", MODEL="fake", PYTHON=str(fake_vllm))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert dataset_of(tmp_path / "out") == expected


def test_what_is_missing_is_said(tmp_path: Path, books: Path) -> None:
    process = start(books, tmp_path / "out")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "set MODEL (a folder or a hub id), or SERVER_URL" in output
    process = start(tmp_path / "nowhere", tmp_path / "out")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "nowhere: no such file or folder" in output
