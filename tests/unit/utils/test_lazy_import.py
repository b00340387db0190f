"""Packages that export names without loading their modules."""

from __future__ import annotations

import subprocess
import sys

import pytest

import openrlhf.trainer.ray
from openrlhf.utils import get_tokenizer, tokenizer

LOADED = """
import sys
import openrlhf.datasets, openrlhf.models, openrlhf.trainer.ppo_utils, openrlhf.trainer.ray, openrlhf.utils.deepspeed
from openrlhf.utils import get_tokenizer
print([name for name in ("ray", "vllm", "deepspeed", "torch", "transformers") if name in sys.modules])
"""


def test_a_package_loads_none_of_its_libraries() -> None:
    result = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_an_exported_name_is_the_modules_own() -> None:
    assert get_tokenizer is tokenizer.get_tokenizer


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'openrlhf\.trainer\.ray' has no attribute 'CriticModelRayActor'"):
        _ = openrlhf.trainer.ray.CriticModelRayActor
