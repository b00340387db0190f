"""Bytes to text: which encoding a file is in, and what had to be assumed."""

from __future__ import annotations

import codecs
import math
import re
from dataclasses import dataclass

from charset_normalizer import from_bytes

from openrlhf.errors import UserError
from setup_data.reading.source import WITHOUT_MARKS

BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What books are found in; the detection is better for not having to consider the rest.
ENCODINGS = [
    "cp1252", "cp1250", "cp1251", "koi8_r", "cp866", "mac_cyrillic", "mac_roman", "cp850", "cp437", "cp1253", "cp1254",
    "cp1255", "cp1256", "cp932", "euc_jp", "gb18030", "big5", "euc_kr",
]  # fmt: skip
SAMPLE_BYTES = 60_000
# Up to this share of the bytes above 127 may be wrong in a text that is UTF-8.
MAX_BAD_SHARE = 0.5
# Share of control characters from which on bytes are UTF-16, UTF-32 or no text at all; a few are in any old file.
MIN_CONTROL_SHARE = 0.02
MAX_ODD_CONTROLS = 8
CONTROL_SAMPLE_CHARS = 4_000
# What Western European books have beyond ASCII, and the share that these must have of it.
COMMON_HIGH = frozenset("àâäáãåæçèéêëìíîïñòóôöõøœùúûüÿßÀÂÄÁÃÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÖÕØŒÙÚÛÜ“”‘’„‚«»–—…°§£·•©½¼¡¿†\xa0")
MIN_COMMON_SHARE = 0.9
SOFT_HYPHEN = "\xad"
UNSEEN = "\x00\u200b\u200c\u2060\ufeff"
# Line ends that books have by accident.
ODD_BREAKS = ("\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029")
# With more high bytes than this among the letters, a text is in no Latin script.
LATIN_SHARE = 0.3


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A file's text and what was assumed to get it."""

    text: str
    assumed: tuple[str, ...] = ()


def _bad_bytes_as_cp1252(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error("as_cp1252", _bad_bytes_as_cp1252)


def _wide_without_bom(data: bytes) -> str | None:
    """UTF-16 or UTF-32 without its mark: bytes that no text in one byte a letter has, and few scripts when decoded."""
    sample = data[: 4096 - 4096 % 4]
    if sum(byte < 9 or 13 < byte < 32 for byte in sample) < MIN_CONTROL_SHARE * len(sample) or len(data) % 2:
        return None

    def num_scripts(encoding: str) -> float:
        try:
            text = sample[: len(sample) // 4 * 4].decode(encoding)
        except UnicodeDecodeError:
            return math.inf
        strange = sum(not (char.isprintable() or char.isspace()) for char in text)
        return len({ord(char) >> 8 for char in text}) if strange <= MIN_CONTROL_SHARE * len(text) else math.inf

    best = min(("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"), key=num_scripts)
    return best if num_scripts(best) < math.inf else None


def _almost_utf8(data: bytes) -> Decoded | None:
    """The text if it is UTF-8 with a few bad bytes: they are read as Windows-1252."""
    lenient = data.decode("utf-8", "replace")
    num_bad = lenient.count("\ufffd") - data.count("\ufffd".encode())
    num_good = sum(map(len, re.findall(r"[^\x00-\x7f\ufffd]+", lenient)))
    if num_good == 0 or num_bad > MAX_BAD_SHARE * num_good:
        return None
    text = data.decode("utf-8", "as_cp1252")
    return Decoded(text=text, assumed=(f"UTF-8, with {num_bad:,} bad bytes read as Windows-1252",))


def _sample(data: bytes) -> bytes:
    """The lines that have bytes above 127, as many as the detection needs."""
    lines = [line for line in data[: 20 * SAMPLE_BYTES].split(b"\n") if not line.isascii()]
    return b"\n".join(lines or [data])[:SAMPLE_BYTES]


def _detected(data: bytes) -> Decoded:
    """Windows-1252 if that makes common letters of the high bytes, else what charset-normalizer finds."""
    sample = _sample(data)

    def common_share(encoding: str) -> float:
        high = [char for char in sample.decode(encoding, "replace") if ord(char) > 127]
        return sum(char in COMMON_HIGH for char in high) / max(1, len(high))

    guess = max(("cp1252", "mac_roman", "cp850"), key=common_share)
    best = None
    num_high = sum(byte > 127 for byte in sample)
    num_letters = num_high + sum(65 <= byte <= 90 or 97 <= byte <= 122 for byte in sample)
    if num_high > LATIN_SHARE * num_letters or common_share(guess) < MIN_COMMON_SHARE:
        best = from_bytes(sample, cp_isolation=ENCODINGS).best()
    encoding = best.encoding if best else guess
    how = "detected" if best else "assumed: it is not UTF-8"
    return Decoded(text=data.decode(encoding, "replace"), assumed=(f"encoding {encoding} ({how})",))


def decode(data: bytes, *, declared: str | None = None) -> Decoded:
    """A file's text, with line ends as `\\n`, without NULs, soft hyphens and characters that nobody sees.

    Args:
        declared: the encoding that the file itself names (HTML), taken where the bytes are not UTF-8.

    Raises:
        UserError: the bytes are no text.
    """
    decoded = _decode_any(data, declared)
    text = decoded.text
    for line_end in ODD_BREAKS:
        text = text.replace(line_end, "\n")
    for mark in WITHOUT_MARKS:
        text = text.replace(chr(mark), "\ufffd")
    num_unseen = text.count(SOFT_HYPHEN) + text.count("\x00")
    if SOFT_HYPHEN in text:
        text = re.sub("\xad[ \t]*\n?[ \t]*", "", text)
    for char in UNSEEN:
        text = text.replace(char, "")
    sample = text[:CONTROL_SAMPLE_CHARS]
    controls = sum(sample.count(chr(code)) for code in (*range(1, 9), *range(14, 32), 127))
    if controls > max(MAX_ODD_CONTROLS, MIN_CONTROL_SHARE * len(sample)):
        raise UserError("its bytes are no text in any known encoding; convert it to UTF-8")
    assumed = decoded.assumed + ((f"{num_unseen:,} soft hyphens and NULs taken out",) if num_unseen else ())
    return Decoded(text=text, assumed=assumed)


def _decode_any(data: bytes, declared: str | None) -> Decoded:
    for mark, encoding in BOMS:
        if data.startswith(mark):
            return Decoded(text=data.decode(encoding, "replace").removeprefix("\ufeff"))
    if wide := _wide_without_bom(data):
        return Decoded(text=data.decode(wide, "replace"), assumed=(f"encoding {wide}, without a byte-order mark",))
    try:
        return Decoded(text=data.decode("utf-8"))
    except UnicodeDecodeError:
        pass
    if declared:
        try:
            return Decoded(text=data.decode(declared, "replace"), assumed=(f"encoding {declared}, as the file says",))
        except LookupError:
            pass
    return _almost_utf8(data) or _detected(data)
