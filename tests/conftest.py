"""What all tests share: options of the command line."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record_golden", action="store_true", help="write tests/integration/golden_losses.json instead of comparing"
    )
