"""What Ray's workers print, as the driver shows it.

Ray puts a coloured `(Actor pid=N)` before every line and draws bars into whatever standard error is. Here our own log
lines stay as they are, library lines get the prefix without colours, and bars are drawn on terminals only.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from typing import Any, TextIO

from ray._private.ray_logging import global_worker_stdstream_dispatcher, stderr_deduplicator, stdout_deduplicator
from ray.experimental.tqdm_ray import RAY_TQDM_MAGIC
from tqdm import tqdm

from openrlhf.utils.logging import is_our_line
from openrlhf.utils.progress import bars_wanted, new_bar

LIBRARY_BAR = re.compile(r"\d+%\|")
RAYS_OWN_HANDLER = "ray_print_logs"
OUR_HANDLER = "openrlhf"


def show_worker_output() -> None:
    """Replaces Ray's printing by ours, from the next batch of lines on; after every `ray.init`."""
    global_worker_stdstream_dispatcher.remove_handler(RAYS_OWN_HANDLER)
    global_worker_stdstream_dispatcher.remove_handler(OUR_HANDLER)
    global_worker_stdstream_dispatcher.add_handler(OUR_HANDLER, WorkerOutput().show)


class WorkerOutput:
    """Prints batches of lines, and keeps the bars of all workers."""

    def __init__(self) -> None:
        self._bars: dict[str, tqdm] = {}
        self._draws = bars_wanted()
        self._lock = threading.Lock()

    def show(self, data: dict[str, Any]) -> None:
        """One batch of Ray's, of one process and stream; lines that many processes say come once."""
        if data.get("pid") == "autoscaler":  # tells every five seconds what the cluster has
            return
        deduplicator, stream = (
            (stderr_deduplicator, sys.stderr) if data["is_err"] else (stdout_deduplicator, sys.stdout)
        )
        with self._lock:
            for batch in deduplicator.deduplicate(data):
                for line in batch["lines"]:
                    if RAY_TQDM_MAGIC in line:
                        self._update_bar(line)
                    elif not LIBRARY_BAR.search(line):
                        self._print(prefixed(line, batch), stream)

    def _print(self, line: str, stream: TextIO) -> None:
        if not self._bars:
            print(line, file=stream, flush=True)
            return
        with tqdm.external_write_mode(file=stream):
            print(line, file=stream, flush=True)

    def _update_bar(self, line: str) -> None:
        if not self._draws:
            return
        state = json.loads(line)
        bar = self._bars.get(state["uuid"])
        if bar is None:
            bar = self._bars[state["uuid"]] = new_bar(state["desc"], total=state["total"], initial=state["x"])
        bar.update(state["x"] - bar.n)
        bar.refresh()
        if state["closed"]:
            self._bars.pop(state["uuid"]).close()


def prefixed(line: str, batch: dict[str, Any]) -> str:
    """A library's line says which worker it comes from; ours say so themselves."""
    if is_our_line(line):
        return line
    name = batch.get("actor_name") or batch.get("task_name")
    worker = f"{name} pid={batch['pid']}" if name else f"pid={batch['pid']}"
    host = "" if batch.get("ip") == batch.get("localhost") else f", ip={batch.get('ip')}"
    return f"({worker}{host}) {line}"
