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


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"[" * 100_000, "containers are nested more than 64 deep"),
        (b"[" * 65 + b"]" * 65, "containers are nested more than 64 deep"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "containers are nested more than 64 deep"),
        (b'{"a": "\\ud800"}', "text .surrogates not allowed"),
        (b'{"a": {"\\udc00": [1]}}', "text .surrogates not allowed"),
        (b'{"a": "\xed\xa0\x80"}', "can't decode byte 0xed"),
        (b'{"a": "caf\xe9"}', "can't decode byte 0xe9"),
        ('{"a": 1}'.encode("utf-16"), "can't decode byte 0xff"),
        ('{"a": 1}'.encode("utf-16-le"), "Expecting property name"),
        (b'\xef\xbb\xbf{"a": 1}', "Unexpected UTF-8 BOM"),
        (b'{"a": "\x00"}', "Invalid control character"),
        (b"\x00\x00\x00\x00", "Expecting value"),  # a block that a crash left unwritten
        (b'{"a": NaN}', "nan|NaN is not a finite number"),
        (b'{"a": [-Infinity]}', "-Infinity is not a finite number"),
        (b'{"a": 1e999}', "1e999 is not a finite number"),
        (b'{"a": 9223372036854775808}', r"9223372036854775808\.\.\. does not fit into 64 bits"),
        (b'{"a": ' + b"9" * 1_000_000 + b"}", r"9{30}\.\.\. does not fit into 64 bits"),
        (b'{"a": 1, "b": 2, "a": 1}', "the key 'a' stands in one object twice"),
        (b'{"x": [{"a": 1, "a": 2}]}', "the key 'a' stands in one object twice"),
        (b'{"a": 1} {"a": 2}', "Extra data"),
        (b"{'a': 1}", "Expecting property name"),
    ],
)
def test_what_is_not_quite_json_is_refused_in_one_sentence(tmp_path, line, complaint):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"fine": 1}\n' + line + b"\n")
    with pytest.raises(UserError, match=complaint) as error:
        list(read_jsonl(path))
    assert str(error.value).startswith(f"{path}:2: not valid ")
    assert str(error.value).endswith("; fix or remove the line")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_unusual_but_fine_lines_are_read(tmp_path):
    path = tmp_path / "a.jsonl"
    deep = "[" * 64 + "]" * 64
    path.write_bytes(
        b'\xef\xbb\xbf{"a": "\\ud83d\\udc4d \\u0000"}\r\n' + f"{deep}\n[{2**63 - 1}, {-(2**63)}, -0.0, 1e308]".encode()
    )
    first, second, third = (value for _, value in read_jsonl(path))
    assert first == {"a": "\U0001f44d \x00"}
    assert str(second) == deep
    assert third == [2**63 - 1, -(2**63), 0.0, 1e308]
