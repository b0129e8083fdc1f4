"""The event log: one append-only JSONL file that many processes write under one lock.

Order under the lock: mend a torn tail -> read what others appended -> let the caller decide -> one write -> check
its byte count. `transact` is the only compare-and-set; `append`, `append_if` and `rotate` are that same walk.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from .active_segment import ActiveSegment
from .events import Event
from .failpoints import reach
from .flush import Flush
from .lock import Lock, LockTimeout
from .log_files import LogNotFlushed, LogUnwritable, make_directory, reason
from .segments import LogReader, LogUnreadable, Position, list_segments

__all__ = ["EventLog", "Fsync", "LogNotFlushed", "LogUnwritable", "Position"]

logger = logging.getLogger(__name__)
Fsync = Literal["off", "interval", "always"]
Decide = Callable[[list[Event]], Sequence[Mapping[str, Any]]]


class EventLog:
    """One log for one process; safe between threads and processes, and usable in a forked child.

    A relative path is resolved once, here. `fsync`: `off` leaves flushing to the kernel; `interval` flushes with the
    first append after a second without a flush (call `sync` when idle), and only logs what the disk refuses; `always`
    flushes before an append returns, and appends that wait together share one flush.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, fsync: Fsync = "interval", lock_timeout_s: float = 10.0
    ) -> None:
        self.path = Path(os.path.realpath(path))
        self.fsync = fsync
        self.lock_timeout_s = lock_timeout_s
        self._lock = Lock(Path(f"{self.path}.lock"))
        self._active = self._new_active()
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        self._flush = Flush(self._borrow)

    def append(self, *events: Mapping[str, Any]) -> list[Event]:
        """Append events, all in one write; return them as recorded.

        Raises LogUnwritable (nothing was recorded) or LogNotFlushed (all was), LockTimeout, InvalidEvent.
        """
        return self.transact(lambda _new: events)

    def append_if(
        self, condition: Callable[[list[Event]], bool], events: Sequence[Mapping[str, Any]], reader: LogReader
    ) -> list[Event]:
        """Append `events` if `condition(what reader had not read)` holds under the lock; return what was recorded."""
        return self.transact(lambda new: events if condition(new) else (), reader)

    def transact(self, decide: Decide, reader: LogReader | None = None) -> list[Event]:
        """Append what `decide(events reader had not read yet)` returns, with nothing in between; return it as recorded.

        Afterwards `reader` stands behind the new events. Raises as `append`; what `decide` raises passes through.
        """
        self._enter()
        try:
            recorded, written = self._active.write(decide(self._read_new(reader) if reader else []))
            self._flush.writes += 1
            write = self._flush.writes
        finally:
            self._leave()
        if written:
            if self.fsync != "off":
                self._flush_after(write)
            if reader:
                # Not before the flush: events the caller gets an error for are still news to the reader.
                reader.advance(written)
        return recorded

    def rotate(self, min_bytes: int, checkpoint: Decide, reader: LogReader | None = None) -> bool:
        """Begin a new segment, opened by what `checkpoint(new events)` returns, once the active one has `min_bytes`.

        The active path always exists: the old segment first gets its second name, then the new file takes the path.
        Raises as `append`.
        """
        try:
            if os.stat(self.path).st_size < min_bytes:
                return False
        except FileNotFoundError:
            return False
        except OSError as error:
            raise LogUnwritable(str(self.path), reason(error)) from None
        self._enter()
        try:
            if self._active.end < min_bytes:
                return False
            opening = checkpoint(self._read_new(reader) if reader else [])
            return self._active.rotate([{"event": "segment_started"}, *opening])
        finally:
            self._leave()

    def prune(self, keep_segments: int, keep_s: float, now_s: float) -> list[Path]:
        """Remove the oldest rotated segments: those beyond `keep_segments`, and those last written over `keep_s` ago.

        A segment that stays keeps all that are younger: a log has no holes. Raises LogUnwritable.
        """
        removed: list[Path] = []
        try:
            rotated = [segment.path for segment in list_segments(self.path) if segment.path != self.path]
            for place, path in enumerate(rotated):
                is_among_newest = len(rotated) - place <= keep_segments
                if is_among_newest and now_s - os.stat(path).st_mtime <= keep_s:
                    break
                os.unlink(path)
                removed.append(path)
        except FileNotFoundError:
            pass  # another process prunes at this moment
        except (OSError, LogUnreadable) as error:
            raise LogUnwritable(str(self.path), reason(error)) from None
        return removed

    def sync(self) -> None:
        """Flush the active segment to the disk, if anything came since the last flush, by anybody.

        Raises LogNotFlushed when the disk refuses.
        """
        if os.getpid() != self._pid:
            self._begin_in_child()
        try:
            self._flush.run()
        except OSError as error:
            raise LogNotFlushed(str(self.path), reason(error)) from None

    def close(self) -> None:
        """Close the descriptors; the next call opens them again."""
        if os.getpid() != self._pid:
            self._begin_in_child()
        with self._mutex:
            self._active.close()
            self._lock.close()

    def _enter(self) -> None:
        """Take both locks and look at the end of the file; nothing is held when this raises."""
        if os.getpid() != self._pid:
            self._begin_in_child()
        # With a deadline: a signal handler may append in the midst of an append.
        if not self._mutex.acquire(False) and not self._mutex.acquire(timeout=self.lock_timeout_s):
            raise LockTimeout(str(self._lock.path), self.lock_timeout_s, self._pid)
        try:
            reach("before_lock")
            self._take_lock()
            if not self._active.look():
                # The path leads to another file now. Has the lock's path gone with it?
                self._lock.close()
                self._take_lock()
                self._active.open()
        except BaseException as error:
            self._leave()
            if isinstance(error, OSError | LogUnreadable):
                raise LogUnwritable(str(self.path), reason(error)) from None
            raise

    def _leave(self) -> None:
        try:
            self._lock.release()
        finally:
            self._mutex.release()

    def _take_lock(self) -> None:
        try:
            self._lock.acquire(self.lock_timeout_s)
        except FileNotFoundError:
            make_directory(self.path.parent)
            self._lock.acquire(self.lock_timeout_s)

    def _begin_in_child(self) -> None:
        """In a forked child, drop what is the parent's: a mutex perhaps held by a thread that is not here."""
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        self._flush = Flush(self._borrow)
        self._active.close()
        self._active = self._new_active()

    def _new_active(self) -> ActiveSegment:
        return ActiveSegment(self.path, is_durable=self.fsync != "off", is_sure=self.fsync == "always")

    def _read_new(self, reader: LogReader) -> list[Event]:
        try:
            return reader.read()
        except LogUnreadable as error:
            raise LogUnwritable(str(self.path), reason(error)) from None

    def _flush_after(self, write: int) -> None:
        """Flush the write of that number as `fsync` says; outside the lock, so that others write meanwhile."""
        if self.fsync == "always":
            try:
                self._flush.cover(write)
            except OSError as error:
                raise LogNotFlushed(str(self.path), reason(error)) from None
        elif self.fsync == "interval" and self._flush.is_due():
            try:
                self._flush.run()
            except OSError as error:
                logger.error("%s", LogNotFlushed(str(self.path), reason(error)))  # noqa: TRY400

    def _borrow(self) -> int | None:
        with self._mutex:
            return self._active.borrow()
