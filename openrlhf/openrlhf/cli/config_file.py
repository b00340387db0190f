"""`--config RUN/config.json`: the settings of an earlier run, flag by flag."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from typing import Any

from openrlhf.cli.flag_rows import Flag
from openrlhf.cli.flag_table import BY_NAME, COMMAND_FLAGS
from openrlhf.config import HIDDEN
from openrlhf.errors import UserError

SECRET_VARIABLES = {"use_wandb": "WANDB_API_KEY"}

KIND_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}


def read_config_file(path: str) -> dict[str, Any]:
    """The flags that the file sets, by name.

    Raises:
        UserError: no such file, no JSON object, a key that is no flag, or a value of another type.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise UserError(
            f"--config {path}: {(error.strerror or str(error)).lower()}; pass a run's config.json"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"--config {path}: not JSON ({error}); pass a run's config.json") from None
    if not isinstance(content, dict):
        raise UserError(
            f"--config {path}: must hold a JSON object with a value for each flag; pass a run's config.json"
        )
    ours = {flag.name for flag in COMMAND_FLAGS}  # they say what the command does, not what the run is
    return {name: _value(path, name, value) for name, value in content.items() if name not in ours}


def _value(path: str, name: str, value: Any) -> Any:
    flag = BY_NAME.get(name)
    if flag is None:
        close = difflib.get_close_matches(name, BY_NAME, n=1)
        hint = f"; {close[0]} is meant?" if close else "; remove it"
        raise UserError(f"--config {path}: {name!r} is no flag{hint}")
    if value is None and (flag.default is None or flag.default_value() is None or flag.required):
        return None
    if flag.count is None:
        return _one(path, flag, value)
    if flag.default == value:
        return value
    if not isinstance(value, list) or (flag.count != "*" and len(value) != flag.count):
        words = "a list" if flag.count == "*" else f"a list of {flag.count}"
        raise UserError(f"--config {path}: {name!r} must be {words}, not {json.dumps(value)}")
    return [_one(path, flag, part) for part in value]


def _one(path: str, flag: Flag, value: object) -> object:
    """The value, as the type of its flag. A float without fraction serves as an integer, as in 1e8."""
    if flag.kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if flag.kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not flag.kind:
        raise UserError(f"--config {path}: {flag.name!r} must be {KIND_WORDS[flag.kind]}, not {json.dumps(value)}")
    return value


def with_secrets(values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The values with secrets, which no config.json keeps, from the environment.

    Raises:
        UserError: a secret is neither there nor given as a flag.
    """
    found = dict(values)
    for name, variable in SECRET_VARIABLES.items():
        if found[name] != HIDDEN:
            continue
        if variable not in os.environ:
            raise UserError(
                f"--config {path}: the key of --{name} is not kept there; set {variable}, or pass --{name} beside it "
                "(offline needs no key)"
            )
        found[name] = os.environ[variable]
    return found
