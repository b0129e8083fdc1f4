"""Flushing a file to the disk: a flush covers every write before it, so threads that wait together share one."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

__all__ = ["Flush"]

_EVERY_S = 1.0


class Flush:
    """The flushes of one log. `borrow` returns a descriptor of the file as it is now, to be closed here, or None.

    The writer counts its writes in `writes`. Safe between threads.
    """

    def __init__(self, borrow: Callable[[], int | None]) -> None:
        self.writes = 0
        self._borrow = borrow
        self._covered = 0
        self._state = (0, 0, 0)
        self._at = time.monotonic()
        # Reentrant, for a signal handler that appends in the midst of a flush.
        self._mutex = threading.RLock()

    def is_due(self) -> bool:
        """Say whether a second has passed since the last flush; then the next one to ask gets False."""
        now = time.monotonic()
        if now - self._at < _EVERY_S:
            return False
        self._at = now
        return True

    def cover(self, write: int) -> None:
        """Return once the write of that number is on the disk. Raises OSError."""
        with self._mutex:
            if self._covered < write:
                self.run()

    def run(self) -> None:
        """Flush whatever came since the last flush, by anybody. Raises OSError."""
        with self._mutex:
            writes = self.writes
            fd = self._borrow()
            if fd is None:
                return
            try:
                stat = os.fstat(fd)
                state = (stat.st_dev, stat.st_ino, stat.st_size)
                if state != self._state or self._covered < writes:
                    os.fdatasync(fd)
            finally:
                os.close(fd)
            self._state, self._covered, self._at = state, writes, time.monotonic()
