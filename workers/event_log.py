"""The event log: one append-only JSONL file that many processes write under one lock.

Order under the lock: mend a torn tail -> read what others appended -> let the caller decide -> one write -> check
its byte count. `transact` is the only compare-and-set; `append`, `append_if` and `rotate` are that same walk.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from .errors import TickpoolError
from .events import Event, encode_line, hostname, stamp
from .lock import Lock, refuse_network_filesystem
from .segments import LogReader, Position, Segment, final_seq, last_seq, list_segments

__all__ = ["EventLog", "Fsync", "LogUnwritable", "Position"]

Fsync = Literal["off", "interval", "always"]
Decide = Callable[[list[Event]], Sequence[Mapping[str, Any]]]
T = TypeVar("T")
_SYNC_EVERY_S = 1.0


class LogUnwritable(TickpoolError):
    """The log cannot be written: (path, the reason). Nothing of the refused events is in the log."""

    def __str__(self) -> str:
        return f"{self.args[0]}: cannot be written: {self.args[1]}"


class EventLog:
    """One log for one process; safe between threads and processes, and usable in a forked child.

    `fsync`: `off` leaves flushing to the kernel, `interval` flushes at most once a second (call `sync` when idle),
    `always` flushes before an append returns; appends that wait together share one flush.
    """

    def __init__(self, path: str | os.PathLike[str], *, fsync: Fsync = "interval", lock_timeout_s: float = 10.0) -> None:
        self.path = Path(path)
        self._path = str(path)
        self.fsync = fsync
        self.lock_timeout_s = lock_timeout_s
        self._lock = Lock(self.path.with_name(self.path.name + ".lock"))
        self._mutex = threading.Lock()
        self._sync_mutex = threading.Lock()
        self._host = hostname()
        self._fd: int | None = None
        self._inode = 0
        self._owner = os.getpid()
        self._known_end = -1
        self._known_seq = 0
        self._synced_end = 0
        self._synced_at = time.monotonic()

    def append(self, *events: Mapping[str, Any]) -> list[Event]:
        """Append events, all in one write; return them as recorded.

        Raises LogUnwritable (nothing was recorded), LockTimeout, InvalidEvent.
        """
        return self.transact(lambda _: events)

    def append_if(
        self, condition: Callable[[list[Event]], bool], events: Sequence[Mapping[str, Any]], reader: LogReader
    ) -> list[Event]:
        """Append `events` if `condition(what reader had not read yet)` holds under the lock; return what was recorded."""
        return self.transact(lambda new: events if condition(new) else (), reader)

    def transact(self, decide: Decide, reader: LogReader | None = None) -> list[Event]:
        """Append what `decide(events reader had not read yet)` returns, with nothing in between; return it as recorded.

        Afterwards `reader` stands behind the new events. Raises as `append`; what `decide` raises passes through.
        """
        written = 0

        def act(fd: int, end: int, repair: list[Event]) -> tuple[list[Event], int]:
            nonlocal written
            chosen = decide(reader.read() if reader else [])
            recorded, written = self._write(fd, end, [*repair, *chosen])
            if reader:
                reader.advance(written)
            return recorded[len(repair) :], end + written

        recorded, end = self._under_lock(act)
        if written:
            self._sync_after_write(end)
        return recorded

    def rotate(self, min_bytes: int, checkpoint: Decide, reader: LogReader | None = None) -> bool:
        """Begin a new segment, opened by what `checkpoint(new events)` returns, once the active one has `min_bytes`.

        The active path always exists: the old segment first gets its second name, then the new file takes the path.
        """
        if not self.path.exists() or os.stat(self.path).st_size < min_bytes:
            return False

        def act(fd: int, end: int, repair: list[Event]) -> bool:
            if end < min_bytes:
                return False
            opening = [{"event": "segment_started"}, *repair, *checkpoint(reader.read() if reader else [])]
            first = self._last_seq(fd, end) + 1
            data = b"".join(encode_line(stamp(event, first + n, self._host)) for n, event in enumerate(opening))
            old = next(segment for segment in reversed(list_segments(self.path)) if segment.path == self.path)
            os.fdatasync(fd)
            self._begin_segment(data, old)
            self._forget()
            return True

        return self._under_lock(act)

    def prune(self, keep_segments: int, keep_s: float, now_s: float) -> list[Path]:
        """Remove rotated segments beyond the newest `keep_segments`, and those last written over `keep_s` ago."""
        rotated = [segment for segment in list_segments(self.path) if segment.path != self.path]
        removed = []
        for age, segment in enumerate(reversed(rotated), start=1):
            with suppress(OSError):
                if age > keep_segments or now_s - os.stat(segment.path).st_mtime > keep_s:
                    os.unlink(segment.path)
                    removed.append(segment.path)
        return removed

    def sync(self) -> None:
        """Flush what the active segment holds to the disk, if anything came since the last flush (by anybody).

        Raises OSError when the disk refuses.
        """
        with self._sync_mutex:
            with self._mutex:
                # A descriptor of its own: another thread may append, or leave this segment, during the flush.
                fd = os.dup(self._opened())
            try:
                end = os.fstat(fd).st_size
                if end != self._synced_end:
                    os.fdatasync(fd)
                    self._synced_end = end
            finally:
                os.close(fd)
            self._synced_at = time.monotonic()

    def close(self) -> None:
        """Close the descriptors; the next call opens them again."""
        with self._mutex:
            self._forget()
            self._lock.close()

    def _under_lock(self, act: Callable[[int, int, list[Event]], T]) -> T:
        """Return `act(descriptor, where the next line begins, the event of a repair)`, done under both locks."""
        if self._owner != os.getpid():
            self._after_fork()
        with self._mutex:
            try:
                self._acquire()
                try:
                    fd = self._opened()
                    return act(fd, *self._mended_end(fd))
                finally:
                    self._lock.release()
            except OSError as error:
                raise LogUnwritable(str(self.path), error.strerror or str(error)) from None

    def _acquire(self) -> None:
        try:
            self._lock.acquire(self.lock_timeout_s)
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(self.lock_timeout_s)

    def _after_fork(self) -> None:
        """Drop what the parent shares with this child: a mutex perhaps held by a thread that is not here."""
        self._owner = os.getpid()
        self._mutex = threading.Lock()
        self._sync_mutex = threading.Lock()
        self._forget()

    def _opened(self) -> int:
        """Return a descriptor of the file that now has the path; it is created if absent."""
        if self._fd is not None:
            try:
                if os.stat(self._path).st_ino == self._inode:
                    return self._fd
            except FileNotFoundError:
                pass
            self._forget()
        else:
            refuse_network_filesystem(self.path)
        created = not self.path.exists()
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._inode = os.fstat(self._fd).st_ino
        if created and self.fsync != "off":
            _sync_directory(self.path.parent)
        return self._fd

    def _forget(self) -> None:
        if self._fd is not None:
            with suppress(OSError):
                os.close(self._fd)
        self._fd = None
        self._known_end = -1
        self._synced_end = 0

    def _mended_end(self, fd: int) -> tuple[int, list[Event]]:
        """Return where the next line begins, after moving a torn tail aside, and the event that says so.

        A torn tail was never acknowledged; left in place, it would swallow the next line.
        """
        end = os.fstat(fd).st_size
        if end == 0 or end == self._known_end or os.pread(fd, 1, end - 1) == b"\n":
            return end, []
        start = _line_start(fd, end)
        _save_torn(self.path.with_name(self.path.name + ".torn"), fd, start, end)
        os.ftruncate(fd, start)
        return start, [{"event": "log_repaired", "offset": start, "bytes": end - start}]

    def _write(self, fd: int, end: int, events: Sequence[Mapping[str, Any]]) -> tuple[list[Event], int]:
        """Write the events behind `end`; return them as recorded, and their bytes."""
        if not events:
            return [], 0
        seq = self._last_seq(fd, end)
        recorded = [stamp(event, seq + n, self._host) for n, event in enumerate(events, start=1)]
        data = b"".join(map(encode_line, recorded))
        self._known_end = -1
        try:
            written = os.write(fd, data)
            if written != len(data):
                # A full disk takes a part without an error; the next write would have failed (POSIX write(2)).
                raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes could be written")
        except OSError:
            os.ftruncate(fd, end)
            raise
        self._known_end = end + len(data)
        self._known_seq = seq + len(events)
        return recorded, len(data)

    def _last_seq(self, fd: int, end: int) -> int:
        if end == self._known_end:
            return self._known_seq
        seq = last_seq(fd, end)
        if seq is None:
            # An empty active file: a fresh log, or one that was removed while its rotated segments stayed.
            seq = next((final_seq(s.path) for s in reversed(list_segments(self.path)) if s.path != self.path), 0)
        return seq

    def _begin_segment(self, data: bytes, old: Segment) -> None:
        """Write the new segment beside the log, name the old one, and let the new one take the path."""
        fresh = self.path.with_name(self.path.name + ".next")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            if os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(fd)
        finally:
            os.close(fd)
        rotated = self.path.with_name(f"{self.path.name}.{old.first_seq:012d}")
        # The name is there already when a rotation was cut off between these two calls.
        with suppress(FileExistsError):
            os.link(self.path, rotated)
        os.rename(fresh, self.path)
        _sync_directory(self.path.parent)

    def _sync_after_write(self, end: int) -> None:
        """Flush as `fsync` says, outside the lock, so that writers that wait share one flush of the disk."""
        if self.fsync == "off":
            return
        if self.fsync == "interval" and time.monotonic() - self._synced_at < _SYNC_EVERY_S:
            return
        try:
            with self._sync_mutex:
                covered = self._synced_end >= end
            if not covered:
                self.sync()
        except OSError as error:
            raise LogUnwritable(str(self.path), f"flushing: {error.strerror}") from None


def _line_start(fd: int, end: int) -> int:
    """Return the offset behind the last newline before `end`."""
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _save_torn(path: Path, fd: int, start: int, end: int) -> None:
    """Append the bytes of a torn tail, and a newline, to the file of torn tails."""
    out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while start < end:
            chunk = os.pread(fd, min(1 << 20, end - start), start)
            os.write(out, chunk)
            start += len(chunk)
        os.write(out, b"\n")
    finally:
        os.close(out)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
