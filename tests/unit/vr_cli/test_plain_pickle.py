"""The pickle reader: what plain data it reads, and that no file makes it do anything else, or do much."""

from __future__ import annotations

import contextlib
import pickle
import random
import tracemalloc
from pathlib import Path

import pytest

from openrlhf.errors import UserError
from openrlhf.vr_cli.plain_pickle import MAX_DEPTH, load_plain_pickle

PLAIN = {
    "They meet.": {"text": "Once \u2028 \U0001f44d" * 40, "empty": [{}, [], ""], "flags": [True, False, None]},
    "numbers": [0, 255, 256, 65_535, 65_536, -1, 2**31, -(2**31), 2**63, -(2**63), 0.5, -0.0, 1e308],
    "many": list(range(2_500)),  # in batches of a thousand
    "again": ["a string that is pickled once"] * 300,
}


def read(tmp_path: Path, content: bytes):
    (tmp_path / "file.pkl").write_bytes(content)
    return load_plain_pickle(tmp_path / "file.pkl")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_is_read_as_python_reads_it(tmp_path, protocol):
    assert read(tmp_path, pickle.dumps(PLAIN, protocol=protocol)) == PLAIN
    long = {"long": "x" * 100_000, "nested": nested(MAX_DEPTH - 2)}  # more than one frame
    assert read(tmp_path, pickle.dumps(long, protocol=protocol)) == long


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth - 1):
        value = [value]
    return value


class Touch:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, protocol):
    victim = tmp_path / "victim"
    with pytest.raises(UserError, match=r"only plain dicts|protocol"):
        read(tmp_path, pickle.dumps({"a": Touch(str(victim))}, protocol=protocol))
    assert not victim.exists()


def shared_tuples(levels: int) -> bytes:
    """`t = (t, t)`, `levels` times, as a key: hashing it takes 2^levels steps."""
    doubled = b"".join(b"h" + bytes([level]) + b"h" + bytes([level]) + b"\x86\x94" for level in range(levels))
    return b"\x80\x04})\x94" + doubled + b"K\x01s."


LAUGHS = b"".join(b"](h" + bytes([n]) + b"h" + bytes([n]) + b"e\x94" for n in range(60))  # lists of the list before

HOSTILE = {
    "memo_index": b"\x80\x02]r\x00\x00\x00\x08.",  # Python's reader makes room for 2^27 entries
    "shared_tuples_as_key": shared_tuples(60),
    "deep_tuple_as_key": b"\x80\x04})" + b"\x85" * 1_000_000 + b"K\x01s.",
    "deep_list": b"\x80\x04" + b"]" * 1_000_000 + b"a" * 999_999 + b".",
    "deep_dict": b"\x80\x04" + b"}\x8c\x01a" * 100_000 + b"}" + b"s" * 100_000 + b".",
    "deep_by_batches": b"\x80\x04" + b"](" * 1_000 + b"e" * 1_000 + b".",
    "deeper_than_allowed": pickle.dumps(nested(MAX_DEPTH + 1)),
    "list_in_itself": b"\x80\x04]\x94h\x00a.",
    "billion_laughs": b"\x80\x04]\x94" + LAUGHS + b".",
    "huge_integer": b"\x80\x04\x8b\xff\xff\xff\x7f.",
    "big_integer": pickle.dumps(2**100),
    "huge_frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",
    "huge_string": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fx.",
    "huge_bytes": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fx.",
    "huge_bytearray": b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7fx.",
    "get_from_nowhere": b"\x80\x04h\x07.",
    "long_get_from_nowhere": b"\x80\x04j\xff\xff\xff\xff.",
    "half_a_surrogate_pair": b"\x80\x04\x8c\x03\xed\xa0\x80.",
    "key_twice": b"\x80\x04}(\x8c\x01aN\x8c\x01aNu.",
    "key_is_a_number": pickle.dumps({1: 2}),
    "odd_number_of_items": b"\x80\x04}(\x8c\x01au.",
    "items_for_a_string": b"\x80\x04\x8c\x01a(Ne.",
    "value_below_the_mark": b"\x80\x04]N(a.",
    "no_mark": b"\x80\x04]e.",
    "nothing": b"\x80\x04.",
    "two_values": b"\x80\x04NN.",
    "open_mark": b"\x80\x04N(.",
    "more_after_the_end": b"\x80\x04N.N.",
    "protocol_0": pickle.dumps({"a": 1}, protocol=0),
    "protocol_9": b"\x80\x09N.",
    "nan": pickle.dumps(float("nan")),
    "a_tuple": pickle.dumps((1, 2)),
    "a_set": pickle.dumps({1, 2}),
    "bytes": pickle.dumps(b"x"),
    "a_class": pickle.dumps(Path("x")),
    "persistent_id": b"\x80\x04N\x51.",
    "extension_code": b"\x80\x02\x82\x01.",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.timeout(20)
def test_a_hostile_pickle_is_refused_in_bounded_time_and_memory(tmp_path, content):
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as error:
            read(tmp_path, content)
        # A list of one byte in the file takes 56 bytes and its places on two stacks.
        assert tracemalloc.get_traced_memory()[1] < 300 * len(content) + 1_000_000
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.timeout(120)
def test_damaged_pickles_are_refused_or_read_as_plain_data(tmp_path, protocol):
    """Bytes flipped, cut out, doubled, overwritten by instructions: a UserError or plain data, and nothing else."""
    rng = random.Random(protocol)
    whole = pickle.dumps({**PLAIN, "many": [1, 2.5, "x"]}, protocol=protocol)
    instructions = bytes(range(256))
    for _ in range(1_500):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 1, 2, 5])):
            start = rng.randrange(len(damaged))
            end = min(len(damaged), start + rng.choice([1, 2, 8]))
            damaged[start:end] = rng.choice([b"", damaged[start:end] * 2, rng.choices(instructions, k=end - start)])
            if not damaged:
                break
        with contextlib.suppress(UserError):
            assert is_plain(read(tmp_path, bytes(damaged)))


@pytest.mark.timeout(120)
def test_random_instructions_are_refused_or_read_as_plain_data(tmp_path):
    rng = random.Random(7)
    pieces = [bytes([code]) for code in b"N]}(aesu.\x94\x88\x89"]
    pieces += [b"K\x01", b"\x8c\x01a", b"\x8c\x01b", b"h\x00", b"h\x01", b"q\x00", b"G" + bytes(8), b"\x8a\x01\x05"]
    num_read = 0
    for _ in range(3_000):
        content = b"\x80\x04" + b"".join(rng.choices(pieces, k=rng.randrange(1, 12))) + b"."
        try:
            assert is_plain(read(tmp_path, content))
            num_read += 1
        except UserError:
            pass
    assert num_read > 15  # the generator does not only make rubbish


def is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return value is None or isinstance(value, str | int | float)
