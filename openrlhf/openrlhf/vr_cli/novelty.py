"""How much of a plan is not simply copied from its prompt: copying is the known way to game the reward.

All of it counts words: runs of letters, digits and underscores, lower-cased.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

WORD = re.compile(r"\w+")


class PromptWords:
    """A prompt's words, with what it takes to look a plan up in them."""

    def __init__(self, text: str) -> None:
        self.words = _words(text)
        self.trigrams = set(_trigrams(self.words))
        self.positions: Mapping[str, list[int]] = defaultdict(list)
        for position, word in enumerate(self.words):
            self.positions[word].append(position)


@functools.lru_cache(maxsize=4)
def prompt_words(text: str) -> PromptWords:
    """Kept for the last prompts: a group's plans have one."""
    return PromptWords(text)


def unseen_trigram_share(plan: str, prompt: str) -> float:
    """Share in [0, 1] of the plan's word trigrams that do not occur in the prompt, repeats counted.

    A plan of fewer than three words has no trigram and brings nothing new: 0.
    """
    trigrams = _trigrams(_words(plan))
    seen = prompt_words(prompt).trigrams
    return sum(trigram not in seen for trigram in trigrams) / len(trigrams) if trigrams else 0.0


def prompt_overlap(plan: str, prompt: str) -> tuple[float, float]:
    """Coverage and density of the extractive fragments of a plan.

    A fragment is a run of the plan's words that stands in the prompt; they are taken greedily from left to right, each
    as long as can be. Coverage is the share in [0, 1] of the plan's words that lie in one, density the mean over the
    plan's words of the length of the fragment that they lie in: much shared vocabulary gives coverage, copied sentences
    give density. An empty plan has 0 and 0.

    Source: Grusky, Naaman & Artzi 2018 (Newsroom, arXiv 1804.11283), "extractive fragment" coverage and density.
    """
    words = _words(plan)
    lengths = list(_fragment_lengths(words, prompt_words(prompt)))
    if not words:
        return 0.0, 0.0
    return sum(lengths) / len(words), sum(length**2 for length in lengths) / len(words)


def _fragment_lengths(words: Sequence[str], prompt: PromptWords) -> Iterator[int]:
    start = 0
    while start < len(words):
        length = _longest_run(words, start, prompt)
        if length:
            yield length
        start += max(1, length)


def _longest_run(words: Sequence[str], start: int, prompt: PromptWords) -> int:
    """How many words from `start` on stand in the prompt one after the other."""
    length, ends = 0, prompt.positions.get(words[start], [])
    while ends:
        length += 1
        if start + length == len(words):
            break
        following = words[start + length]
        ends = [end + 1 for end in ends if end + 1 < len(prompt.words) and prompt.words[end + 1] == following]
    return length


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def _trigrams(words: Sequence[str]) -> list[tuple[str, str, str]]:
    return list(zip(words, words[1:], words[2:], strict=False))
