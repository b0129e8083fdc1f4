"""Reading a log without locking it: its segments in order, forward from a position, and backward from the end.

The active segment is the log's own path; a rotated one is `<log>.<seq of its first line, 12 digits>`. A line counts
once its newline is there, so a reader that meets half a line leaves it for the next call.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .events import MAX_LINE, Event, decode_line, decode_lines

__all__ = ["LogReader", "Position", "Segment", "final_seq", "first_seq", "last_seq", "list_segments", "read_backward"]

_CHUNK = 1 << 20
_BLOCK = 16 * 1024


class Position(NamedTuple):
    """A place in a log: the seq of the first line of a segment, and a byte offset in that segment."""

    segment: int
    offset: int


class Segment(NamedTuple):
    """One file of a log."""

    first_seq: int
    path: Path


def list_segments(path: Path) -> list[Segment]:
    """Return the files of the log, oldest first, the active one (if it exists) last."""
    name = re.compile(re.escape(path.name) + r"\.(\d{12})")
    try:
        found = [(entry.name, name.fullmatch(entry.name)) for entry in os.scandir(path.parent)]
    except OSError:
        return []
    rotated = sorted(Segment(int(match[1]), path.with_name(file)) for file, match in found if match)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return rotated
    try:
        active = first_seq(fd)
        if rotated and os.fstat(fd).st_size == 0:
            active = final_seq(rotated[-1].path) + 1
    finally:
        os.close(fd)
    # A rotation that was cut off leaves the active segment with both names.
    return [segment for segment in rotated if segment.first_seq < active] + [Segment(active, path)]


def first_seq(fd: int) -> int:
    """Return the seq of a segment's first line, told by the first readable line; 1 when there is none."""
    offset, index = 0, 0
    while block := os.pread(fd, MAX_LINE * 2, offset):
        end = block.rfind(b"\n")
        if end < 0:
            return 1
        for line in block[:end].split(b"\n"):
            event = decode_line(line)
            seq = event.get("seq") if event else None
            if isinstance(seq, int):
                return max(1, seq - index)
            index += 1
        offset += end + 1
    return 1


def last_seq(fd: int, end: int) -> int | None:
    """Return the seq of the last line before `end`, told by the last readable one; None when there is none.

    A line that carries no seq (damaged, or written by another hand) still uses one up.
    """
    index = 0
    for line in _lines_backward(fd, end):
        event = decode_line(line)
        seq = event.get("seq") if event else None
        if isinstance(seq, int):
            return seq + index
        index += 1
    return index or None


def final_seq(path: Path) -> int:
    """Return the seq of the last line of a segment; 0 when it has none."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return last_seq(fd, os.fstat(fd).st_size) or 0
    finally:
        os.close(fd)


def _lines_backward(fd: int, end: int) -> Iterator[bytes]:
    """Yield the whole lines before `end`, last first, reading blocks from the back."""
    tail = b""
    while end > 0:
        start = max(0, end - _BLOCK)
        block = os.pread(fd, end - start, start)
        end = start
        lines = (block + tail).split(b"\n")
        tail = lines.pop(0)
        for line in reversed(lines):
            if line:
                yield line
        if len(tail) > 64 * MAX_LINE:
            tail = b"?" * MAX_LINE
    if tail:
        yield tail


def read_backward(path: Path) -> Iterator[Event | None]:
    """Yield the log's events newest first, through all segments; None for a line that is no event."""
    for segment in reversed(list_segments(path)):
        try:
            fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            size = os.fstat(fd).st_size
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            lines = _lines_backward(fd, size)
            if torn:
                next(lines, None)
            for line in lines:
                yield decode_line(line)
        finally:
            os.close(fd)


class LogReader:
    """Reads a log forward, a call at a time, following it through rotations.

    It starts at the newest segment, which a checkpoint opens, or at `position`, or with `from_start` at the oldest.
    `corrupt` counts the lines that were no event. Not safe between threads.
    """

    def __init__(self, path: Path, position: Position | None = None, *, from_start: bool = False) -> None:
        self.path = path
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
        return [event for batch in self.batches() for event in batch]

    def batches(self) -> Iterator[list[Event]]:
        """Yield the new events in batches of bounded size."""
        while True:
            if self._fd is None and not self._open_next():
                return
            yield from self._read_segment()
            if not self._is_left_behind():
                return
            # What was written between the last read and the rotation is still to be read.
            yield from self._read_segment()
            self._leave_segment()

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
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open_next(self) -> bool:
        """Open the segment of the present position; False when there is none (yet)."""
        segments = list_segments(self.path)
        if not segments:
            return False
        if self._at is None:
            chosen, offset = segments[0 if self._from_start else -1], 0
        else:
            # The segment itself, or the first one kept after it; a log that was begun anew has none: begin anew too.
            later = [segment for segment in segments if segment.first_seq >= self._at.segment]
            chosen = later[0] if later else segments[-1]
            offset = self._at.offset if chosen.first_seq == self._at.segment else 0
        try:
            self._fd = os.open(chosen.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        stat = os.fstat(self._fd)
        self._inode = stat.st_ino
        self._at = Position(chosen.first_seq, offset if offset <= stat.st_size else 0)
        return True

    def _read_segment(self) -> Iterator[list[Event]]:
        assert self._fd is not None
        assert self._at is not None
        segment, offset = self._at
        while chunk := os.pread(self._fd, _CHUNK, offset):
            end = chunk.rfind(b"\n") + 1
            if end:
                events, corrupt = decode_lines(chunk[:end])
                self.corrupt += corrupt
                offset += end
                self._at = Position(segment, offset)
                if events:
                    yield events
            elif len(chunk) < _CHUNK:
                return
            else:
                offset = self._skip_endless_line(offset)
                if offset < 0:
                    return
                self._at = Position(segment, offset)

    def _skip_endless_line(self, offset: int) -> int:
        """Return the offset after a line longer than a chunk, counting it; -1 while its newline is not there."""
        assert self._fd is not None
        place = offset
        while chunk := os.pread(self._fd, _CHUNK, place):
            end = chunk.find(b"\n")
            if end >= 0:
                self.corrupt += 1
                return place + end + 1
            place += len(chunk)
        return -1

    def _is_left_behind(self) -> bool:
        """Say whether the path no longer leads to the file being read, or that file was cut short."""
        assert self._fd is not None
        assert self._at is not None
        try:
            current = os.stat(self.path).st_ino
        except FileNotFoundError:
            return False
        if current == self._inode and os.fstat(self._fd).st_size >= self._at.offset:
            return False
        return bool(list_segments(self.path))

    def _leave_segment(self) -> None:
        assert self._at is not None
        left = self._at
        self.close()
        later = [segment for segment in list_segments(self.path) if segment.first_seq > left.segment]
        # None: the log was deleted or cut short behind our back and begins anew.
        self._at = Position(later[0].first_seq, 0) if later else None
