"""The output of one task attempt, kept within bounds: its first bytes, its last bytes, and when they came."""

from __future__ import annotations

import logging
import os
import time
from collections import deque

from .beneath import open_directory, open_new
from .masking import MaskedStream

__all__ = ["TAIL_BYTES", "TaskLog"]

logger = logging.getLogger(__name__)

TAIL_BYTES = 64 * 1024
_TIMES_PER_STEP = 10_000
_MODE = 0o640


class TaskLog:
    """A file of raw output that comes to be with its first byte.

    Of more than `limit` bytes, the first `limit` are written as they come and the last 64 KiB at `close`, after a line
    `[tickpool: N bytes left out]`. Beside it `<path>.times` holds `offset<TAB>unix seconds` for the chunks: where in
    the file bytes begin that came at that time. A disk that is full loses output, never the task.
    Below `root`, by default its directory, no link is followed. With `masked`, all of this is about what it lets pass:
    no bound cuts a secret in two.
    """

    def __init__(self, path: str, limit: int, root: str | None = None, *, masked: MaskedStream | None = None) -> None:
        self.path = path
        self._masked = masked
        self._root = root or os.path.dirname(path)
        self.size = 0
        self.is_broken = False
        self._limit = limit
        self._fd = self._times_fd = -1
        self._tail: deque[tuple[float, bytes]] = deque()
        self._tail_size = 0
        self._times = 0
        self._last_time = 0.0
        self._ends_line = True

    @property
    def is_open(self) -> bool:
        """Tell whether there is a file: something was written."""
        return self._fd >= 0

    def write(self, chunk: bytes) -> None:
        """Take the next bytes of output."""
        self._keep(self._masked.feed(chunk) if self._masked is not None else chunk)

    def _keep(self, chunk: bytes) -> None:
        if not chunk:
            return
        now = time.time()
        if self._fd < 0 and not self.is_broken:
            self._open()
        head = chunk[: max(0, self._limit - self.size)]
        if head:
            self._note_time(self.size, now)
            self._put(self._fd, head)
            self._ends_line = head.endswith(b"\n")
        if len(head) < len(chunk):
            self._keep_tail(now, chunk[len(head) :])
        self.size += len(chunk)

    def close(self) -> None:
        """Write the tail and close the files."""
        if self._masked is not None:
            self._keep(self._masked.end())
        if self._fd < 0:
            return
        if self._tail:
            self._write_tail()
        os.close(self._fd)
        if self._times_fd >= 0:
            os.close(self._times_fd)

    def _open(self) -> None:
        try:
            directory = open_directory(os.path.dirname(self.path), self._root)
            try:
                name = os.path.basename(self.path)
                self._fd = open_new(directory, name, _MODE)
                self._times_fd = open_new(directory, f"{name}.times", _MODE)
            finally:
                os.close(directory)
        except OSError as error:
            self._fail(error)

    def _put(self, fd: int, data: bytes) -> None:
        try:
            while data and not self.is_broken and fd >= 0:
                data = data[os.write(fd, data) :]
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        if not self.is_broken:
            logger.warning("%s: output is lost from here: %s", self.path, error)
        self.is_broken = True

    def _note_time(self, offset: int, now: float) -> None:
        # Thinned tenfold every 10,000 entries: 1 ms, 10 ms, 100 ms, ... apart; so bounded for any length of task.
        if now - self._last_time < 0.001 * 10 ** (self._times // _TIMES_PER_STEP):
            return
        self._last_time = now
        self._times += 1
        self._put(self._times_fd, b"%d\t%.3f\n" % (offset, now))

    def _keep_tail(self, now: float, chunk: bytes) -> None:
        # Tiny chunks are joined, or the deque's own weight would be no bound.
        if self._tail and len(self._tail[-1][1]) + len(chunk) <= 4096:
            now, last = self._tail.pop()
            self._tail_size -= len(last)
            chunk = last + chunk
        self._tail.append((now, chunk))
        self._tail_size += len(chunk)
        while self._tail_size - len(self._tail[0][1]) >= TAIL_BYTES:
            self._tail_size -= len(self._tail.popleft()[1])

    def _write_tail(self) -> None:
        surplus = max(0, self._tail_size - TAIL_BYTES)
        left_out = self.size - self._limit - self._tail_size + surplus
        offset = self._limit
        if left_out:
            note = b"" if self._ends_line else b"\n"
            note += b"[tickpool: %d bytes left out]\n" % left_out
            self._put(self._fd, note)
            offset += len(note)
        for when, chunk in self._tail:
            kept = chunk[surplus:]
            surplus = max(0, surplus - len(chunk))
            self._note_time(offset, when)
            self._put(self._fd, kept)
            offset += len(kept)
