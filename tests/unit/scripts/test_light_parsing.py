"""`--help` and wrong arguments of the root scripts answer before torch, which takes seconds, is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PARSE = """
import sys
import {script}
try:
    {script}.main({argv!r})
except SystemExit as end:
    code = end.code
print("ended with", code, sorted({{"torch", "transformers", "ray", "deepspeed", "vllm"}} & sys.modules.keys()))
"""


@pytest.mark.parametrize("script", ["setup_rl_data", "compute_baseline_perplexity"])
@pytest.mark.parametrize(("argv", "code"), [(["--help"], 0), (["--no_such_flag"], 2)])
def test_flags_are_parsed_before_heavy_imports(script: str, argv: list[str], code: int) -> None:
    program = PARSE.format(script=script, argv=argv)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"ended with {code} []"
