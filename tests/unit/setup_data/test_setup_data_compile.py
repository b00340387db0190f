"""Books and annotations into dataset rows; the sample dataset is rebuilt byte for byte."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from openrlhf.vr_cli.dataset import Filters, read_dataset, read_rows
from prompt_utils import build_reasoning_messages
from setup_data.annotations import BookAnnotations, ChapterAnnotation, write_annotations
from setup_data.book import Book, Chapter, write_book
from setup_data.compile_dataset import build_row, main, read_sources
from setup_data.splits import assign_splits, read_splits

SAMPLE = Path(__file__).resolve().parents[3] / "setup_data" / "sample"
FILES = ("splits.json", *(f"story_dataset_{split}.jsonl" for split in ("train", "val", "test")))


def make_story(story_id: str, num_chapters: int = 4, words: int = 250) -> tuple[Book, BookAnnotations]:
    chapters = tuple(Chapter(header=f"Chapter {i}", text=f"w{i} " * (words - 1) + "end") for i in range(num_chapters))
    notes = tuple(
        ChapterAnnotation(
            chapter_index=i,
            header=f"Chapter {i}",
            synopsis=f"Synopsis {i} of {story_id}.",
            prior_plot_summary=f"Before {i}." if i else "",
            character_sheets={"Ann": f"Known before {i}."} if i else {},
        )
        for i in range(num_chapters)
    )
    book = Book(story_id=story_id, title=story_id.title(), genre="", chapters=chapters)
    plan = BookAnnotations(
        story_id=story_id, title=story_id.title(), genre="", high_level_plot_summary="Plan.", chapters=notes
    )
    return book, plan


def write_story(folder: Path, story_id: str, **kwargs: int) -> None:
    book, annotations = make_story(story_id, **kwargs)
    write_book(book, folder / "books")
    write_annotations(annotations, folder / "annotations")


def compile_to(source: Path, output: Path, *flags: str) -> int:
    return main(["--source_dir", str(source), "--output_dir", str(output), *flags])


def test_sample_is_rebuilt_byte_for_byte(tmp_path: Path) -> None:
    shutil.copy(SAMPLE / "splits.json", tmp_path)
    assert compile_to(SAMPLE, tmp_path) == 0
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (SAMPLE / name).read_bytes(), name


def test_sample_split_is_what_the_defaults_give(tmp_path: Path) -> None:
    assert compile_to(SAMPLE, tmp_path) == 0
    assert (tmp_path / "splits.json").read_bytes() == (SAMPLE / "splits.json").read_bytes()


def test_row_holds_what_is_known_before_the_chapter() -> None:
    row = build_row(*make_story("lamps", words=2), 2, num_last_chapters=1)
    assert row == {
        "story_id": "lamps",
        "title": "Lamps",
        "chapter_index": 2,
        "next_chapter_header": "Chapter 2",
        "high_level_plot_summary": "Plan.",
        "prior_plot_summary": "Before 2.",
        "character_sheets": {"Ann": "Known before 2."},
        "last_n_chapters": "Chapter 1\n\nw1 end",
        "next_chapter_synopsis": "Synopsis 2 of lamps.",
        "story_text": "Chapter 0\n\nw0 end\n\nChapter 1\n\nw1 end",
        "next_chapter": "w2 end",
    }
    two = build_row(*make_story("lamps", words=2), 3, num_last_chapters=2)["last_n_chapters"]
    assert two == "Chapter 1\n\nw1 end\n\nChapter 2\n\nw2 end"


def test_a_row_has_the_genre_of_its_book_or_of_its_annotations() -> None:
    book, annotations = make_story("lamps")
    of_book = build_row(replace(book, genre="Mystery"), replace(annotations, genre="Comedy"), 2, num_last_chapters=1)
    of_annotations = build_row(book, replace(annotations, genre="Comedy"), 2, num_last_chapters=1)
    assert (of_book["genre"], of_annotations["genre"]) == ("Mystery", "Comedy")
    assert "genre" not in build_row(book, annotations, 2, num_last_chapters=1)


def test_filters_count_by_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for story_id, words in (("fine", 250), ("short", 150), ("long", 5001)):
        write_story(tmp_path, story_id, words=words)
    with caplog.at_level("INFO", logger="openrlhf"):
        assert compile_to(tmp_path, tmp_path) == 0
    assert "2 rows kept, 10 dropped" in caplog.text
    assert "dropped 4: chapter under 200 words" in caplog.text
    assert "dropped 4: chapter over 5,000 words" in caplog.text
    assert "dropped 2: chapter index under 2" in caplog.text


def test_no_filter_keeps_all_and_one_synopsis_is_kept_once(tmp_path: Path) -> None:
    write_story(tmp_path, "a", words=10)
    path = tmp_path / "annotations" / "a.json"
    path.write_text(path.read_text().replace("Synopsis 3", "Synopsis 2"))
    assert compile_to(tmp_path, tmp_path, "--no_filter") == 0
    rows = read_rows(tmp_path / "story_dataset_train.jsonl")
    assert [row.datapoint["chapter_index"] for row in rows] == [0, 1, 2]


def test_messages_rows(tmp_path: Path) -> None:
    write_story(tmp_path, "a")
    assert compile_to(tmp_path, tmp_path, "--format", "messages") == 0
    rows = read_rows(tmp_path / "story_dataset_train.jsonl")
    assert [list(row.datapoint) for row in rows] == [["messages"], ["messages"]]
    last_user, gold = rows[0].datapoint["messages"][-2:]
    assert "Synopsis 2 of a." in last_user["content"]
    assert gold == {"role": "assistant", "content": "w2 " * 249 + "end"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"synopsis"', '"sinopsis"', r"a\.json: chapters\[0\]: field 'synopsis' is missing"),
        ('"Synopsis 2 of a."', "3", r"chapters\[2\]: field 'synopsis' must be str, got int 3"),
        ('"Synopsis 2 of a."', '" "', r"chapters\[2\]: field 'synopsis' is blank"),
        ('"Chapter 1"', '"Chapter One"', r"chapters\[1\]: header is 'Chapter One', the book's is 'Chapter 1'"),
        ('"chapter_index": 1', '"chapter_index": 7', r"chapters\[1\]: chapter_index is 7, expected 1"),
        ('"story_id": "a"', '"story_id": "b"', "field 'story_id' is 'b', the book's is 'a'"),
        ('"Known before 1."', "{}", r"character_sheets\['Ann'\] must be a text"),
        ("{", "", "not valid JSON"),
    ],
)
def test_bad_annotations_name_file_chapter_and_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    write_story(tmp_path, "a")
    path = tmp_path / "annotations" / "a.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_sources(tmp_path)
    assert compile_to(tmp_path, tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()


def test_missing_annotations_say_what_to_run(tmp_path: Path) -> None:
    write_story(tmp_path, "a")
    (tmp_path / "annotations" / "a.json").unlink()
    with pytest.raises(ValueError, match=r"a\.json: missing; write it with `python -m setup_data\.write_annotations`"):
        read_sources(tmp_path)


def test_splits_are_by_story_and_never_move_one() -> None:
    stories = [f"story_{i}" for i in range(20)]
    split_of = assign_splits(stories, {}, val_share=0.1, test_share=0.1, seed=42)
    assert sorted(split_of.values()).count("val") == 2
    assert sorted(split_of.values()).count("test") == 2
    more = assign_splits([*stories, *(f"new_{i}" for i in range(20))], split_of, val_share=0.1, test_share=0.1, seed=1)
    assert {story: more[story] for story in stories} == split_of
    assert list(more.values()).count("val") == 4
    assert set(assign_splits(["a", "b"], {}, val_share=0.1, test_share=0.1, seed=0).values()) == {"train", "val"}
    assert set(assign_splits(["a"], {}, val_share=0.1, test_share=0.1, seed=0).values()) == {"train"}


def test_recorded_splits_are_read_back_and_checked(tmp_path: Path) -> None:
    write_story(tmp_path, "a")
    write_story(tmp_path, "b")
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({"train": ["b"], "val": [], "test": ["a"]}))
    assert compile_to(tmp_path, tmp_path) == 0
    assert [row.datapoint["story_id"] for row in read_rows(tmp_path / "story_dataset_test.jsonl")] == ["a", "a"]
    assert not (tmp_path / "story_dataset_val.jsonl").exists()
    path.write_text(json.dumps({"train": ["b"], "val": ["b"], "test": []}))
    with pytest.raises(ValueError, match="story 'b' is in train and in val"):
        read_splits(path)
    path.write_text(json.dumps({"train": ["b"]}))
    with pytest.raises(ValueError, match="keys train, val and test"):
        read_splits(path)


def test_setup_rl_data_finds_the_same_rows() -> None:
    """Its filters, at their defaults, drop nothing of what the sample's compilation kept."""
    rows = [row for split in read_dataset(SAMPLE, "story_dataset").values() for row in split]
    assert len(rows) == 30
    for row in rows:
        assert Filters().reason_to_drop(row.datapoint, build_reasoning_messages(row.datapoint)) is None
