"""Reading a log without locking it: its segments in order, forward from a position, and backward from the end.

The active segment is the log's own path; a rotated one is `<log>.<seq of its first line, 12 digits>`. A line counts
once its newline is there, so a reader that meets half a line leaves it for the next call.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .errors import TickpoolError
from .events import Event, decode_line, decode_lines
from .lines import LONGEST, first_seq, last_seq, line_start, lines_backward

__all__ = [
    "Chunk",
    "LogReader",
    "LogUnreadable",
    "Position",
    "Segment",
    "final_seq",
    "list_segments",
    "open_segment",
    "read_backward",
    "rotated_path",
]

# Read at a time. The events of so many lines stay in the processor's cache until they are folded: with a mebibyte a
# fold takes a third longer.
_CHUNK = 128 * 1024


class LogUnreadable(TickpoolError):
    """A log that is there and cannot be read: (path, the reason)."""

    def __str__(self) -> str:
        return f"{self.args[0]}: cannot be read: {self.args[1]}"


class Position(NamedTuple):
    """A place in a log: the seq of the first line of a segment, and a byte offset in that segment."""

    segment: int
    offset: int


class Segment(NamedTuple):
    """One file of a log, known by its inode: the active one gets a second name when it is rotated."""

    first_seq: int
    path: Path
    inode: int


def rotated_path(path: Path, first_seq: int) -> Path:
    """Return the name a segment has once it is rotated."""
    return path.with_name(f"{path.name}.{first_seq:012d}")


def list_segments(path: Path) -> list[Segment]:
    """Return the files of the log, oldest first, the active one (if it exists) last. Raises LogUnreadable."""
    try:
        return _list_segments(path)
    except OSError as error:
        raise LogUnreadable(str(path), error.strerror) from None


def _list_segments(path: Path) -> list[Segment]:
    while True:
        fd = open_segment(path)
        if fd is None:
            return _list_rotated(path)
        try:
            rotated = _list_rotated(path)
            inode = os.fstat(fd).st_ino
            if not _leads_to(path, inode):
                continue  # rotated in this very moment
            # A rotation that was cut off leaves the active segment with both names.
            rotated = [segment for segment in rotated if segment.inode != inode]
            first = first_seq(fd)
            if first is None:
                first = final_seq(rotated[-1]) + 1 if rotated else 1
        finally:
            os.close(fd)
        return [segment for segment in rotated if segment.first_seq < first] + [Segment(first, path, inode)]


def final_seq(segment: Segment) -> int:
    """Return the seq of the last line of a segment; of an empty one, the seq before its first."""
    fd = open_segment(segment.path)
    if fd is None:
        return segment.first_seq - 1
    try:
        seq, after = last_seq(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)
    return (segment.first_seq - 1 if seq is None else seq) + after


def read_backward(path: Path, *, wanted: Callable[[bytes], object] = lambda _: True) -> Iterator[Event | None]:
    """Yield the log's events newest first, through all segments; None for a line that is no event.

    Of lines that are not `wanted` nothing is told: looking at the bytes of a line takes a fifth of reading it.
    Raises LogUnreadable.
    """
    inode, first = 0, None
    try:
        fd = open_segment(path)
        if fd is not None:
            try:
                yield from _events_backward(fd, wanted)
                inode, first = os.fstat(fd).st_ino, first_seq(fd)
            finally:
                os.close(fd)
        # Listed after the active one was opened: no rotation can come between the two and hide a segment.
        for segment in reversed(_list_rotated(path)):
            if segment.inode == inode or (first is not None and segment.first_seq >= first):
                continue
            fd = open_segment(segment.path)
            if fd is not None:
                try:
                    yield from _events_backward(fd, wanted)
                finally:
                    os.close(fd)
    except OSError as error:
        raise LogUnreadable(str(path), error.strerror) from None


def _events_backward(fd: int, wanted: Callable[[bytes], object]) -> Iterator[Event | None]:
    end = os.fstat(fd).st_size
    if end and os.pread(fd, 1, end - 1) != b"\n":
        end = line_start(fd, end)
    yield from map(decode_line, filter(wanted, lines_backward(fd, end)))


def _list_rotated(path: Path) -> list[Segment]:
    name = re.compile(re.escape(path.name) + r"\.(\d{12,})")
    try:
        with os.scandir(path.parent) as entries:
            found = [(name.fullmatch(entry.name), entry.inode()) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise LogUnreadable(str(path.parent), error.strerror) from None
    return sorted(Segment(int(match[1]), path.with_name(match[0]), inode) for match, inode in found if match)


def open_segment(path: Path) -> int | None:
    """Open a file of the log for reading; None when there is none. Raises LogUnreadable, OSError."""
    try:
        # Not blocking: the open of a FIFO would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise LogUnreadable(str(path), error.strerror) from None
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    raise LogUnreadable(str(path), "not a regular file")


def _leads_to(path: Path, inode: int) -> bool:
    try:
        return os.stat(path).st_ino == inode
    except FileNotFoundError:
        return False


class Chunk(NamedTuple):
    """Whole lines of a segment, and where the first of them begins."""

    at: Position
    lines: bytes


class LogReader:
    """Reads a log forward, a call at a time, following it through rotations.

    It starts at the newest segment, which a checkpoint opens, or at `position`, or with `from_start` at the oldest.
    `corrupt` counts the lines that were no event. Not safe between threads. Its reads raise LogUnreadable.
    """

    def __init__(
        self, path: str | os.PathLike[str], position: Position | None = None, *, from_start: bool = False
    ) -> None:
        self.path = Path(os.path.realpath(path))
        self.corrupt = 0
        self._fd: int | None = None
        self._inode = 0
        self._at = position
        self._from_start = from_start

    @property
    def position(self) -> Position:
        """Where the next read begins."""
        return self._at or Position(1, 0)

    def read(self) -> list[Event]:
        """Return the events that came since the last call, in order; an absent file has none."""
        start = self._at
        try:
            return [event for batch in self.batches() for event in batch]
        except LogUnreadable:
            self.seek(start)
            raise

    def batches(self) -> Iterator[list[Event]]:
        """Yield the new events in batches of bounded size."""
        for chunk in self.chunks():
            events, corrupt = decode_lines(chunk.lines)
            self.corrupt += corrupt
            if events:
                yield events

    def chunks(self) -> Iterator[Chunk]:
        """Yield the new lines, whole ones, in chunks of bounded size, undecoded and with their places."""
        try:
            while self._fd is not None or self._open_next():
                if not self._is_in_place():
                    self._begin_anew()
                    continue
                yield from self._read_segment()
                if not self._is_left_behind():
                    return
                # What was written between the last read and the rotation is still to be read.
                yield from self._read_segment()
                self._leave_segment()
        except OSError as error:
            # It may be another segment's already than the position is in.
            self.close()
            raise LogUnreadable(str(self.path), error.strerror) from None

    def seek(self, position: Position | None) -> None:
        """Go on from `position`; None is the beginning of the newest segment."""
        if self._at is None or position is None or position.segment != self._at.segment:
            self.close()
        self._at = position

    def advance(self, written: int) -> None:
        """Step over `written` bytes that the caller appended right behind the present position."""
        if self._at is not None:
            self._at = Position(self._at.segment, self._at.offset + written)

    def close(self) -> None:
        """Close the file; the next read opens it again where it left off."""
        fd, self._fd = self._fd, None
        if fd is not None:
            # Whatever it says, the descriptor is gone (close(2)), and nothing was written by it.
            with suppress(OSError):
                os.close(fd)

    def _open_next(self) -> bool:
        """Open the segment of the present position; False when there is none (yet)."""
        while segments := list_segments(self.path):
            if self._at is None:
                chosen, offset = segments[0 if self._from_start else -1], 0
            else:
                # The segment itself, or the first one kept after it; a log that was begun anew has none.
                later = [segment for segment in segments if segment.first_seq >= self._at.segment]
                chosen = later[0] if later else segments[-1]
                offset = self._at.offset if chosen.first_seq == self._at.segment else 0
            fd = open_segment(chosen.path)
            if fd is None:
                continue  # pruned since it was listed
            self._fd = fd
            self._inode = os.fstat(fd).st_ino
            if chosen.path == self.path and self._inode != chosen.inode:
                self.close()
                continue  # rotated since it was listed
            self._at = Position(chosen.first_seq, offset)
            return True
        return False

    def _read_segment(self) -> Iterator[Chunk]:
        assert self._fd is not None
        assert self._at is not None
        segment, offset = self._at
        size = _CHUNK
        while chunk := os.pread(self._fd, size, offset):
            end = chunk.rfind(b"\n") + 1
            if end:
                place = Position(segment, offset)
                offset, size = offset + end, _CHUNK
                self._at = Position(segment, offset)
                yield Chunk(place, chunk[:end])
            elif len(chunk) < size:
                return
            elif size < LONGEST:
                size = LONGEST
            else:
                offset = self._skip_endless_line(offset)
                if offset < 0:
                    return
                self._at = Position(segment, offset)

    def _skip_endless_line(self, offset: int) -> int:
        """Return the offset after a line longer than a chunk, counting it; -1 while its newline is not there."""
        assert self._fd is not None
        place = offset
        while chunk := os.pread(self._fd, LONGEST, place):
            end = chunk.find(b"\n")
            if end >= 0:
                self.corrupt += 1
                return place + end + 1
            place += len(chunk)
        return -1

    def _is_in_place(self) -> bool:
        """Say whether a line begins at the position: not so in a file that was cut short and written anew."""
        assert self._fd is not None
        assert self._at is not None
        return self._at.offset == 0 or os.pread(self._fd, 1, self._at.offset - 1) == b"\n"

    def _is_left_behind(self) -> bool:
        """Say whether the path leads to another file than the one being read."""
        try:
            return os.stat(self.path).st_ino != self._inode
        except FileNotFoundError:
            return False

    def _leave_segment(self) -> None:
        """Go on to the next segment; to the newest when there is none, for then the log was begun anew."""
        assert self._at is not None
        left = self._at.segment
        self.close()
        segments = list_segments(self.path)
        later = [segment for segment in segments if segment.first_seq > left] or segments[-1:]
        self._at = Position(later[0].first_seq if later else left, 0)

    def _begin_anew(self) -> None:
        self.close()
        segments = list_segments(self.path)
        self._at = Position(segments[-1].first_seq, 0) if segments else None
