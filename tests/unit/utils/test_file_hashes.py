"""Hashes of large files, kept between starts."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from openrlhf.utils import file_hashes
from openrlhf.utils.file_hashes import MIN_BYTES, cache_folder, file_sha256

DAY_NS = 86_400 * 10**9


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture
def a_day_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that the test has just written count as old."""
    now_ns = time.time_ns
    monkeypatch.setattr(file_hashes.time, "time_ns", lambda: now_ns() + DAY_NS)


def write(path: Path, mark: bytes, size: int = MIN_BYTES) -> str:
    """Zeros that end in `mark`, over what was there; returns the SHA-256."""
    content = bytes(size - len(mark)) + mark
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


def entries(cache: Path) -> list[Path]:
    return sorted((cache / "file_sha256").glob("*"))


def test_a_file_is_read_once(tmp_path: Path, cache: Path, a_day_later: None, monkeypatch: pytest.MonkeyPatch):
    expected = write(tmp_path / "weights", b"1")
    assert file_sha256(tmp_path / "weights") == expected
    (tmp_path / "link").symlink_to("weights")
    monkeypatch.setattr(file_hashes.hashlib, "file_digest", None)  # it would be called
    assert file_sha256(tmp_path / "weights") == file_sha256(tmp_path / "link") == expected
    assert len(entries(cache)) == 1


def test_a_changed_file_is_read_again(tmp_path: Path, cache: Path, a_day_later: None):
    """Also where the new content has the size, the inode and the modification time of the old one."""
    path = tmp_path / "weights"
    write(path, b"1")
    file_sha256(path)
    old = path.stat()
    expected = write(path, b"2")
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    new = path.stat()
    assert (new.st_ino, new.st_size, new.st_mtime_ns) == (old.st_ino, old.st_size, old.st_mtime_ns)
    assert file_sha256(path) == expected
    assert len(entries(cache)) == 1


def test_a_file_in_anothers_place_is_read(tmp_path: Path, a_day_later: None):
    write(tmp_path / "weights", b"1")
    file_sha256(tmp_path / "weights")
    expected = write(tmp_path / "other", b"2")
    os.replace(tmp_path / "other", tmp_path / "weights")
    assert file_sha256(tmp_path / "weights") == expected


def test_the_hash_of_a_file_that_has_just_changed_is_not_kept(tmp_path: Path, cache: Path):
    """The clock of a file system may stand still for as long: a second change would not show."""
    expected = write(tmp_path / "weights", b"1")
    assert file_sha256(tmp_path / "weights") == expected
    assert entries(cache) == []


def test_the_hash_of_a_file_that_changes_meanwhile_is_not_kept(
    tmp_path: Path, cache: Path, a_day_later: None, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "weights"
    write(path, b"1")
    digest = hashlib.file_digest

    def digest_and_change(file, name):
        result = digest(file, name)
        write(path, b"22", MIN_BYTES + 1)
        return result

    monkeypatch.setattr(file_hashes.hashlib, "file_digest", digest_and_change)
    file_sha256(path)
    assert entries(cache) == []


def test_small_files_leave_no_entry(tmp_path: Path, cache: Path, a_day_later: None):
    expected = write(tmp_path / "weights", b"1", MIN_BYTES - 1)
    assert file_sha256(tmp_path / "weights") == expected
    assert entries(cache) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[:-10],
        lambda text: "[" * 100_000,
        lambda text: "[]",
        lambda text: "\x00\xff",
        lambda text: json.dumps({"sha256": "0" * 64}),
        lambda text: json.dumps({**json.loads(text), "sha256": "0" * 63}),
        lambda text: json.dumps({**json.loads(text), "sha256": None}),
        lambda text: json.dumps({**json.loads(text), "sha256": "0" * 64, "size": 1}),
        lambda text: json.dumps({**json.loads(text), "sha256": "0" * 64, "path": "/another"}),
    ],
    ids=["empty", "torn", "deep", "list", "binary", "bare", "short", "null", "size", "path"],
)
def test_a_bad_entry_is_ignored_and_rewritten(tmp_path: Path, cache: Path, a_day_later: None, change):
    expected = write(tmp_path / "weights", b"1")
    file_sha256(tmp_path / "weights")
    (entry,) = entries(cache)
    good = entry.read_text()
    entry.write_text(change(good), encoding="latin-1")
    assert file_sha256(tmp_path / "weights") == expected
    assert entry.read_text() == good


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, cache: Path, a_day_later: None, monkeypatch: pytest.MonkeyPatch
):
    """A file where its folder would be: root, too, cannot write there. Then no home at all."""
    expected = write(tmp_path / "weights", b"1")
    cache.parent.mkdir()
    cache.write_text("")
    assert file_sha256(tmp_path / "weights") == expected

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert file_sha256(tmp_path / "weights") == expected


def test_an_entry_whose_place_is_taken_by_a_folder_is_no_error(tmp_path: Path, cache: Path, a_day_later: None):
    expected = write(tmp_path / "weights", b"1")
    file_sha256(tmp_path / "weights")
    (entry,) = entries(cache)
    entry.unlink()
    entry.mkdir()
    assert file_sha256(tmp_path / "weights") == expected


def test_many_at_once_agree(tmp_path: Path, cache: Path, a_day_later: None):
    """Threads share the name of what they write aside, which is harder than processes, which do not."""
    expected = write(tmp_path / "weights", b"1")
    shutil.rmtree(cache, ignore_errors=True)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(file_sha256, [tmp_path / "weights"] * 16)) == {expected}
    assert file_sha256(tmp_path / "weights") == expected
    assert [entry.name.startswith(".") for entry in entries(cache)] == [False]


def test_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == Path("/home/me/.cache/openrlhf")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the specification says to ignore
    assert cache_folder() == Path("/home/me/.cache/openrlhf")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch")
    assert cache_folder() == Path("/scratch/openrlhf")
