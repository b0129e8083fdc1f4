"""The active segment of a log, as the one process that holds the log's lock writes it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .events import Event, crc_of, encode_line, hostname, seq_of, stamp
from .failpoints import reach
from .lines import final_line, last_seq, line_start
from .lock import refuse_network_filesystem
from .log_files import LogUnwritable, begin_segment, move_tail, reason, sync_directory, write_whole
from .segments import LogUnreadable, final_seq, list_segments, rotated_path

__all__ = ["ActiveSegment"]

_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


class ActiveSegment:
    """The file that has the log's path, with its end and its last seq.

    Each time the lock was taken, call `look`, and `open` where that is False. Those may raise OSError and
    LogUnreadable, and `borrow` OSError.
    """

    def __init__(self, path: Path, *, is_durable: bool, is_sure: bool = False) -> None:
        self.path = path
        self._name = str(path)
        self._is_durable = is_durable
        self._is_sure = is_sure
        self._host = hostname()
        self._pid = os.getpid()
        self._fd = -1
        self._inode = self._device = 0
        # As of this process's last write or look: while the end is the same, nobody else has written.
        self.end = -1
        self.seq = 0

    def look(self) -> bool:
        """See whether the open file still has the path, and what others have written there; False when it has not.

        Before the first `open` there is nothing to see.
        """
        found = self._found()
        if found is None:
            return False
        if found.st_size != self.end:
            self._catch_up(found.st_size)
        return True

    def open(self) -> None:
        """Open the file that has the path, created if absent."""
        refuse_network_filesystem(self.path)
        is_new = not self.path.exists()
        # Not blocking: the open of a FIFO would wait.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        self._fd = os.open(self._name, flags, 0o644)
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise OSError("not a regular file")
        self._inode, self._device = found.st_ino, found.st_dev
        try:
            if self._is_sure or (is_new and self._is_durable):
                self._sync_names()
            self._catch_up(found.st_size)
        except BaseException:
            self.close()  # the next call begins anew, and flushes the names
            raise

    def write(self, events: Iterable[Mapping[str, Any]]) -> tuple[list[Event], int]:
        """Write the events, all or none; return them as recorded, and their bytes.

        Raises LogUnwritable, InvalidEvent.
        """
        recorded, data = self._encode(events)
        if data:
            reach("inside_write", _write_half, self._fd, data)
            try:
                write_whole(self._fd, data, self.end)
            except OSError as error:
                raise LogUnwritable(self._name, reason(error)) from None
            self.end += len(data)
            self.seq += len(recorded)
            reach("after_write")
        return recorded, len(data)

    def rotate(self, opening: Iterable[Mapping[str, Any]]) -> bool:
        """Begin a new segment with the events of `opening`; False when this one has no line yet.

        Raises LogUnwritable, InvalidEvent.
        """
        _, data = self._encode(opening)
        try:
            first = list_segments(self.path)[-1].first_seq
            if first > self.seq:
                return False
            os.fdatasync(self._fd)
            begin_segment(self.path, data, rotated_path(self.path, first))
        except (OSError, LogUnreadable) as error:
            raise LogUnwritable(self._name, reason(error)) from None
        self.close()
        return True

    def borrow(self) -> int | None:
        """Return a descriptor of the file, to be closed by the caller; None when there is no file."""
        if self._found():
            # The one that was written with: the kernel tells each open file once of a write that failed.
            return os.dup(self._fd)
        try:
            # Not blocking: the open of a FIFO would wait.
            fd = os.open(self._name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return fd
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            with suppress(OSError):
                os.close(self._fd)
        self._fd = -1
        self.end = -1

    def _found(self) -> os.stat_result | None:
        """Return what the open file is like; None, and it is closed, when the path leads elsewhere or nowhere."""
        if self._fd >= 0:
            try:
                found = os.stat(self._name)
            except FileNotFoundError:
                pass
            else:
                if found.st_ino == self._inode and found.st_dev == self._device:
                    return found
        self.close()
        return None

    def _sync_names(self) -> None:
        """Flush the log's name, and its directory's: whoever made them may have died before it did."""
        sync_directory(self.path.parent)
        with suppress(PermissionError):
            sync_directory(self.path.parent.parent)

    def _catch_up(self, end: int) -> None:
        """Learn the last seq before `end`, after moving a torn tail aside.

        A torn tail was never acknowledged; left in place, it would swallow the next line.
        """
        line = final_line(self._fd, end) if end else b""
        if line is None:
            self._mend(self._fd, end)
        else:
            seq = seq_of(line)
            self.seq = self._seq_before(self._fd, end) if seq is None else seq
            self.end = end

    def _mend(self, fd: int, end: int) -> None:
        start = line_start(fd, end)
        move_tail(fd, start, end, Path(self._name + ".torn"))
        self.seq, self.end = self._seq_before(fd, start), start
        self.write([{"event": "log_repaired", "offset": start, "bytes": end - start}])

    def _seq_before(self, fd: int, end: int) -> int:
        seq, after = last_seq(fd, end)
        if seq is None:
            # A fresh log; or the active file was removed or damaged while its rotated segments stayed.
            rotated = [segment for segment in list_segments(self.path) if segment.path != self.path]
            seq = final_seq(rotated[-1]) if rotated else 0
        return seq + after

    def _encode(self, events: Iterable[Mapping[str, Any]]) -> tuple[list[Event], bytes]:
        recorded: list[Event] = []
        lines: list[bytes] = []
        for seq, given in enumerate(events, self.seq + 1):
            event = stamp(given, seq, self._host, self._pid)
            line = encode_line(event)
            event["crc"] = crc_of(line)
            recorded.append(event)
            lines.append(line)
        return recorded, b"".join(lines)


def _write_half(fd: int, data: bytes) -> None:
    os.write(fd, data[: len(data) // 2])
