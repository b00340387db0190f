"""A server that speaks as much of the Hugging Face hub's API as an upload of a model needs, with trouble made to order.

Large files go by the LFS protocol: the client is told not to use Xet, whose storage protocol lives in compiled code.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self
from urllib.parse import urlsplit

TOKEN = "hf_thisIsTheSecretOfTheTest"
USER = "ines"


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0


class FakeHub:
    """Serves until `close`. With `breaks_after`, storage takes that many large files and then answers with 500."""

    def __init__(self, *, breaks_after: int | None = None) -> None:
        self.repositories: dict[str, Repository] = {}
        self.storage: dict[str, bytes] = {}
        """SHA-256 -> content of the large files that have arrived."""
        self.stored: Counter[str] = Counter()
        """SHA-256 -> how often it was sent."""
        self.breaks_after = breaks_after
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, token: str = TOKEN) -> dict[str, str]:
        """What makes the client talk to this server."""
        return {"HF_ENDPOINT": self.url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}

    # What the hub answers: status and JSON

    def create(self, body: dict[str, Any]) -> tuple[int, Any]:
        name = f"{body.get('organization') or USER}/{body['name']}"
        if name in self.repositories:
            return 409, {"error": "You already created this model repo", "url": f"{self.url}/{name}"}
        private = body.get("visibility") == "private" or body.get("private", False)
        self.repositories[name] = Repository(private=private)
        return 200, {"url": f"{self.url}/{name}", "name": name, "id": name}

    def info(self, name: str) -> tuple[int, Any]:
        repository = self.repositories[name]
        return 200, {"id": name, "modelId": name, "private": repository.private, "sha": "0" * 40, "siblings": []}

    def preupload(self, body: dict[str, Any]) -> tuple[int, Any]:
        def mode(path: str) -> str:
            return "lfs" if path.endswith(".safetensors") else "regular"

        files = [{"path": f["path"], "uploadMode": mode(f["path"]), "shouldIgnore": False} for f in body["files"]]
        return 200, {"files": files}

    def batch(self, body: dict[str, Any]) -> tuple[int, Any]:
        objects = []
        for item in body["objects"]:
            missing = item["oid"] not in self.storage
            actions = {"actions": {"upload": {"href": f"{self.url}/storage/{item['oid']}"}}} if missing else {}
            objects.append({"oid": item["oid"], "size": item["size"], **actions})
        return 200, {"transfer": "basic", "objects": objects}

    def store(self, oid: str, content: bytes) -> tuple[int, Any]:
        if self.breaks_after is not None and len(self.storage) >= self.breaks_after:
            return 501, {"error": "made to order"}  # 500 and 503 are tried again for most of a minute
        assert hashlib.sha256(content).hexdigest() == oid
        self.storage[oid] = content
        self.stored[oid] += 1
        return 200, {}

    def commit(self, name: str, lines: list[dict[str, Any]]) -> tuple[int, Any]:
        repository = self.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.storage[value["oid"]]
        repository.commits += 1
        return 200, {"commitUrl": f"{self.url}/{name}/commit/{'0' * 40}", "commitOid": "0" * 40}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                self.answer(b"")

            def do_POST(self) -> None:
                self.answer(self.rfile.read(int(self.headers["Content-Length"])))

            def do_PUT(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                self.reply(*hub.store(self.path.removeprefix("/storage/"), content))

            def answer(self, content: bytes) -> None:
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    return self.reply(401, {"error": f"Invalid credentials: {self.headers.get('Authorization')}"})
                return self.reply(*self.route(urlsplit(self.path).path, content))

            def route(self, path: str, content: bytes) -> tuple[int, Any]:
                if path.endswith("/commit/main"):
                    lines = [json.loads(line) for line in content.splitlines()]
                    return hub.commit(path.removeprefix("/api/models/").removesuffix("/commit/main"), lines)
                body = json.loads(content) if content else {}
                if path == "/api/whoami-v2":
                    return 200, {"type": "user", "name": USER, "auth": {}}
                if path == "/api/repos/create":
                    return hub.create(body)
                if path == "/api/validate-yaml":
                    return 200, {"errors": [], "warnings": []}
                if path.endswith("/preupload/main"):
                    return hub.preupload(body)
                if path.endswith("/objects/batch"):
                    return hub.batch(body)
                if match := re.fullmatch(r"/api/models/(\w+/[\w-]+)(/revision/main)?", path):
                    return hub.info(match[1])
                return 404, {"error": f"no {path} here"}

            def reply(self, status: int, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        return Handler
