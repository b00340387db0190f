"""What a Ray cluster of ours needs before it starts: a token, an environment, a folder; and its cleaning up.

Ray's own defaults are a token file that everybody may read, sockets on every interface, one folder `/tmp/ray` for all
clusters of all users that only grows, and processes that outlive a driver that was killed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from openrlhf.errors import UserError
from openrlhf.utils.file_hashes import cache_folder
from openrlhf.utils.logging import init_logger
from openrlhf.utils.network import LOOPBACK, bypass_proxies, is_loopback
from openrlhf.utils.processes import leave_last_words, start_reaper

logger = init_logger(__name__)

CLUSTER_SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Named after the systems on which off is the default. On, Ray replaces a loopback address by the machine's own one and
listens on every interface."""

FOLDER_PREFIX = "ncp-ray-"
LOCK_NAME = "owner.lock"
NEW_FOLDER_S = 60
"""A folder without a lock that is younger than this may be one whose owner is about to lock it."""


def prepare_environment(node_ip: str = LOOPBACK, environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets what Ray reads from the environment, for this process and those that it starts. Values that are there stay.

    RAY_AUTH_MODE is not among them: Ray has read it by the time that it is imported, and `ray.init` turns it on itself.

    Raises:
        UserError: the cluster token cannot be read, written or protected.
    """
    if not environment.get("RAY_AUTH_TOKEN"):
        path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or default_token_path())
        ensure_token(path)
        environment["RAY_AUTH_TOKEN_PATH"] = str(path)
    environment.setdefault("RAY_worker_niceness", "0")  # Ray's default, 15, starves workers on a busy machine
    environment.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    environment.setdefault("DASHBOARD_METRIC_PORT", "0")  # a free one, instead of the same one for every cluster
    environment.setdefault("AUTOSCALER_METRIC_PORT", "0")
    with suppress(RuntimeError):  # no home folder: torch's own choice
        # Torch compiles into the temporary folder, which on many clusters goes with the job.
        environment.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "torchinductor"))
    if is_loopback(node_ip):
        environment[CLUSTER_SWITCH] = "0"
    bypass_proxies(environment, node_ip, LOOPBACK, "localhost")


def default_token_path() -> Path:
    """Where Ray looks for its token, also without HOME."""
    try:
        return Path.home() / ".ray" / "auth_token"
    except RuntimeError as error:
        raise UserError("there is no home folder for Ray's token; set RAY_AUTH_TOKEN_PATH to a file's path") from error


def ensure_token(path: Path) -> None:
    """Makes the cluster token if there is none, and sees to it that only its owner can read it.

    Raises:
        UserError: it cannot be read, written or protected.
    """
    try:
        if path.is_file() and path.stat().st_size > 0:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                path.chmod(0o600)
                logger.warning(
                    "%s could be read by others (mode %04o): it is 0600 now; if they may have read it, delete it "
                    "and a new token is made",
                    path,
                    mode,
                )
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_token(path)
    except OSError as error:
        raise UserError(
            f"the token of the Ray cluster, {error.filename or path}: {error.strerror}; "
            "set RAY_AUTH_TOKEN_PATH to a file of your own"
        ) from error
    logger.info("wrote a new cluster token to %s", path)


def _write_token(path: Path) -> None:
    """Whole or not at all, and never readable by others; where two processes write, both end up with the same token."""
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        if path.is_file() and path.stat().st_size == 0:
            path.unlink(missing_ok=True)
        with suppress(FileExistsError):
            os.link(aside, path)
    finally:
        os.unlink(aside)


@dataclass(kw_only=True)
class SessionFolder:
    """Ray's files of one cluster: sockets, logs, its address."""

    path: Path
    reaper: subprocess.Popen[bytes]
    keep: bool = False
    """Whether it stays after the end, for its logs. The next cluster that starts removes it."""

    @contextmanager
    def last_words(self, words: str) -> Iterator[None]:
        """What is said where this process ends inside without a word of its own."""
        leave_last_words(self.reaper, words)
        try:
            yield
        finally:
            leave_last_words(self.reaper, "")


@contextmanager
def session_folder() -> Iterator[SessionFolder]:
    """A new folder of this user's alone, removed at the end, also (by a reaper) where this process is killed.

    The reaper then ends the processes that this one started, too.

    Raises:
        UserError: it cannot be made.
    """
    base = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    try:
        remove_leftovers(base)
        path = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=base))
    except OSError as error:
        raise UserError(f"no folder for Ray's files: {error.filename}: {error.strerror}; set RAY_TMPDIR") from error
    with (path / LOCK_NAME).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        reaper = start_reaper(str(path))
        folder = SessionFolder(path=path, reaper=reaper)
        try:
            yield folder
        finally:
            reaper.kill()
            reaper.wait()
            if not folder.keep:
                shutil.rmtree(path, ignore_errors=True)


def remove_leftovers(base: Path) -> None:
    """Removes the folders of this user's clusters that are gone: kept ones, and those of machines that went down."""
    for path in base.glob(f"{FOLDER_PREFIX}*"):
        with suppress(FileNotFoundError):  # another launcher cleans up at the same time
            if path.stat().st_uid == os.getuid() and not _is_in_use(path):
                shutil.rmtree(path, ignore_errors=True)


def _is_in_use(path: Path) -> bool:
    try:
        with (path / LOCK_NAME).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return time.time() - path.stat().st_mtime < NEW_FOLDER_S
    except BlockingIOError:
        return True
    return False
