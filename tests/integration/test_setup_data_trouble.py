"""The writing steps against a server in trouble: the finished dataset is the one that no trouble gives."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from setup_data.annotations import check_against_book, read_annotations
from setup_data.book import read_book
from setup_data.compile_dataset import main as compile_dataset
from setup_data.write_annotations import main
from setup_data.writing import client, steps
from support.books import make_books
from support.fake_openai_server import ANSWER_FAULTS, SERVER_FAULTS, FakeServer, random_faults

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(client, "LONGEST_WAIT_S", 0.02)


def write(work_dir: Path, server_url: str, *flags: str) -> int:
    return main(["--work_dir", str(work_dir), "--server_url", server_url, "--concurrency", "4", *flags])


def dataset_of(work_dir: Path) -> dict[str, bytes]:
    """Every file that comes out in the end: annotations and the compiled dataset."""
    assert (
        compile_dataset(["--source_dir", str(work_dir), "--output_dir", str(work_dir / "dataset"), "--no_filter"]) == 0
    )
    paths = [*(work_dir / "annotations").iterdir(), *(work_dir / "dataset").iterdir()]
    assert not [path for path in paths if path.name.startswith(".")]
    return {path.name: path.read_bytes() for path in paths}


@pytest.fixture(scope="session")
def untroubled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    work_dir = make_books(tmp_path_factory.mktemp("untroubled"))
    with FakeServer() as server:
        server.delay_s = 0.01
        assert write(work_dir, server.url) == 0
        assert set(server.asked.values()) == {1}
        assert 2 <= server.most_at_once <= 4
        num_asked = server.asked.total()
        assert write(work_dir, server.url) == 0
        assert server.asked.total() == num_asked  # a repeated run asks for nothing
    return dataset_of(work_dir)


def test_annotations_are_whole(tmp_path: Path, untroubled: dict[str, bytes]) -> None:
    make_books(tmp_path)
    (tmp_path / "harbour.json").write_bytes(untroubled["harbour.json"])
    annotations = read_annotations(tmp_path / "harbour.json")
    check_against_book(annotations, read_book(tmp_path / "books" / "harbour.md"), tmp_path / "harbour.json")
    first, second, third, _ = annotations.chapters
    assert (first.prior_plot_summary, first.character_sheets) == ("", {})
    assert second.prior_plot_summary == first.synopsis
    assert third.prior_plot_summary not in (first.synopsis, second.synopsis)
    assert list(third.character_sheets) == ["Ann Reed", "Tom Hale"]
    assert len({chapter.synopsis for chapter in annotations.chapters}) == 4


def test_long_chapter_is_read_in_parts_and_unsupported_statements_are_dropped(tmp_path: Path) -> None:
    make_books(tmp_path)
    with FakeServer() as server:
        assert write(tmp_path, server.url) == 0
    prompts = list(server.asked)
    assert sum("This is one part of a longer chapter" in prompt for prompt in prompts) >= 3
    assert sum("These notes cover one chapter" in prompt for prompt in prompts) == 1
    sheet_prompts = [prompt for prompt in prompts if "Write the character sheet" in prompt]
    assert any("knows about" in prompt for prompt in sheet_prompts)
    assert not any("a king of" in prompt for prompt in sheet_prompts)  # the check named 1 and 2 of 3


@pytest.mark.parametrize("fault", [*SERVER_FAULTS, *ANSWER_FAULTS])
def test_each_kind_of_trouble_is_recovered_from(tmp_path: Path, untroubled: dict[str, bytes], fault: str) -> None:
    make_books(tmp_path)
    rng = random.Random(0)
    share, flags = (0.05, ("--timeout_s", "3")) if fault == "hang" else (0.5, ())
    with FakeServer(lambda _, count: fault if count == 1 and rng.random() < share else None) as server:
        assert write(tmp_path, server.url, *flags) == 0
    second = 0.7 if fault in ANSWER_FAULTS else 0  # the same question after trouble, a warmer one after a bad answer
    assert {tuple(each) for each in server.temperatures.values()} == {(0,), (0, second)}
    assert dataset_of(tmp_path) == untroubled


@pytest.mark.parametrize("seed", range(3))
def test_all_kinds_at_once(tmp_path: Path, untroubled: dict[str, bytes], seed: int) -> None:
    make_books(tmp_path)
    faults = tuple(fault for fault in SERVER_FAULTS + ANSWER_FAULTS if fault != "hang")
    with FakeServer(random_faults(seed, faults)) as server:
        assert write(tmp_path, server.url) == 0
    assert dataset_of(tmp_path) == untroubled


def test_dead_server_ends_the_run_and_the_next_one_goes_on(
    tmp_path: Path, untroubled: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    make_books(tmp_path)
    answered: dict[str, int] = {}
    for most in (3, 11, 20):
        with FakeServer(dies_after=most) as server:
            assert write(tmp_path, server.url, "--max_attempts", "3") == 2
        assert "failed 3 times" in caplog.text
        assert "run the same command again: all answers so far are kept" in caplog.text
        assert not (tmp_path / "annotations").exists()
        for prompt, count in server.answered.items():
            answered[prompt] = answered.get(prompt, 0) + count
    with FakeServer() as server:
        assert write(tmp_path, server.url) == 0
    kept_and_asked_again = set(answered) & set(server.answered)
    assert len(kept_and_asked_again) <= 4 * 3  # at most what was under way when each run ended
    assert dataset_of(tmp_path) == untroubled


def test_no_server_at_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_books(tmp_path)
    with FakeServer() as server:
        url = server.url
    assert write(tmp_path, url) == 2
    assert "check --server_url and the server" in caplog.text


def test_refusal_is_final_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_books(tmp_path)
    with FakeServer(lambda _, __: "status 400") as server:
        assert write(tmp_path, server.url) == 2
    assert "refuses the request" in caplog.text
    assert max(server.asked.values()) == 1


def test_unknown_model_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_books(tmp_path)
    with FakeServer() as server:
        assert write(tmp_path, server.url, "--model", "other") == 2
    assert "has 'fake'; name one of them" in caplog.text


def test_answers_that_stay_unusable(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where there is nothing to fall back on the run ends with the chapter; statements count as none."""
    make_books(tmp_path)
    is_synopsis = "### Chapter ###\nChapter 3"
    with FakeServer(lambda prompt, _: "empty" if is_synopsis in prompt and "synopsis" in prompt else None) as server:
        assert write(tmp_path, server.url) == 2
        assert "harbour 002-chapter-3: none of 4 answers could be used (it has next to no words)" in caplog.text
        assert "orchard 002-chapter-3: none of 4" in caplog.text
    with FakeServer(
        lambda prompt, _: "wrong form" if "Check each" in prompt and "Chapter 3" in prompt else None
    ) as server:
        assert write(tmp_path, server.url) == 0
        assert "statements: 2 answers could not be used" in caplog.text
        num_asked = server.asked.total()
        assert write(tmp_path, server.url) == 0
        assert server.asked.total() == num_asked


