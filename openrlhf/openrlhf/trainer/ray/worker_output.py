"""What Ray's workers print, as the driver shows it.

Ray puts a coloured `(Actor pid=N)` before every line. Here our own log lines stay as they are, library lines say in a
word who speaks, whatever is not an error comes once a run, and the states of the run's bar become that bar.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from dataclasses import replace
from typing import Any

from ray._private import worker as ray_worker
from ray._private.ray_logging import global_worker_stdstream_dispatcher

from openrlhf.utils.logging import is_our_line
from openrlhf.utils.progress import Progress, is_state, read_state, render
from openrlhf.utils.terminal import bars_wanted, plain, screen

LIBRARY_BAR = re.compile(r"\d+%\|")
RAYS_OWN_HANDLER = "ray_print_logs"
OUR_HANDLER = "openrlhf"
SPEAKERS = {"LLMRayActor": "engine", "ReferenceModelRayActor": "reference", "raylet": "ray"}
CHANGES = re.compile(r"\d\d:\d\d:\d\d\S*|\d{4}-\d\d-\d\d|\b\d\d-\d\d\b|pid=\d+|\(rank \d+\)|\b[0-9a-f]{16,}\b")
"""What differs between two lines that say the same."""
ERROR = re.compile(
    r"^(?:\S* )?(?:Traceback\b|ERROR\b|[\w.]*(?:Error|Exception)\b)|^\d\d:\d\d:\d\d  (?:ERROR|CRITICAL)\b"
)
REDRAW_S = 1.0


def show_worker_output() -> None:
    """Replaces Ray's printing by ours, from the next batch of lines on; after every `ray.init`."""
    output = WorkerOutput()
    global_worker_stdstream_dispatcher.remove_handler(RAYS_OWN_HANDLER)
    global_worker_stdstream_dispatcher.remove_handler(OUR_HANDLER)
    global_worker_stdstream_dispatcher.add_handler(OUR_HANDLER, output.show)

    def show_error(data: dict[str, Any], ignore_prefix: bool) -> None:
        output.show(data)

    ray_worker.print_to_stdstream = show_error  # Ray's own errors come this way


class WorkerOutput:
    """Shows batches of lines, and keeps the bar."""

    def __init__(self) -> None:
        self._bar = BarView()
        self._once = Once()
        self._lock = threading.Lock()

    def show(self, data: dict[str, Any]) -> None:
        """One batch of Ray's, of one process and stream."""
        if data.get("pid") == "autoscaler":  # tells every five seconds what the cluster has
            return
        stream = sys.stderr if data["is_err"] else sys.stdout
        with self._lock:
            for line in data["lines"]:
                if is_state(line):
                    self._bar.update(read_state(line))
                elif not LIBRARY_BAR.search(line) and self._once.lets_pass(line, str(data.get("pid"))):
                    screen().line(labelled(line, data), stream)


class Once:
    """Lets everything pass that is new. Errors are always; what is indented belongs to the line before it."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._last: dict[str, bool] = {}

    def lets_pass(self, line: str, process: str) -> bool:
        line = plain(line)
        if not line[:1].isspace():
            said = CHANGES.sub("", line)
            repeats = said in self._seen and (not is_our_line(line) or "  WARNING" in line)
            self._last[process] = not repeats or ERROR.match(line) is not None
            self._seen.add(said)
        return bool(line.strip()) and self._last.get(process, True)


class BarView:
    """Draws the run's bar, once a second while nothing is told, so that its clock goes on."""

    def __init__(self) -> None:
        self._state: Progress | None = None
        self._told = 0.0
        self._ticking = False

    def update(self, state: Progress | None) -> None:
        self._state, self._told = state, time.monotonic()
        self._draw()
        if state is not None and not self._ticking and bars_wanted():
            self._ticking = True
            threading.Thread(target=self._tick, daemon=True).start()

    def _draw(self) -> None:
        state = self._state
        if state is None:
            screen().bar("")
            return
        now = replace(state, elapsed_s=state.elapsed_s + time.monotonic() - self._told)
        screen().bar(render(now, columns=screen().columns - 1))

    def _tick(self) -> None:
        while self._state is not None:
            time.sleep(REDRAW_S)
            self._draw()
        self._ticking = False


def labelled(line: str, data: dict[str, Any]) -> str:
    """A library's line says which worker it comes from (`child_output.is_library_line`); ours need not."""
    line = plain(line)
    if is_our_line(line):
        return line
    speaker = SPEAKERS.get(
        str(data.get("actor_name") or data.get("pid")), "policy" if data.get("actor_name") else "ray"
    )
    host = "" if data.get("ip") == data.get("localhost") else f"@{data['ip']}"
    return f"{speaker}{host} | {line}"
