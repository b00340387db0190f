"""What a row of `cli/flag_table.py` is made of: a flag's name, type, default, meaning, limits and place in the config.

Parser, help, `docs/flags.md`, the checks of one flag by itself and the typed configuration are derived from the rows.
What several flags must fulfil together is in `cli/validate.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

MAX_INT = 2**31 - 1
MAX_FLOAT = 1e9
"""No flag means anything beyond these: below them nothing overflows on its way through the libraries."""

Kind = type[bool] | type[int] | type[float] | type[str]


@dataclass(frozen=True)
class Computed:
    """A default that depends on where and when the command runs."""

    words: str
    """How the help names it."""
    compute: Callable[[], Any]


@dataclass(frozen=True)
class Check:
    """A limit on one flag's value."""

    words: str
    """What is allowed, for the documentation; empty where the problem explains itself."""
    problem: Callable[[Any], str | None]
    """What is wrong with a value, and what to do; None if nothing."""


@dataclass(frozen=True)
class Refused:
    """Values that ask for something that does not exist here."""

    why: str
    instead: str
    """What to do, for the user."""
    _: KW_ONLY
    also: tuple[Any, ...] = ()
    """Values beside the default that ask for nothing, as launch scripts pass them."""
    only: tuple[Any, ...] | None = None
    """The values that are refused; None: all but the default and `also`."""

    def applies(self, value: Any, default: Any) -> bool:
        if self.only is not None:
            return value in self.only
        return value != default and value not in self.also


@dataclass(frozen=True)
class NeedsGpu:
    """A feature that a machine without GPU cannot have."""

    why: str
    instead: str


@dataclass(frozen=True)
class Flag:
    """One flag: one row of the table."""

    name: str
    kind: Kind
    """bool: a switch."""
    default: Any
    help: str
    _: KW_ONLY
    to: str = ""
    """Fields of `TrainConfig` that take the value, as dotted paths, separated by spaces."""
    choices: tuple[Any, ...] = ()
    count: int | Literal["*"] | None = None
    """Number of values; None: one, by itself."""
    check: Check | None = None
    required: str | None = None
    """What it is for and what to pass: it must be given."""
    needs: str | None = None
    """A flag without which this one does nothing."""
    needs_gpu: NeedsGpu | None = None
    package: str | None = None
    """A Python package, by the name that pip knows, which the flag needs and which is not always installed."""
    refused: Refused | None = None
    new: bool = False
    """OpenRLHF has no such flag."""
    rare: bool = False
    """Listed by --help_all only, as refused flags are."""
    secret: bool = False
    """Its value is never repeated."""

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(self.to.split())

    def default_value(self) -> Any:
        """The default, computed now where it depends on the time or the environment."""
        return self.default.compute() if isinstance(self.default, Computed) else self.default

    def given(self, value: Any) -> str:
        """The flag as a command line gives it: `--flag value`, or `--flag` alone for a switch."""
        if value is True or (self.secret and value is not None):
            return f"--{self.name}"
        if value is None:
            return f"--{self.name} (not given)"
        return f"--{self.name} " + (" ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value))


@dataclass(frozen=True)
class Group:
    """Flags that the help lists under one title."""

    title: str
    flags: tuple[Flag, ...]
    note: str = ""


def must_be(words: str, holds: Callable[[Any], bool]) -> Check:
    """A value must be what `words` say, which `holds` tests."""
    return Check(words, lambda value: None if holds(value) else f"must be {words}")


POSITIVE = must_be("positive", lambda value: value > 0)
NOT_NEGATIVE = must_be("0 or more", lambda value: value >= 0)
NEVER_OR_POSITIVE = must_be("-1 (never) or positive", lambda value: value == -1 or value > 0)
PACK_TOKENS = must_be(
    "auto, micro or a positive number of tokens",
    lambda value: value in ("auto", "micro") or (value.isascii() and value.isdigit() and 0 < int(value) <= MAX_INT),
)
SHARE = must_be("above 0 and at most 1", lambda value: 0 < value <= 1)


def is_off(value: Any) -> bool:
    """The value asks for nothing: a switch that is off, a flag that is not given, a coefficient of 0."""
    return value is None or value is False or value == 0


def number_problem(value: Any) -> str | None:
    """What is wrong with a number of any flag, whatever the flag means; None if nothing."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not math.isfinite(value):
        return "must be a finite number"
    limit = MAX_INT if isinstance(value, int) else MAX_FLOAT
    return f"must be at most {limit:,}" if abs(value) > limit else None
