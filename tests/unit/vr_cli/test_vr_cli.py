"""What the reward package promises as a whole, and its smallest part."""

from __future__ import annotations

import subprocess
import sys

import pytest

from openrlhf.vr_cli.novelty import prompt_overlap, unseen_trigram_share

IMPORT_ALL = """
import importlib, pkgutil, sys
import openrlhf.vr_cli as package
names = [module.name for module in pkgutil.iter_modules(package.__path__)]
assert len(names) >= 7, names
packing = {"plan_scoring", "scoring_noise"}
for name in set(names) - packing:
    importlib.import_module(f"openrlhf.vr_cli.{name}")
print(*sorted({"ray", "deepspeed", "vllm", "torch"} & sys.modules.keys()))
for name in packing:
    importlib.import_module(f"openrlhf.vr_cli.{name}")
print(*sorted({"ray", "deepspeed", "vllm"} & sys.modules.keys()))
"""


def test_the_reward_imports_without_ray_deepspeed_and_vllm():
    result = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=True)
    # But for what packs sequences not even torch: settings are checked before anything heavy loads.
    assert result.stdout.split() == []


@pytest.mark.parametrize(
    ("plan", "share"),
    [
        ("Ann finds the old map", 1 / 3),  # "ann finds the", "finds the old" are in the prompt; "the old map" is not
        ("ANN, finds -- the old lamp!", 0.0),  # case and punctuation do not count
        ("Bo burns everything down", 1.0),
        ("Bo burns it Bo burns it", 1.0),
        ("two words", 0.0),
        ("", 0.0),
    ],
)
def test_unseen_trigram_share(plan, share):
    assert unseen_trigram_share(plan, prompt="Ann finds the old lamp.") == pytest.approx(share)


@pytest.mark.parametrize(
    ("plan", "coverage", "density"),
    [
        # "the old lamp" (3 words) and "ann" (1) of "the old lamp, then Ann": 4 of 5 words, (9 + 1) / 5
        ("the old lamp, then Ann", 4 / 5, 10 / 5),
        # greedy: "ann finds the", then "lamp"; nothing of it is longer
        ("Ann finds the lamp", 1.0, (9 + 1) / 4),
        # the longest of several places: "the old lamp", not "the old"
        ("the OLD lamp", 1.0, 9 / 3),
        # runs do not cross the prompt's end
        ("old door Ann", 1.0, (4 + 1) / 3),
        ("Bo burns everything", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_overlap_with_the_prompt(plan, coverage, density):
    assert prompt_overlap(plan, prompt="Ann finds the old lamp. The old door.") == pytest.approx((coverage, density))
