"""Seconds as people read them."""

from __future__ import annotations

MINUTE, HOUR, DAY = 60, 3_600, 86_400


def duration(seconds: float) -> str:
    """`0.4 s`, `34 s`, `2:05` (minutes), `1:02:05` (hours), `3 d 01:02:05`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    minutes_and_seconds = f"{whole % HOUR // MINUTE:02d}:{whole % MINUTE:02d}"
    if whole < HOUR:
        return minutes_and_seconds.removeprefix("0")
    if whole < DAY:
        return f"{whole // HOUR}:{minutes_and_seconds}"
    return f"{whole // DAY} d {whole % DAY // HOUR:02d}:{minutes_and_seconds}"
