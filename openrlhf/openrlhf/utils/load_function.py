"""Functions of the user's own, named on the command line as `file.py:name`."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def load_function(spec: str, *, num_arguments: int) -> Callable[..., Any]:
    """Loads `file.py:name`. Errors inside the file surface as they are.

    Raises:
        ValueError: no such file or name, or not a function that takes `num_arguments` positional arguments.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not file or not name or path.suffix != ".py":
        raise ValueError(f"{spec!r}: expected file.py:name")
    if not path.is_file():
        raise ValueError(f"{spec!r}: there is no file {path.resolve()}")
    function = getattr(_load_module(path), name, None)
    if not callable(function):
        raise ValueError(f"{spec!r}: {file} defines no function {name!r}")
    try:
        inspect.signature(function).bind(*[None] * num_arguments)
    except TypeError:
        raise ValueError(f"{spec!r}: {name} must take {num_arguments} positional argument(s)") from None
    return function


def _load_module(path: Path) -> ModuleType:
    module_name = f"user_function_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses in the file look their module up
    spec.loader.exec_module(module)
    return module
