"""What ends the service's wait: a signal, something ready, or a time of the wall clock."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from multiprocessing import connection
from types import FrameType
from typing import Any

__all__ = ["Wakeup"]

_SPIN_S = 0.0003
_LONGEST_SLEEP_S = 0.004


class Wakeup:
    """Signals become facts here: a handler only notes, and whoever waits decides.

    SIGTERM and SIGINT ask to stop, SIGHUP to read the configuration again, SIGUSR1 only wakes.
    """

    def __init__(self) -> None:
        self._noted: list[int] = []
        self._in, self._out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._stops = 0
        self._reloads = 0

    def install(self) -> None:
        """Take the signals of this process; only from its main thread."""
        signal.set_wakeup_fd(self._out, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, self._on_signal)

    def stops(self) -> int:
        """Return how often it was asked to stop."""
        self._take()
        return self._stops

    def take_reload(self) -> bool:
        """Say whether it was asked to read the configuration again since the last call."""
        self._take()
        asked, self._reloads = self._reloads > 0, 0
        return asked

    def wait(self, waitables: list[Any], timeout_s: float) -> list[Any]:
        """Wait for a signal or one of the waitables; return those that are ready."""
        ready = connection.wait([self._in, *waitables], max(0.0, timeout_s))
        if self._in in ready:
            ready.remove(self._in)
            self._take()
        return ready

    def wait_until(self, waitables: list[Any], deadline_s: float, at_most_s: float) -> list[Any]:
        """Wait as `wait`, until a time of the wall clock (seconds since the epoch), and never longer than `at_most_s`.

        That bound does not go by the wall clock: it may be set back by years after the deadline was worked out.
        """
        rest_s = min(deadline_s - time.time(), at_most_s)
        if rest_s <= 0:
            return self.wait(waitables, 0)
        # poll(2) counts whole milliseconds, and what sleeps is woken late: the poll ends a little early, a sleep does
        # nearly all of the rest, and the last of it is spun away. A fire time costs 0.3 ms of a core.
        ready = self.wait(waitables, (int(rest_s * 1000) - 1.5) / 1000)
        if ready or self._stops:
            return ready
        rest_s = deadline_s - time.time()
        if _SPIN_S < rest_s < _LONGEST_SLEEP_S:
            time.sleep(rest_s - _SPIN_S)
        while 0 < deadline_s - time.time() < _SPIN_S:
            pass
        return ready

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._noted.append(number)

    def _take(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._in, 4096)
        while self._noted:
            number = self._noted.pop(0)
            self._stops += number in (signal.SIGTERM, signal.SIGINT)
            self._reloads += number == signal.SIGHUP
