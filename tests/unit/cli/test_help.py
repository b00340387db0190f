"""What people read of the flags: --help, --help_all and docs/flags.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from openrlhf.cli.flag_docs import render_docs
from openrlhf.cli.flag_table import COMMAND_FLAGS, FLAGS
from openrlhf.cli.flags import parse_args
from openrlhf.cli.help_text import is_rare

ROOT = Path(__file__).parents[3]


def printed(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_info:
        parse_args(argv)
    assert exit_info.value.code == 0
    return capsys.readouterr().out


def listed(text: str) -> set[str]:
    return {line.split()[0].removeprefix("--") for line in text.splitlines() if line.startswith("  --")}


def test_help_lists_the_flags_that_people_use(capsys: pytest.CaptureFixture[str]) -> None:
    usual = {flag.name for flag in FLAGS if not is_rare(flag)}
    text = printed(["--help"], capsys)
    assert listed(text) == usual | {flag.name for flag in COMMAND_FLAGS} | {"help", "help_all"}
    assert text == printed(["-h"], capsys)
    assert len(text.splitlines()) < 110
    assert not usual & {flag.name for flag in FLAGS if flag.refused and flag.name != "advantage_estimator"}


def test_help_all_lists_every_flag_and_why_it_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(["--help_all"], capsys)
    assert {flag.name for flag in FLAGS} <= listed(text)
    assert "--lora_rank INT" in text
    assert max(map(len, text.splitlines())) <= 110
    one_line = " ".join(text.split())
    assert all(flag.refused.why in one_line for flag in FLAGS if flag.refused)


def test_the_page_of_flags_is_up_to_date() -> None:
    """If not: python -m openrlhf.cli.flag_docs > docs/flags.md"""
    assert (ROOT / "docs" / "flags.md").read_text(encoding="utf-8") == render_docs()
