"""Functions of the user's own, named on the command line as `file.py:name`."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from openrlhf.errors import UserError


def load_function(spec: str, *, num_arguments: int) -> Callable[..., Any]:
    """Loads `file.py:name`, which runs the file.

    Raises:
        UserError: no such file or name, not a function that takes `num_arguments` positional arguments, or an error
            of the file itself, with its line.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not file or not name or path.suffix != ".py":
        raise UserError(f"{spec!r}: expected file.py:name")
    if not os.path.isfile(path):
        raise UserError(f"{spec!r}: there is no file {path.resolve()}")
    function = getattr(_load_module(path), name, None)
    if not callable(function):
        raise UserError(f"{spec!r}: {file} defines no function {name!r}")
    try:
        inspect.signature(function).bind(*[None] * num_arguments)
    except TypeError:
        raise UserError(f"{spec!r}: {name} must take {num_arguments} positional argument(s)") from None
    return function


def call_function(function: Callable[..., Any], *arguments: Any, spec: str, source: str, where: str) -> Any:
    """What a function that `load_function` found returns.

    Args:
        spec: where it was found, as `file.py:name`.
        source, where: how messages name the function, and what it is called for.

    Raises:
        UserError: it raised something; the message says what, in which line of its file, and for what.
    """
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:  # the function is the user's: it may raise anything
        path = Path(spec.rpartition(":")[0])
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{source} raised {what:.300} (at {path}{_line(error, path)}) for {where}") from error


def _load_module(path: Path) -> ModuleType:
    module_name = f"user_function_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses in the file look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the file is the user's: it may raise anything
        del sys.modules[module_name]
        raise UserError(f"{path}{_line(error, path)}: {type(error).__name__}: {error}; mend the file") from error
    return module


def _line(error: BaseException, path: Path) -> str:
    """`:12` for the line of the file at which an error arose; empty where it is not known."""
    file = os.path.abspath(path)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    return "" if line is None else f":{line}"
