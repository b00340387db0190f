"""How every command of this project ends: the exit codes, and what is printed for them. See docs/commands.md."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from openrlhf.errors import UserError
from openrlhf.utils.logging import log_level

DONE, FAULT, USER_ERROR = 0, 1, 2
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


def run_command(body: Callable[[], int | None]) -> int:
    """Runs a command and returns its exit code: what `body` returns, 0 for None.

    2: something that the user can mend (`UserError`), printed as one message. 130: Ctrl-C. On SIGTERM the process
    unwinds and exits with 143. Any other exception is a fault and keeps its traceback (Python exits with 1).

        if __name__ == "__main__":
            sys.exit(run_command(main))
    """
    exit_on_sigterm()
    try:
        log_level()
        return body() or DONE
    except UserError as error:
        # Ray raises a worker's error as a class of its own, whose text is a traceback and whose cause is the error.
        sys.stderr.write(f"error: {getattr(error, 'cause', error)}\n")
        return USER_ERROR
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED


@contextmanager
def files_are_the_users() -> Iterator[None]:
    """For a command that does little but read and write what its user names: an OSError that names a file is theirs.

    Raises:
        UserError: instead of such an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        raise UserError(f"{error.filename}: {error.strerror}") from error


def exit_on_sigterm() -> None:
    """Makes SIGTERM raise SystemExit(143) in the main thread. Ray installs a handler of its own: call this after it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(_signal: int, _frame: object) -> NoReturn:
    raise SystemExit(TERMINATED)
