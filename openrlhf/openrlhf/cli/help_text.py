"""What `--help` prints, and the table of flags in `docs/flags.md`, both derived from `cli/flag_table.py`."""

from __future__ import annotations

import textwrap
from typing import Any

from openrlhf.cli.flag_rows import Computed, Flag
from openrlhf.cli.flag_table import ALL_GROUPS

WIDTH = 110
NAME_WIDTH = 36

INTRODUCTION = """\
Trains a policy with GRPO and its relatives: Ray places the workers, DeepSpeed trains, vLLM generates.
"""
LESS = """\
These are the flags that most runs need; --help_all adds the rest, and those of OpenRLHF that are refused here.
"""


def render_help(prog: str, *, everything: bool) -> str:
    """The help text: the flags that people use, or everything."""
    lines = [f"usage: {prog} [--flag [value ...]] ...", "", INTRODUCTION if everything else INTRODUCTION + LESS]
    for group in ALL_GROUPS:
        flags = [flag for flag in group.flags if everything or not is_rare(flag)]
        if flags:
            lines.append(f"{group.title}:" + (f" {group.note}" if group.note else ""))
            lines += [_entry(flag) for flag in flags]
            lines.append("")
    return "\n".join(lines)


def is_rare(flag: Flag) -> bool:
    """The flag is listed by --help_all only."""
    return flag.rare or (flag.refused is not None and flag.refused.only is None)


def _entry(flag: Flag) -> str:
    name = f"  --{flag.name} {value_name(flag)}".rstrip()
    text = description(flag) + default_words(flag, " (default: {})")
    head = name.ljust(NAME_WIDTH) if len(name) < NAME_WIDTH else f"{name}\n{' ' * NAME_WIDTH}"
    return (
        head
        + textwrap.fill(
            text, WIDTH, initial_indent=" " * NAME_WIDTH, subsequent_indent=" " * NAME_WIDTH, break_on_hyphens=False
        ).lstrip()
    )


def value_name(flag: Flag) -> str:
    """What stands for a flag's value: its type, or its choices. Empty for a switch."""
    if flag.kind is bool:
        return ""
    name = "|".join(map(str, flag.choices)) if flag.choices else flag.kind.__name__.upper()
    if flag.count == "*":
        return f"[{name} ...]"
    return " ".join([name] * (flag.count or 1))


def description(flag: Flag) -> str:
    """What a flag is for, and why it, or one of its values, is refused."""
    if flag.refused is None:
        return flag.help
    values = ", ".join(map(str, flag.refused.only or ()))
    passing = ", ".join(map(str, flag.refused.also))
    return f"{flag.help}; {values or 'refused'}{' is refused' if values else ''}: {flag.refused.why}" + (
        f" (the default and {passing} pass)" if passing else ""
    )


def default_words(flag: Flag, template: str = "{}") -> str:
    """The default, for people; empty for a switch and where there is none."""
    default: Any = flag.default
    if flag.kind is bool or default is None:
        return ""
    if isinstance(default, Computed):
        return template.format(default.words)
    return template.format(" ".join(map(str, default)) if isinstance(default, tuple) else default)
