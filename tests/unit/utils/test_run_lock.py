"""One run a folder; what dead writers left goes. Real processes and files."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from openrlhf.errors import UserError
from openrlhf.utils.atomic_io import FOREIGN_LEFTOVER_S, remove_leftovers
from openrlhf.utils.run_lock import LOCK_NAME, exclusive_folders

HOLD = """
import sys, time
from pathlib import Path
from openrlhf.utils.run_lock import exclusive_folders
with exclusive_folders([Path(sys.argv[1])]):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_second_run_is_told_of_the_first_and_may_start_once_it_is_dead(tmp_path: Path):
    process = hold(tmp_path)
    try:
        with (
            pytest.raises(UserError, match=rf"process {process.pid} on host {socket.gethostname()}, since 20"),
            exclusive_folders([tmp_path]),
        ):
            pass
    finally:
        process.kill()
        process.wait()
    with exclusive_folders([tmp_path]):  # its lock file is still there
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK_NAME).exists()


def test_a_lock_of_another_host_counts_until_it_is_removed(tmp_path: Path):
    lock = tmp_path / LOCK_NAME
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 1.0, "since": "2026-01-01 00:00:00"}))
    with pytest.raises(UserError, match="process 1 on host elsewhere") as refused, exclusive_folders([tmp_path]):
        pass
    assert f"remove {lock}" in str(refused.value)


def test_another_process_with_the_number_of_a_dead_one_holds_nothing(tmp_path: Path):
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "started": 1000.0, "since": "2026-01-01 00:00:00"}
    (tmp_path / LOCK_NAME).write_text(json.dumps(mine))
    with exclusive_folders([tmp_path]):
        pass


def test_a_folder_given_twice_is_locked_once_and_all_are_free_after_a_refusal(tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with exclusive_folders([tmp_path / "a", tmp_path / "link", tmp_path / "b"]):
        assert (tmp_path / "b" / LOCK_NAME).exists()
        with pytest.raises(UserError, match="in use"), exclusive_folders([tmp_path / "c", tmp_path / "b"]):
            pass
    assert not list(tmp_path.glob(f"*/{LOCK_NAME}"))


def test_leftovers_of_dead_writers_go_and_those_of_the_living_stay(tmp_path: Path):
    host = socket.gethostname()
    dead, old = tmp_path / f".final_model.partial-{host}-{dead_pid()}", tmp_path / ".m.partial-elsewhere-1"
    alive, young = tmp_path / f".x.json.partial-{host}-{os.getpid()}", tmp_path / ".x.json.partial-elsewhere-2"
    for path in (dead, old):
        path.mkdir()
        (path / "model.safetensors").touch()
    for path in (alive, young, tmp_path / ".hidden-1"):
        path.touch()
    long_ago = time.time() - FOREIGN_LEFTOVER_S - 60
    os.utime(old, (long_ago, long_ago))
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive.name, young.name, ".hidden-1"])


def test_the_next_run_removes_what_a_dead_one_left_there_and_one_folder_below(tmp_path: Path):
    leftover = f"partial-{socket.gethostname()}-{dead_pid()}"
    (tmp_path / "_actor").mkdir()
    for path in (tmp_path / f".final_model.{leftover}", tmp_path / "_actor" / f".latest.{leftover}"):
        path.touch()
    with exclusive_folders([tmp_path]):
        assert sorted(path.name for path in tmp_path.rglob("*")) == [LOCK_NAME, "_actor"]


def test_a_folder_that_was_set_aside_comes_back_unless_it_was_replaced(tmp_path: Path):
    host, pid = socket.gethostname(), dead_pid()
    for name in ("lost", "there"):
        (tmp_path / f".{name}.replaced-{host}-{pid}").mkdir()
        (tmp_path / f".{name}.replaced-{host}-{pid}" / "old").touch()
    (tmp_path / "there").mkdir()
    remove_leftovers(tmp_path)
    assert (tmp_path / "lost" / "old").exists()
    assert not (tmp_path / "there" / "old").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lost", "there"]
