"""What the hub's answers mean, from a server of the test's own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from openrlhf.cli.hub import hub_problem

ANSWERS = {
    "/api/models/someone/public": 200,
    "/api/datasets/someone/rows": 200,
    "/api/models/someone/gated": 403,
    "/api/models/someone/private": 401,
    "/api/models/someone/broken": 502,
}


class Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(ANSWERS.get(self.path, 404))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The hub is a server of this process, its cache empty."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield
        server.shutdown()


@pytest.mark.usefixtures("hub")
def test_what_the_hub_has_passes() -> None:
    assert hub_problem("someone/public", "model") is None
    assert hub_problem("someone/rows", "dataset") is None


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("someone/typo", "the hub has no such model, or not for you"),
        ("someone/rows", "the hub has no such model, or not for you"),  # a data set of that name there is
        ("someone/gated", "log in (hf auth login)"),
        ("someone/private", "log in (hf auth login)"),
        ("someone/broken", "the hub answers with status 502"),
    ],
)
def test_what_it_has_not_is_said(name: str, words: str) -> None:
    assert words in str(hub_problem(name, "model"))