def test_steps_apart_and_out_of_order(
    tmp_path: Path, untroubled: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    make_books(tmp_path)
    with FakeServer() as server:
        assert write(tmp_path, server.url, "--steps", "story_so_far") == 2
        assert "the step 'synopses' is not finished; run it first" in caplog.text
        assert write(tmp_path, server.url, "--steps", "synopses") == 0
        assert not (tmp_path / "annotations").exists()
        assert write(tmp_path, server.url, "--steps", "plan", "story_so_far") == 0
        assert write(tmp_path, server.url) == 0
        assert set(server.asked.values()) == {1}
    assert dataset_of(tmp_path) == untroubled


def run_in_process(work_dir: Path, server_url: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "setup_data.write_annotations",
        "--work_dir",
        str(work_dir),
        "--server_url",
        server_url,
    ]
    return subprocess.Popen([*command, "--concurrency", "4"], cwd=ROOT, stderr=subprocess.DEVNULL)


def test_killed_at_random_moments(tmp_path: Path, untroubled: dict[str, bytes]) -> None:
    """kill -9, five times, at a random number of answers; then a torn line as a crash of the machine leaves it."""
    make_books(tmp_path)
    rng = random.Random(1)
    with FakeServer() as server:
        server.delay_s = 0.02
        for _ in range(5):
            wanted = server.answered.total() + rng.randrange(1, 12)
            process = run_in_process(tmp_path, server.url)
            while server.answered.total() < wanted and process.poll() is None:
                time.sleep(0.001)
            time.sleep(rng.random() * 0.02)
            process.send_signal(signal.SIGKILL)
            process.wait()
        store = tmp_path / "answers" / "synopses.jsonl"
        lines = store.read_bytes()
        store.write_bytes(lines[: lines.rstrip(b"\n").rfind(b"\n") + 40])
        assert write(tmp_path, server.url) == 0
        again = [prompt for prompt, count in server.answered.items() if count > 1]
        assert len(again) <= 5 * 4 + 1  # what was under way at each kill, and the torn line
    assert dataset_of(tmp_path) == untroubled


def test_two_runs_of_one_step_exclude_each_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_books(tmp_path)
    with FakeServer() as server:
        server.delay_s = 0.5
        process = run_in_process(tmp_path, server.url)
        while not server.asked:
            time.sleep(0.01)
        assert write(tmp_path, server.url) == 2
        assert "another run is writing this step's answers" in caplog.text
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def test_broken_line_inside_a_store_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_books(tmp_path)
    with FakeServer() as server:
        assert write(tmp_path, server.url) == 0
        store = tmp_path / "answers" / "plan.jsonl"
        store.write_text("{broken}\n" + store.read_text())
        assert write(tmp_path, server.url) == 2
    assert "plan.jsonl:1: not valid JSON" in caplog.text


def test_kept_answer_that_no_longer_parses_is_asked_for_again(tmp_path: Path, untroubled: dict[str, bytes]) -> None:
    make_books(tmp_path)
    with FakeServer() as server:
        assert write(tmp_path, server.url) == 0
        store = tmp_path / "answers" / "characters.jsonl"
        store.write_text(re.sub("Ann|Reed|Tom|Hale", "Zoe", store.read_text()))
        num_asked = server.asked.total()
        assert write(tmp_path, server.url) == 0
        assert server.asked.total() == num_asked + 2
        assert write(tmp_path, server.url) == 0
        assert server.asked.total() == num_asked + 2
    assert dataset_of(tmp_path) == untroubled


def test_other_settings_are_other_questions(tmp_path: Path) -> None:
    make_books(tmp_path)
    with FakeServer() as server:
        assert write(tmp_path, server.url, "--steps", "synopses") == 0
        num_asked = server.asked.total()
        assert write(tmp_path, server.url, "--steps", "synopses", "--temperature", "0.9") == 0
        assert server.asked.total() == 2 * num_asked
    keys = [json.loads(line)["key"] for line in (tmp_path / "answers" / "synopses.jsonl").read_text().splitlines()]
    assert len(keys) == len(set(keys)) == 2 * num_asked


def test_too_short_a_context_is_refused() -> None:
    with pytest.raises(ValueError, match="a context of 1000 tokens is too short"):
        steps.Limits(context_tokens=1000)
