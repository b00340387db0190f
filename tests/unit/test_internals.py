"""docs/internals.md: what we use of libraries beyond their interfaces is still there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
PACKAGE = REPO / "openrlhf" / "openrlhf"
TABLE = (REPO / "docs" / "internals.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.split(" | ")] for line in TABLE.splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("row", ROWS, ids=[row[1][:40] for row in ROWS])
def test_every_row_names_files_and_a_test_that_exist(row: list[str]):
    _, _, files, _, test = row
    for name in re.findall(r"`([^`]+\.py)`", files):
        assert (PACKAGE / name).is_file(), name
    if test.startswith("none: "):
        return
    file, _, function = re.fullmatch(r"`([\w.]+)(::)?(\w*)` \|", test).groups()  # type: ignore[union-attr]
    (path,) = REPO.glob(f"tests/**/{file}")
    assert f"def {function}" in path.read_text(encoding="utf-8")


def test_every_private_import_is_in_the_table():
    """`ray._private` and the like: whoever adds one adds a row."""
    private = re.compile(r"^\s*from ((?:ray|vllm|deepspeed|torch|transformers)\S*\._\S+) import", flags=re.MULTILINE)
    for path in PACKAGE.rglob("*.py"):
        if private.search(path.read_text(encoding="utf-8")):
            assert f"`{path.relative_to(PACKAGE)}`" in TABLE, path


def run_python(code: str) -> str:
    """In a process of its own: DeepSpeed's process group and accelerator are process-wide."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1]


def test_deepspeed_asks_the_table_before_it_compiles():
    code = """
import importlib
import inspect
from openrlhf.utils.deepspeed.library import import_deepspeed
deepspeed = import_deepspeed()
from deepspeed.accelerator import get_accelerator
backend = importlib.import_module("deepspeed.comm.torch")
name = get_accelerator().create_op_builder("ShareMemCommBuilder").NAME
print(name, "__compatible_ops__.get(builder.NAME" in inspect.getsource(backend), deepspeed.ops.__compatible_ops__[name])
"""
    assert run_python(code) == "deepspeed_shm_comm True False"


def test_deepspeed_takes_the_process_group_that_is_there():
    code = """
import os
import torch.distributed as dist
from datetime import timedelta
from openrlhf.utils.deepspeed.strategy import get_strategy
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
os.environ.update(MASTER_ADDR="192.0.2.1", MASTER_PORT="1", RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
strategy = get_strategy(seed=1, timeout=timedelta(seconds=5))
import deepspeed
print(deepspeed.comm.is_initialized(), strategy.world_size)
"""
    assert run_python(code) == "True 1"


def test_partitioned_loading_leaves_no_setting_behind():
    code = """
from openrlhf.utils.deepspeed.library import partitioned_loading
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}
with partitioned_loading(config):
    inside = is_deepspeed_zero3_enabled()
print(inside, is_deepspeed_zero3_enabled())
"""
    assert run_python(code) == "True False"
