"""A small OpenAI-compatible server whose answers depend on the prompt alone, and whose trouble is made to order."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

STATUS_FAULTS = ("status 500", "status 429", "status 408")
SERVER_FAULTS = (*STATUS_FAULTS, "hang", "not json", "html", "no choices", "cut off", "hang up")
ANSWER_FAULTS = ("empty", "null", "wrong form")


def answer(prompt: str) -> str:
    """What an ideal model would say."""
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:12]
    if "Name the main characters" in prompt:
        return "1. **Ann Reed** | Ann\n2. Tom Hale | Tom\n3. Nobody Atall"
    if "Name: statement" in prompt:
        return f"- Ann Reed: is seen with {digest}.\n- Tom: knows about {digest}.\n- Tom Hale: is a king of {digest}."
    if "numbers of the supported statements" in prompt:
        return "Supported: 1, 2"
    return f"Ann meets Tom, and the number between them is {digest}. It stays open what it means."


def completion(text: str | None) -> str:
    """The API's reply with one choice."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "fake", "choices": [choice], "usage": usage}
    return json.dumps(reply)


class FakeServer:
    """Serves until `close`. `fault(prompt, how many times it was asked)` names the trouble of a request, or None; after
    `dies_after` good answers every connection is closed."""

    def __init__(
        self,
        fault: Callable[[str, int], str | None] | None = None,
        *,
        hang_s: float = 6.0,
        dies_after: int | None = None,
        port: int = 0,
    ) -> None:
        self.asked: Counter[str] = Counter()
        """Prompt -> requests."""
        self.temperatures: dict[str, list[float]] = {}
        """Prompt -> temperature of each request."""
        self.answered: Counter[str] = Counter()
        """Prompt -> good answers sent."""
        self.most_at_once = 0
        self._at_once = 0
        self._lock = Lock()
        self._fault = fault or (lambda prompt, count: None)
        self._hang_s = hang_s
        self._dies_after = dies_after
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.delay_s = 0.0
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                model = {"id": "fake", "object": "model", "created": 0, "owned_by": "test", "max_model_len": 4000}
                self.reply(200, json.dumps({"object": "list", "data": [model]}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][-1]["content"]
                with fake._lock:
                    fake._at_once += 1
                    fake.most_at_once = max(fake.most_at_once, fake._at_once)
                    fake.asked[prompt] += 1
                    fake.temperatures.setdefault(prompt, []).append(body["temperature"])
                    fault = fake._fault(prompt, fake.asked[prompt])
                    if fake._dies_after is not None and fake.answered.total() >= fake._dies_after:
                        fault = "hang up"
                try:
                    time.sleep(fake.delay_s)
                    self.respond(prompt, fault)
                finally:
                    with fake._lock:
                        fake._at_once -= 1

            def respond(self, prompt: str, fault: str | None) -> None:
                if fault is None:
                    with fake._lock:
                        fake.answered[prompt] += 1
                if fault == "hang":
                    time.sleep(fake._hang_s)
                if fault == "hang up":
                    self.connection.close()
                elif status := re.fullmatch(r"status (\d+)", fault or ""):
                    self.reply(int(status[1]), json.dumps({"error": {"message": "made to order"}}))
                elif fault in ("not json", "html"):
                    self.reply(200, "{'choices'" if fault == "not json" else "<html>busy</html>", kind=fault)
                elif fault == "no choices":
                    self.reply(200, json.dumps({"object": "chat.completion", "choices": []}))
                else:
                    text = {"empty": "", "null": None, "wrong form": "???"}.get(fault or "", answer(prompt))
                    self.reply(200, completion(text), cut_off=fault == "cut off")

            def reply(self, status: int, text: str, *, kind: str = "json", cut_off: bool = False) -> None:
                data = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if kind == "html" else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with suppress(OSError):  # the client may have given up waiting
                    self.wfile.write(data[: len(data) // 2] if cut_off else data)

        return Handler


def random_faults(
    seed: int, faults: tuple[str, ...], *, share: float = 0.6, most: int = 3
) -> Callable[[str, int], str | None]:
    """Trouble at random, `most` times in a row at most for one prompt."""
    rng = random.Random(seed)

    def fault(_prompt: str, count: int) -> str | None:
        return rng.choice(faults) if count <= most and rng.random() < share else None

    return fault


def main(argv: list[str]) -> None:
    """Stands in for `vllm serve MODEL --port PORT` until it is killed; a model called `broken` cannot be served."""
    if argv[1] == "broken":
        sys.exit("made to order: the model is broken")
    print("pid", os.getpid(), flush=True)
    FakeServer(port=int(argv[argv.index("--port") + 1])).delay_s = 0.02
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])
