"""The longest run of numbers that count on, among numbers of which some are no headings."""

from __future__ import annotations

from collections.abc import Sequence

# What a step costs against the one that its number is worth: see `longest_count`.
MAX_MISSING = 5
FIRST_MISSING_COST, MORE_MISSING_COST = 0.3, 0.2
RESTART_COST = 0.8
RESTART_AT_TWO_COST = 0.5
LATE_START_COST = 0.25
MAX_LATE_START_COST = 0.9


def longest_count(numbers: Sequence[int], *, divided: Sequence[bool] | None = None, restarts: bool = True) -> list[int]:
    """The positions of the best sequence that counts on, in order.

    Each number taken is worth one; up to five missing numbers, a start above 1 and a restart cost a part of that.

    Args:
        numbers: the candidates' numbers, in reading order.
        divided: for each, whether a part's heading lies between it and the candidate before: then a restart at 1 is
            free, and one at 2 possible (the first heading is missing).
        restarts: whether the count may start over at all.
    """
    scores: list[float] = []
    before: list[int | None] = []
    best_at: dict[int, int] = {}  # number -> position of the best sequence that ends with it
    best: int | None = None  # position of the best sequence's end, so far
    is_divided = False
    for position, number in enumerate(numbers):
        is_divided = is_divided or bool(divided and divided[position])
        options: list[tuple[float, int | None]] = [
            (-min(MAX_LATE_START_COST, LATE_START_COST * max(0, number - 1)), None)
        ]
        for missing in range(MAX_MISSING + 1):
            if (previous := best_at.get(number - 1 - missing)) is not None:
                cost = FIRST_MISSING_COST + MORE_MISSING_COST * missing if missing else 0.0
                options.append((scores[previous] - cost, previous))
        if restarts and best is not None and number <= (2 if is_divided else 1):
            cost = (RESTART_AT_TWO_COST if number == 2 else 0.0) if is_divided else RESTART_COST
            options.append((scores[best] - cost, best))
        score, previous = max(options, key=lambda option: option[0])
        scores.append(score + 1)
        before.append(previous)
        if number not in best_at or scores[-1] > scores[best_at[number]]:
            best_at[number] = position
        if best is None or scores[-1] > scores[best]:
            best, is_divided = position, False
    chain: list[int] = []
    while best is not None:
        chain.append(best)
        best = before[best]
    return chain[::-1]
