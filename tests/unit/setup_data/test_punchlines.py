"""The punchlines, a small `messages` dataset: what its README promises of it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from openrlhf.vr_cli.dataset import Row, index_by_key, read_dataset

PUNCHLINES = Path(__file__).resolve().parents[3] / "setup_data" / "punchlines"


@pytest.fixture(scope="module")
def rows_by_split() -> dict[str, list[Row]]:
    """As `setup_rl_data.py` and `compute_baseline_perplexity.py` read them."""
    return read_dataset(PUNCHLINES, "punchlines")


def turns(rows_by_split: dict[str, list[Row]], index: int) -> list[str]:
    return [row.datapoint["messages"][index]["content"] for rows in rows_by_split.values() for row in rows]


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def test_the_splits_have_the_rows_that_the_readme_names(rows_by_split: dict[str, list[Row]]) -> None:
    assert {split: len(rows) for split, rows in rows_by_split.items()} == {"train": 120, "val": 16, "test": 16}


def test_every_row_is_a_setup_and_its_punchline(rows_by_split: dict[str, list[Row]]) -> None:
    for rows in rows_by_split.values():
        for row in rows:
            assert list(row.datapoint) == ["messages"], row.where
            assert [turn["role"] for turn in row.datapoint["messages"]] == ["user", "assistant"], row.where
            assert all(turn["content"].strip() == turn["content"] for turn in row.datapoint["messages"]), row.where


def test_no_setup_and_no_punchline_comes_twice_over_all_splits(rows_by_split: dict[str, list[Row]]) -> None:
    for index in (0, 1):
        counts = Counter(" ".join(words(text)) for text in turns(rows_by_split, index))
        assert [text for text, count in counts.items() if count > 1] == []


def test_no_two_punchlines_share_five_words_in_a_row(rows_by_split: dict[str, list[Row]]) -> None:
    runs = Counter[tuple[str, ...]]()
    for text in turns(rows_by_split, 1):
        tokens = words(text)
        runs.update({tuple(tokens[i : i + 5]) for i in range(len(tokens) - 4)})
    assert [" ".join(run) for run, count in runs.items() if count > 1] == []


def test_setups_and_punchlines_are_single_lines_of_a_few_words(rows_by_split: dict[str, list[Row]]) -> None:
    setups, punchlines = turns(rows_by_split, 0), turns(rows_by_split, 1)
    assert [text for text in setups + punchlines if "\n" in text] == []
    assert [text for text in setups if not 4 <= len(text.split()) <= 20] == []
    assert [text for text in punchlines if not 6 <= len(text.split()) <= 25] == []
    assert [text for text in punchlines if text.rstrip('"')[-1] not in ".?!"] == []


def test_every_row_has_a_key_of_its_own_in_the_baseline_map(rows_by_split: dict[str, list[Row]]) -> None:
    rows = [row for rows in rows_by_split.values() for row in rows]
    assert set(index_by_key(rows)) == set(turns(rows_by_split, 0))
