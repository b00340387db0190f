"""Ray started by the training command listens on loopback only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support import loopback_ray

REPO = Path(__file__).parents[2]


def test_everything_listens_on_loopback_and_a_new_token_is_its_owners(tmp_path: Path) -> None:
    """In a process of its own: Ray reads a token once a process, and other tests have had theirs."""
    folders = os.pathsep.join(str(REPO / folder) for folder in ("openrlhf", "tests", "."))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN_PATH"}
    done = subprocess.run(
        [sys.executable, str(loopback_ray.__file__)],
        env={**environment, "HOME": str(tmp_path), "PYTHONPATH": folders},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
