"""The Ray cluster that a run uses: started or joined, and watched."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import psutil
import ray
from ray._private import ray_constants
from ray._private import utils as ray_utils
from ray.exceptions import RayError

from openrlhf.errors import UserError
from openrlhf.trainer.ray.session import SessionFolder, prepare_environment, session_folder
from openrlhf.trainer.ray.worker_output import show_worker_output
from openrlhf.utils.devices import num_gpus
from openrlhf.utils.logging import init_logger
from openrlhf.utils.network import LOOPBACK, answers
from openrlhf.utils.processes import adopt_orphans, descendants, end_processes, leave_last_words
from openrlhf.utils.stages import stage

logger = init_logger(__name__)

VITAL_PROCESSES = ("gcs_server", "raylet")
WATCH_SECONDS = 0.5
LOST_NODE_S = 3.0


@contextmanager
def ray_cluster(*, on_start: Callable[[], None] = lambda: None, advice: Callable[[], str] = str) -> Iterator[None]:
    """Within: Ray is up. Joins the cluster of RAY_ADDRESS, or starts one on this machine that ends with the block.

    A cluster of our own listens on loopback only, keeps its files to itself, and takes this process with it where it
    dies: the exit code is then 1.

    Args:
        on_start: called once Ray is up, which has installed signal handlers of its own.
        advice: what to tell whose cluster died, in one sentence.

    Raises:
        UserError: the token or the temporary folder cannot be used.
        NodeLost: a worker failed, and so has one of the nodes.
    """
    if "RAY_ADDRESS" in os.environ or ray.is_initialized():
        join_cluster()
        on_start()
        try:
            with _lost_node_is_the_cause():
                yield
        finally:
            ray.shutdown()
        return
    prepare_environment()
    before = set(descendants())
    adopt_orphans()
    with session_folder() as folder, _end_what_started(before), _watch(folder, before, advice) as over:
        try:
            _start(folder)
            on_start()
            yield
        except UserError:
            raise
        except Exception:
            folder.keep = True
            logger.error("Ray's logs are in %s until the next start", folder.path)
            raise
        finally:
            over.set()  # what ends now ends on purpose
            ray.shutdown()


def join_cluster() -> None:
    """Connects to the cluster of RAY_ADDRESS, once."""
    if not ray.is_initialized():
        ray.init(logging_level=logging.WARNING)
        show_worker_output()


class NodeLost(Exception):
    """What failed did so because a node of the cluster is gone; the message names it."""


@contextmanager
def _lost_node_is_the_cause() -> Iterator[None]:
    """The other ranks only see a connection that closed, long before Ray itself gives a node up.

    Raises:
        NodeLost: in place of Ray's error, where a node that was there is gone.
    """
    nodes = [
        (node["NodeManagerHostname"], node["NodeManagerAddress"], node["NodeManagerPort"])
        for node in ray.nodes()
        if node["Alive"]
    ]
    try:
        yield
    except UserError:
        raise
    except RayError as error:
        if len(nodes) > 1 and (lost := lost_nodes(nodes)):
            raise NodeLost(f"lost {', '.join(lost)} (switched off? out of memory? no network?)") from error
        raise


def lost_nodes(nodes: Sequence[tuple[str, str, int]], *, wait_s: float = LOST_NODE_S) -> list[str]:
    """Those that do not answer, in words. A node may die a little later than its workers, hence the wait for the first.

    Args:
        nodes: name, address and port of each.
    """
    deadline = time.monotonic() + wait_s
    while True:
        lost = [f"node {address} ({name})" for name, address, port in nodes if not answers(address, port)]
        if lost or time.monotonic() > deadline:
            return lost
        time.sleep(WATCH_SECONDS)


def available_gpus() -> int:
    """GPUs of the cluster that RAY_ADDRESS names (the launcher's, say), or of this machine."""
    if "RAY_ADDRESS" in os.environ:
        join_cluster()
        return int(ray.cluster_resources().get("GPU", 0))
    return num_gpus()


def _start(folder: SessionFolder) -> None:
    # Read when Ray is imported, so that the environment comes too late for this process.
    ray_constants.ENABLE_RAY_CLUSTER = False
    # Where a process of Ray's dies while it connects, Ray's own code ends this one, and our watch cannot run meanwhile.
    words = "The run ended while Ray started: a process of Ray's died, or this one (killed? no memory?)"
    with stage("starting Ray"), _without_rays_sigterm_handler(), folder.last_words(words):
        ray.init(
            address="local",
            num_gpus=num_gpus(),
            include_dashboard=False,
            logging_level=logging.ERROR,
            _node_ip_address=LOOPBACK,
            _temp_dir=str(folder.path),
        )
    show_worker_output()


@contextmanager
def _without_rays_sigterm_handler() -> Iterator[None]:
    """It ends this process with code 15 and without a line; ours stays until Ray's code in C++ takes it over."""
    set_handler = ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        ray_utils.set_sigterm_handler = set_handler


@contextmanager
def _end_what_started(before: set[psutil.Process]) -> Iterator[None]:
    """Nothing that starts inside outlives it; what was there `before` stays."""
    try:
        yield
    finally:
        end_processes([process for process in descendants() if process not in before], grace_s=0)


@contextmanager
def _watch(folder: SessionFolder, before: set[psutil.Process], advice: Callable[[], str]) -> Iterator[threading.Event]:
    """Ends this process as soon as one of Ray's vital ones is gone: Ray itself takes a minute to notice.

    Yields what is set to stop watching.
    """
    over = threading.Event()

    def watch() -> None:
        alive: set[psutil.Process] = set()
        while not over.wait(WATCH_SECONDS):
            alive |= {p for p in psutil.Process().children() if p not in before and _name(p) in VITAL_PROCESSES}
            dead = [process for process in alive if not is_alive(process)]
            if dead and not over.is_set():
                _die(dead[0].name(), folder, before, advice)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield over
    finally:
        over.set()
        thread.join()


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def _die(name: str, folder: SessionFolder, before: set[psutil.Process], advice: Callable[[], str]) -> NoReturn:
    logger.error("Ray's %s died, and the run with it (out of memory? killed?). %s", name, advice())
    leave_last_words(folder.reaper, "")
    end_processes([process for process in descendants() if process not in before], grace_s=0)
    shutil.rmtree(folder.path, ignore_errors=True)
    sys.stdout.flush()
    os._exit(1)
