"""Runs a command on a Ray cluster of its own, and ends both together.

    python -m openrlhf.cli.launch --log run.log -- python3 train_ncp.py --pretrain MODEL ...

The head is started with a folder that is made for it, and its address is read from that folder: no other cluster of the
machine can be mistaken for it. Ports that are not named are picked by the kernel, for whoever listens on them. The
command runs as a child of this process with RAY_ADDRESS set; its output goes to standard output and to the log.

Exit code: the command's own, so 0 only where it succeeded; 1 where the cluster failed; 2 for bad input; 128 + N after
signal N.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from openrlhf.errors import UserError
from openrlhf.trainer.ray.session import SessionFolder, prepare_environment, session_folder
from openrlhf.utils.child_output import is_library_line, pieces, stamped
from openrlhf.utils.logging import add_log_file, init_logger
from openrlhf.utils.network import LOOPBACK, check_port_is_free, free_port
from openrlhf.utils.processes import adopt_orphans, descendants, end_processes
from openrlhf.utils.signals import exit_code, name_of, stop_signals
from openrlhf.utils.stages import stage
from openrlhf.utils.terminal import BARS_VARIABLE, bars_wanted, plain, screen

logger = init_logger("openrlhf.cli.launch")  # also where it runs as __main__

START_TIMEOUT_S = 180
POLL_S = 0.2
JOB_GRACE_S = 8.0
HEAD_GRACE_S = 4.0
TAIL_LINES = 20


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """What to run, and where."""

    command: list[str]
    log: Path
    """Gets a copy of the output, after what it holds already."""
    node_ip: str = LOOPBACK
    """Address of the head. Another one than loopback lets other hosts join."""
    port: int | None = None
    """Of the head; None: any free one."""
    dashboard_port: int | None = None
    """Of the dashboard and the jobs API; None: any free one."""


class ClusterFailed(Exception):
    """Ray's head did not start, or ended before the command; the message holds its last lines."""


def main(argv: Sequence[str] | None = None) -> int:
    """Launches; returns the exit code (see the module's docstring)."""
    config = parse_args(argv)
    with stop_signals(first=say_stopping, second=kill_everything) as signals:
        try:
            return launch(config)
        except UserError as error:
            logger.error("%s", error)
            return 2
        except ClusterFailed as error:
            logger.error("%s", error)
            return 1
        except KeyboardInterrupt:
            return signals.exit_code


def parse_args(argv: Sequence[str] | None) -> LaunchConfig:
    parser = argparse.ArgumentParser(description="Run a command on a Ray cluster of its own.")
    parser.add_argument("--log", type=Path, required=True, help="file that gets a copy of the output")
    parser.add_argument(
        "--node_ip", type=ip_address, default=LOOPBACK, help="address of Ray's head (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, help="port of Ray's head (default: a free one)")
    parser.add_argument("--dashboard_port", type=int, help="port of Ray's dashboard (default: a free one)")
    parser.add_argument("command", nargs="+", help="after --")
    return LaunchConfig(**vars(parser.parse_args(argv)))


def ip_address(text: str) -> str:
    """An address of argparse's; a host's name is none."""
    return str(ipaddress.ip_address(text))


def launch(config: LaunchConfig) -> int:
    """Starts the head, runs the command to its end, ends both.

    Raises:
        UserError: a port, the log, the token or the temporary folder cannot be used; nothing has started then.
        ClusterFailed: the head did not start, or ended before the command.
    """
    try:
        config.log.parent.mkdir(parents=True, exist_ok=True)
        add_log_file(config.log)
    except OSError as error:
        raise UserError(f"the log file {config.log}: {error.strerror}; set LOG_FILE") from error
    for name, port in (("RAY_PORT", config.port), ("DASHBOARD_PORT", config.dashboard_port)):
        if port is not None:
            check_port_is_free(config.node_ip, port, name=name)
    os.environ.pop("RAY_ADDRESS", None)  # of another cluster
    prepare_environment(config.node_ip)
    os.environ["RAY_AUTH_MODE"] = "token"  # whoever reaches a cluster can run code on it, on loopback too
    with session_folder() as folder, config.log.open("ab", buffering=0) as log, ended_together():
        with stage("starting Ray"):
            head = start_head(config, folder.path)
            address = wait_for_head(head, folder.path)
        logger.info("Ray listens on %s, its files are in %s; the log is %s", address, folder.path, config.log)
        bars = "1" if bars_wanted() and sys.stdout.isatty() else "0"  # into a pipe, from which they are drawn here
        job = subprocess.Popen(
            config.command,
            env={**os.environ, "RAY_ADDRESS": address, "PYTHONUNBUFFERED": "1", BARS_VARIABLE: bars},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the launcher alone, which then ends things in order
        )
        return supervise(job, head, folder, log)


def start_head(config: LaunchConfig, folder: Path) -> subprocess.Popen[bytes]:
    """`ray start --block`: one process whose end is the end of the whole cluster."""
    ports = {
        "--port": config.port or 0,
        "--dashboard-port": config.dashboard_port or 0,
        "--dashboard-agent-listen-port": 0,
        "--ray-client-server-port": free_port(config.node_ip),  # the one server that takes no 0
    }
    command = ["ray", "start", "--head", "--block", "--disable-usage-stats", "--temp-dir", str(folder)]
    command += ["--node-ip-address", config.node_ip, "--dashboard-host", config.node_ip]
    command += [str(part) for flag_and_port in ports.items() for part in flag_and_port]
    with head_log(folder).open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)


