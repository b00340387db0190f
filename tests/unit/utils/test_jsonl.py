"""JSON lines: what is read, what is refused with its place, and what a crash leaves of a log."""

from __future__ import annotations

import pytest

from openrlhf.errors import UserError
from openrlhf.utils.jsonl import cut_torn_line, read_jsonl


def test_lines_come_with_their_numbers_and_blank_ones_are_skipped(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n  \n[2]\n"caf\xc3\xa9 \xe2\x80\xa8"')  # U+2028 ends no line
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (4, [2]), (5, "caf\u00e9 \u2028")]


def test_a_torn_last_line_is_left_out_of_a_log_and_only_there(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": ')
    assert list(read_jsonl(path, may_be_torn=True)) == [(1, {"a": 1})]
    with pytest.raises(UserError, match=r"log\.jsonl:2: not valid JSON"):
        list(read_jsonl(path))
    path.write_bytes(b'{"a": \n{"a": 1}\n')
    with pytest.raises(UserError, match=r"log\.jsonl:1: not valid JSON"):
        list(read_jsonl(path, may_be_torn=True))


def test_a_torn_line_is_cut_off(tmp_path):
    path = tmp_path / "log.jsonl"
    for content, left in ((b"1\n23", b"1\n"), (b"1\n", b"1\n"), (b"12", b""), (b"", b"")):
        path.write_bytes(content)
        assert cut_torn_line(path) == len(content) - len(left)
        assert path.read_bytes() == left
