"""Writes the reference of all flags.

python -m openrlhf.cli.flag_docs > docs/flags.md
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from openrlhf.cli.flag_rows import Flag, Group
from openrlhf.cli.flag_table import ALL_GROUPS
from openrlhf.cli.help_text import default_words, is_rare, value_name

INTRODUCTION = """\
# Flags of `train_ncp.py` and `openrlhf.cli.train_ppo_ray`

Made from `openrlhf/openrlhf/cli/flag_table.py` by `python -m openrlhf.cli.flag_docs > docs/flags.md`; a test keeps the
two equal. `--help` prints the first table of each group, `--help_all` all of them.

Names, types and defaults are those of OpenRLHF 0.6.1.post1; *new* marks the flags that it has not got. A switch is off
unless given; `--flag false` turns one off that `--config` turns on. A flag that asks for something that does not exist
is refused, with what to use instead, before anything starts; its default passes
(but for `--advantage_estimator`, whose default needs a critic).
"""


def render_docs() -> str:
    """The page, as Markdown."""
    return INTRODUCTION + "".join(_group(group) for group in ALL_GROUPS)


def _group(group: Group) -> str:
    usual = [flag for flag in group.flags if not is_rare(flag)]
    rare = [flag for flag in group.flags if is_rare(flag) and flag.refused is None]
    refused = [flag for flag in group.flags if is_rare(flag) and flag.refused is not None]
    note = f"\n{group.note}\n" if group.note else ""
    text = f"\n## {group.title[0].upper()}{group.title[1:]}\n{note}"
    text += _table(usual, ("flag", "value", "default", "meaning"), _row) if usual else ""
    text += "\nRarely needed:\n" + _table(rare, ("flag", "value", "default", "meaning"), _row) if rare else ""
    return text + ("\nRefused:\n" + _table(refused, ("flag", "passes", "why", "instead"), _refused) if refused else "")


def _table(flags: list[Flag], columns: tuple[str, ...], row: Callable[[Flag], tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n" + "\n".join([*lines, *(_line(row(flag)) for flag in flags)]) + "\n"


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _row(flag: Flag) -> tuple[str, ...]:
    value = ", ".join(map(str, flag.choices)) or value_name(flag).lower()
    return f"`--{flag.name}`", value, f"`{default_words(flag)}`" if default_words(flag) else "", _meaning(flag)


def _meaning(flag: Flag) -> str:
    """Its help, and its limits in words."""
    parts = [("*new*: " if flag.new else "") + flag.help]
    if flag.required is not None:
        parts.append("must be given")
    if flag.check is not None and flag.kind in (int, float):
        parts.append(flag.check.words)
    if flag.needs is not None:
        parts.append(f"needs `--{flag.needs}`")
    if flag.needs_gpu is not None:
        parts.append("needs a GPU")
    if flag.package is not None:
        parts.append(f"needs the package `{flag.package}`")
    if flag.refused is not None:
        parts.append(f"{', '.join(map(str, flag.refused.only or ()))} is refused: {flag.refused.instead}")
    return "; ".join(parts)


def _refused(flag: Flag) -> tuple[str, ...]:
    assert flag.refused is not None
    passes = [default_words(flag) or ("off" if flag.kind is bool else "none"), *map(str, flag.refused.also)]
    return f"`--{flag.name}`", ", ".join(dict.fromkeys(passes)), flag.refused.why, flag.refused.instead


if __name__ == "__main__":
    sys.stdout.write(render_docs())
