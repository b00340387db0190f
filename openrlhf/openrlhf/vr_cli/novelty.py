"""How much of a plan is not simply copied from its prompt: copying is the known way to game the reward."""

from __future__ import annotations

import re

WORD = re.compile(r"\w+")


def unseen_trigram_share(plan: str, prompt: str) -> float:
    """Share in [0, 1] of the plan's lower-cased word trigrams that do not occur in the prompt, repeats counted.

    A plan of fewer than three words has no trigram and brings nothing new: 0.
    """
    trigrams = _word_trigrams(plan)
    if not trigrams:
        return 0.0
    seen = set(_word_trigrams(prompt))
    return sum(trigram not in seen for trigram in trigrams) / len(trigrams)


def _word_trigrams(text: str) -> list[tuple[str, str, str]]:
    words = WORD.findall(text.lower())
    return list(zip(words, words[1:], words[2:], strict=False))
