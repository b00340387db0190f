"""Ends on SIGINT, SIGTERM and SIGHUP: the first is told at once and ends things in order, the second kills."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FIRST_SIGNAL_CODE = 128


def name_of(number: int) -> str:
    return signal.Signals(number).name


def exit_code(number: int) -> int:
    """What a shell reports for a process that ends because of this signal."""
    return FIRST_SIGNAL_CODE + number


def leave(code: int) -> NoReturn:
    """Ends this process with `code`: after a signal at once, without what libraries do when the interpreter ends.

    One that was cut off while it started may crash there (Ray does), and the exit code would be the crash's.
    """
    if code > FIRST_SIGNAL_CODE:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def quit_at_once() -> None:
    """From now on a signal ends this process with one line: for the seconds of importing, when nothing has started."""

    def handler(number: int, _: object) -> NoReturn:
        os.write(sys.stderr.fileno(), f"{name_of(number)}: ended before anything started\n".encode())
        os._exit(exit_code(number))

    _install(handler)


class StopSignals:
    """Turns the first signal into a KeyboardInterrupt, the one exception that Ray lets through, in the main thread."""

    def __init__(self, *, first: Callable[[str], None], second: Callable[[], None]) -> None:
        """`first` gets the signal's name and says what happens now; `second` kills what must not be left behind."""
        self.received: int | None = None
        self._first = first
        self._second = second

    def arm(self) -> None:
        """Installs the handlers; again after a library has installed its own."""
        _install(self._handle)

    def _handle(self, number: int, _: object) -> NoReturn:
        if self.received is None:
            self.received = number
            self._first(name_of(number))
            raise KeyboardInterrupt
        self._second()
        os._exit(exit_code(number))

    @property
    def exit_code(self) -> int:
        """Of a process that was interrupted, also by a plain KeyboardInterrupt."""
        return exit_code(self.received or signal.SIGINT)


@contextmanager
def stop_signals(*, first: Callable[[str], None], second: Callable[[], None]) -> Iterator[StopSignals]:
    """Within: see `StopSignals`. What nohup has set to be ignored stays ignored."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signals = StopSignals(first=first, second=second)
    signals.arm()
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _install(handler: Callable[[int, object], NoReturn]) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
