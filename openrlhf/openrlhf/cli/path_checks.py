"""What is wrong with a path or a template on the command line, in the system's words, before anything is loaded."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

from openrlhf.cli.flag_rows import Check

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
MAX_HUB_ID = 96  # the hub's own limit
MISSING = os.strerror(errno.ENOENT).lower()


def stat_problem(path: str) -> str | None:
    """Why the system does not show this path: no such file or directory, permission denied, ...; None: it does."""
    try:
        os.stat(path)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    except ValueError as error:  # a null byte, which only a file of settings can bring
        return str(error)
    return None


def input_file(remedy: str) -> Check:
    """A file that is read."""

    def problem(path: str) -> str | None:
        if found := stat_problem(path):
            return f"{found}; {remedy}"
        if not os.path.isfile(path):
            return f"is not a file; {remedy}"
        return None if os.access(path, os.R_OK) else "no permission to read it"

    return Check("a file", problem)


def output_folder_problem(path: str) -> str | None:
    """Why a folder that a run writes to cannot be made or written."""
    if not path:
        return "is empty; pass a folder"
    folder = Path(path).absolute()
    while stat_problem(str(folder)) == MISSING:
        folder = folder.parent
    if found := stat_problem(str(folder)):
        return f"{found} ({folder})"
    if not folder.is_dir():
        return f"{folder} is a file; pass a folder"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"no permission to write in {folder}"


OUTPUT_FOLDER = Check("a folder, which is made if it is missing", output_folder_problem)


def looks_local(name: str) -> bool:
    """Whether a name means a path of this machine rather than a hub id (`owner/name`)."""
    first = name.split("/")[0]
    return name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1 or os.path.isdir(first)


def hub_id_problem(name: str) -> str | None:
    """Why a name that is no folder here cannot be a hub id either."""
    if looks_local(name):
        found = stat_problem(name)
        found = "no such folder" if found == MISSING else found
        return f"{found or 'is not a folder'}; pass a folder, or a hub id (as Qwen/Qwen2.5-3B-Instruct)"
    if not HUB_ID.fullmatch(name) or len(name) > MAX_HUB_ID or "--" in name or ".." in name:
        return "no such folder, and no hub id (as Qwen/Qwen2.5-3B-Instruct)"
    return None


def model_problem(name: str) -> str | None:
    """What is wrong with a model's folder or hub id, as far as this machine can tell."""
    if not name:
        return "is empty; pass a Hugging Face folder or hub id"
    if not os.path.isdir(name):
        return "is a file; pass the folder that holds it" if os.path.isfile(name) else hub_id_problem(name)
    config = os.path.join(name, "config.json")
    if found := stat_problem(config):
        found = "this folder holds no config.json" if found == MISSING else f"{found}: {config}"
        return f"{found}; pass a Hugging Face model folder"
    try:
        with open(config, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        return f"{error.strerror}: {config}"
    except ValueError as error:
        return f"its config.json is not JSON ({error}); restore the folder"
    return None if isinstance(content, dict) else "its config.json is not a JSON object; restore the folder"


MODEL = Check("a Hugging Face folder or hub id", model_problem)


def template_problem(template: str) -> str | None:
    """What is wrong with a text that gets the prompt in place of its `{}`."""
    try:
        first, second = template.format("1st"), template.format("2nd")
    except (IndexError, KeyError, AttributeError, ValueError):
        return "only {} can be filled in; write it once, and other braces twice ({{ and }})"
    return "holds no {}, so every prompt would be the same text; add it" if first == second else None


INPUT_TEMPLATE = Check("a text with {} in it", template_problem)
