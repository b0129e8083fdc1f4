"""Waiting for descriptors and for points in time, in one epoll; nothing here polls."""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable

__all__ = ["Poller", "Timer"]


class Timer:
    """A callback at a point of the monotonic clock; `cancel` makes it never happen."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forget the callback."""
        self.callback = None


class Poller:
    """Calls back when a descriptor is readable or a time has come. Not safe between threads."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back each time `fd` is readable or hung up, until `unwatch`."""
        self._epoll.register(fd, select.EPOLLIN)
        self._readers[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Stop watching a descriptor that is still open."""
        del self._readers[fd]
        self._epoll.unregister(fd)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back once when `time.monotonic()` has reached `when`."""
        timer = Timer(when, callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def run_once(self) -> None:
        """Wait for the next thing to happen and make its callbacks."""
        # A number closed and opened again by a callback of this batch must not get the old one's event.
        ready = [(fd, self._readers[fd]) for fd, _ in self._epoll.poll(self._wait_s()) if fd in self._readers]
        for fd, callback in ready:
            if self._readers.get(fd) == callback:
                callback()
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            due = heapq.heappop(self._timers)[2].callback
            if due is not None:
                due()

    def close(self) -> None:
        """Close the epoll descriptor; the watched ones stay open."""
        self._epoll.close()

    def _wait_s(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