def head_log(folder: Path) -> Path:
    return folder / "ray_start.log"


def wait_for_head(head: subprocess.Popen[bytes], folder: Path) -> str:
    """The head's address, which it writes into its folder once it is up. Raises ClusterFailed."""
    written = folder / "ray_current_cluster"
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (written.is_file() and written.stat().st_size > 0):
        if head.poll() is not None:
            raise ClusterFailed(f"Ray did not start. Its last lines:\n{tail(head_log(folder))}")
        if time.monotonic() > deadline:
            raise ClusterFailed(
                f"Ray did not start within {START_TIMEOUT_S} s. Its last lines:\n{tail(head_log(folder))}"
            )
        time.sleep(POLL_S)
    return written.read_text().strip()


def tail(path: Path) -> str:
    """The last lines that say something, without colours."""
    lines = plain(path.read_text(errors="replace")).splitlines()
    return "\n".join([line for line in lines if line.strip()][-TAIL_LINES:])


def supervise(
    job: subprocess.Popen[bytes], head: subprocess.Popen[bytes], folder: SessionFolder, log: IO[bytes]
) -> int:
    """Waits for the command's end; its exit code. Raises ClusterFailed where the head ends first."""
    assert job.stdout is not None
    copier = threading.Thread(target=copy_output, args=(job.stdout, log), daemon=True)
    copier.start()
    try:
        while job.poll() is None:
            if head.poll() is not None:
                folder.keep = True
                raise ClusterFailed(
                    f"the Ray cluster died, and the training with it. Its last lines:\n{tail(head_log(folder.path))}\n"
                    f"Ray's logs are in {folder.path} until the next start. The same command goes on from the last "
                    "checkpoint, if there is one."
                )
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        job.terminate()
        wait_quietly(job, JOB_GRACE_S)
        raise
    finally:
        end_processes(descendants(job.pid), grace_s=0)
        job.kill()
        copier.join(timeout=2)
    if job.returncode not in (0, 2):
        folder.keep = True
        logger.error(
            "the command failed (%s); what libraries said is in the log, Ray's logs are in %s until the next start",
            ended(job),
            folder.path,
        )
    return job.returncode if job.returncode >= 0 else exit_code(-job.returncode)


def copy_output(source: IO[bytes], log: IO[bytes]) -> None:
    """Lines to the log, with date and time, and to standard output; what libraries say in workers to the log alone."""

    def keep(line: str) -> None:
        log.write(stamped(line, datetime.now()).encode() + b"\n")

    for text, is_bar in pieces(source, keep):
        if is_bar:
            screen().bar(text)
        elif not is_library_line(text):
            screen().line(text, sys.stdout)
    screen().bar("")


def ended(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    return f"exit code {code}" if code >= 0 else f"killed by {name_of(-code)}"


def wait_quietly(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    try:
        process.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        logger.warning("the training did not end within %g s: it is killed", timeout_s)


@contextmanager
def ended_together() -> Iterator[None]:
    """Whatever happens inside, nothing that was started there outlives it."""
    adopt_orphans()
    try:
        yield
    finally:
        started = descendants()
        heads = [process for process in started if process.ppid() == os.getpid()]
        end_processes(heads, grace_s=HEAD_GRACE_S)
        end_processes(started, grace_s=0)


def say_stopping(name: str) -> None:
    logger.warning("%s: ending the training and its cluster; a second signal kills them", name)


def kill_everything() -> None:
    end_processes(descendants(), grace_s=0)


if __name__ == "__main__":
    sys.exit(main())
