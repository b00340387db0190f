"""Cuts texts to what fits a model's context, at the best place there is: paragraph, sentence, word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

CHARS_PER_TOKEN = 3.0
"""Fewer than English prose has with common tokenizers (about 4.2), so that estimates are on the safe side."""
SEPARATORS = ("\n\n", "\n", r"(?<=[.!?])\s+", r"\s+")


def estimate_tokens(text: str) -> int:
    """An upper estimate for English."""
    return int(len(text) / CHARS_PER_TOKEN) + 1


def pack(texts: Sequence[str], max_tokens: int, *, separator: str = "\n\n") -> list[str]:
    """Consecutive texts joined to as few packs as fit, filled from the front, so that texts added at the end leave
    all packs but the last as they are. A text that does not fit by itself is cut.
    """
    pieces = [piece for text in texts for piece in split_text(text, max_tokens)]
    packs: list[str] = []
    for piece in pieces:
        joined = f"{packs[-1]}{separator}{piece}" if packs else piece
        if packs and estimate_tokens(joined) <= max_tokens:
            packs[-1] = joined
        else:
            packs.append(piece)
    return packs


def split_text(text: str, max_tokens: int) -> list[str]:
    """`text` in parts of about equal size that fit; one part where it fits as a whole."""
    num_parts = -(-estimate_tokens(text) // max_tokens)
    if num_parts <= 1:
        return [text]
    target_chars = len(text) / num_parts
    for separator in SEPARATORS:
        pieces = _split_keeping_ends(text, separator)
        parts = _group(pieces, target_chars)
        if all(estimate_tokens(part) <= max_tokens for part in parts):
            return [part.strip() for part in parts]
    size = max(1, int((max_tokens - 1) * CHARS_PER_TOKEN))  # one endless word
    return [text[start : start + size] for start in range(0, len(text), size)]


def _split_keeping_ends(text: str, separator: str) -> list[str]:
    cuts = [0, *(match.end() for match in re.finditer(separator, text)), len(text)]
    return [text[start:end] for start, end in pairwise(cuts) if end > start]


def _group(pieces: Sequence[str], target_chars: float) -> list[str]:
    """Joins pieces into parts, each ended by the piece that brings it closest to its share of the text."""
    parts: list[str] = []
    current = ""
    for piece in pieces:
        if current and len(current) + len(piece) / 2 > target_chars:
            parts.append(current)
            current = ""
        current += piece
    return [*parts, current] if current.strip() else parts
