"""Lines and bars of a command that runs below this one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime

import pytest

from openrlhf.utils.child_output import pieces, stamped

BAR = "training:  50%|##   | 1/2"


def read(chunks: Sequence[str]) -> tuple[list[tuple[str, bool]], list[str]]:
    """What is shown and what is kept of chunks that come one after the other."""
    kept: list[str] = []
    shown: list[tuple[str, bool]] = []
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as stream:
        waiting = list(chunks)
        os.write(writer, waiting.pop(0).encode())
        if not waiting:
            os.close(writer)
        for piece in pieces(stream, kept.append):
            shown.append(piece)
            if waiting:
                os.write(writer, waiting.pop(0).encode())
                if not waiting:
                    os.close(writer)
    return shown, kept


def test_a_bar_of_ours_is_seen_at_once_and_never_kept():
    assert read([f"{BAR}\r"]) == ([(BAR, True)], [])
    assert read([f"{BAR}\rone\n\r"]) == ([(BAR, True), ("one", False), ("", True)], ["one"])


def test_a_bar_of_tqdms_ends_with_the_next_state_or_with_the_line():
    assert read([f"\r{BAR}\r{BAR}\n"]) == ([("", True), (BAR, True), (BAR, True)], [])


def test_library_bars_and_colours_are_left_out():
    assert read(["Loading weights:  10%|#  | 1/9\r\x1b[33mone\x1b[0m\r\n"]) == ([("one", False)], ["one"])


def test_lines_may_come_in_parts_and_without_an_end():
    assert read(["one\ntw", "o\nthree"]) == (
        [("one", False), ("two", False), ("three", False)],
        ["one", "two", "three"],
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("12:32:54  step 1/2", "2026-11-25 12:32:54  step 1/2"),
        ("engine | hello", "2026-11-25 13:00:00  engine | hello"),
    ],
)
def test_every_line_of_a_log_has_date_and_time(line: str, expected: str):
    assert stamped(line, datetime(2026, 11, 25, 13)) == expected
