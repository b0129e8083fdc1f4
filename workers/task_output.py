"""What the tasks of a run have said: their logs as lines, in the order in which they came."""

from __future__ import annotations

import errno
import heapq
import io
import os
import re
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from .segments import LogUnreadable

__all__ = ["Line", "RunOutput", "attempts_of"]

_LOG = re.compile(r"(?P<log>(?P<task>.+)\.(?P<attempt>[0-9]+)\.log)(\.gz)?")
_CHUNK = 1024 * 1024
# Of all logs together, where a piece of each is held at once; and of each log at least.
_PIECES = 16 * _CHUNK
_LEAST = 16 * 1024
_LEAST_NEWEST = 64 * 1024
# A line is cut where it is longer than so many pieces.
_LONGEST_PIECES = 4
_PACKED = 16 * 1024
# The checksum behind what is packed (RFC 1952, 2.3.1): what a damaged log still holds is shown.
_TRAILER = 8
# More than any log holds: what unpacks to more was not packed from one.
_MOST_UNPACKED = 1 << 30
# The year 10000: no time of day begins there.
_LAST_S = 253_402_300_800


class Line(NamedTuple):
    """One line of a task's log, without its line break; `time_s` is when it came, seconds since the epoch."""

    time_s: float
    task_id: str
    task_attempt: int
    text: str


def attempts_of(run_dir: Path) -> list[int]:
    """Return the attempts of a run that have left a directory, ascending. Raises LogUnreadable."""
    names = _names(run_dir)
    return sorted(int(name) for name in names if name.isascii() and name.isdecimal())


class RunOutput:
    """The logs of one attempt of a run; read them again while they grow. Of one `task` only, where one is named.

    A log that was compressed (`.log.gz`) is read like one that was not. A link is not followed: whoever reads may see
    more than the tasks may. A line of more than 4 MiB comes in parts of that length; in `lines`, of which many logs
    share 64 MiB, in shorter ones. No file stays open between two lines, however many logs there are. All that reads
    raises LogUnreadable where this process, or the system, has as many files open as it may.
    """

    def __init__(self, directory: Path, task: str | None = None) -> None:
        self._directory = directory
        self._task = task
        self._logs: dict[str, _Log] = {}

    @property
    def tasks(self) -> list[str]:
        """The tasks of which there is output so far, in order of name."""
        return sorted({log.task_id for log in self._logs.values()})

    def read(self, *, is_over: bool = False) -> list[Line]:
        """Return the lines that are new since the last call, in order of time.

        A line that has no end yet comes with the call that finds its end, or when it `is_over`.
        """
        self._find()
        found = [line for log in self._logs.values() for line in log.read(_CHUNK, is_over=is_over)]
        return sorted(found, key=_when)

    def newest(self, most: int, size: int, *, is_over: bool = False) -> tuple[int, list[Line]]:
        """Return how many lines `read` would return, and the last of them, `most` at most.

        The logs share about `size` bytes, each has at least 64 KiB; what is before that in a log is only counted, and
        lines of other logs that may come before what was counted are left out.
        """
        self._find()
        share = max(_LEAST_NEWEST, size // max(1, len(self._logs)))
        count, since_s, newest = 0, 0.0, list[Line]()
        for log in self._logs.values():
            before, passed_over = log.count, log.passed_over
            lines = log.read(min(_CHUNK, share), share, is_over=is_over)
            first = list(islice(lines, 1))
            if first and log.passed_over > passed_over:
                since_s = max(since_s, first[0].time_s)
            newest = sorted([*newest, *deque(chain(first, lines), most)], key=_when)[-most:]
            count += log.count - before
        return count, [line for line in newest if line.time_s >= since_s]

    def lines(self, *, is_over: bool = False) -> Iterator[Line]:
        """Yield what `read` returns, and keep no more of it than a few pieces of each log, 16 MiB in all."""
        self._find()
        piece = max(_LEAST, min(_CHUNK, _PIECES // max(1, len(self._logs))))
        return heapq.merge(*(log.read(piece, is_over=is_over) for log in self._logs.values()), key=_when)

    def _find(self) -> None:
        for name in sorted(_names(self._directory)):
            match = _LOG.fullmatch(name)
            if match and match["log"] not in self._logs and self._task in (None, match["task"]):
                log = _Log(self._directory / match["log"], match["task"], int(match["attempt"]))
                self._logs[match["log"]] = log


def _when(line: Line) -> float:
    return line.time_s


class _Log:
    """One log, read from where the last call has come to."""

    def __init__(self, path: Path, task_id: str, attempt: int) -> None:
        self.task_id = task_id
        self.count = self.passed_over = 0
        self._attempt = attempt
        self._source = _Source(path)
        self._times = _Times(Path(f"{path}.times"))
        self._at = 0
        self._rest = b""

    def read(self, size: int, newest: int | None = None, *, is_over: bool) -> Iterator[Line]:
        """Yield the new lines, read in pieces of so many bytes; those before the `newest` bytes are counted only."""
        pieces = self._source.pieces(size)
        for piece in pieces if newest is None else self._newest(pieces, newest):
            begin = self._at - len(self._rest)
            self._at += len(piece)
            # The log first: the time of a chunk is written before it.
            self._times.look_again()
            # Line by line: a list of them takes many times what they take as a piece.
            text, self._rest = io.BytesIO(self._rest + piece), b""
            for line in text:
                if line[-1:] != b"\n":
                    self._rest = line
                    break
                yield self._line(begin, line[:-1])
                begin += len(line)
            if len(self._rest) >= _LONGEST_PIECES * size:
                yield self._line(begin, self._rest)
                self._rest = b""
        if is_over and self._rest:
            rest, self._rest = self._rest, b""
            yield self._line(self._at - len(rest), rest)

    def _newest(self, pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
        """Yield the last pieces, from the beginning of a line on; count the lines of those before."""
        kept, size, is_cut = deque[bytes](), 0, False
        for piece in pieces:
            kept.append(piece)
            size += len(piece)
            while size - len(kept[0]) >= most:
                first = kept.popleft()
                size -= len(first)
                self._pass_over(first.count(b"\n"))
                self._at, self._rest, is_cut = self._at + len(first), b"", not first.endswith(b"\n")
        for piece in kept:
            if is_cut:
                end = piece.find(b"\n") + 1
                self._pass_over(int(end > 0))
                self._at += end or len(piece)
                piece, is_cut = piece[end:] if end else b"", end == 0
            yield piece

    def _pass_over(self, count: int) -> None:
        self.passed_over += count
        self.count += count

    def _line(self, begin: int, line: bytes) -> Line:
        self.count += 1
        return Line(self._times.at_s(begin), self.task_id, self._attempt, line.decode("utf-8", "replace").rstrip("\r"))


class _Times:
    """When the bytes of a log came. Ask for offsets in ascending order; what lies behind them is forgotten."""

    def __init__(self, path: Path) -> None:
        self._source = _Source(path)
        self._rest = b""
        self._ahead: deque[tuple[int, float]] = deque()
        self._time_s = 0.0
        self._is_dry = False

    def look_again(self) -> None:
        """There may be more by now."""
        self._is_dry = False

    def at_s(self, offset: int) -> float:
        while True:
            while self._ahead and self._ahead[0][0] <= offset:
                self._time_s = self._ahead.popleft()[1]
            if self._ahead or self._is_dry:
                return self._time_s
            self._read()

    def _read(self) -> None:
        piece = self._source.read(_LEAST)
        self._is_dry = not piece
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            offset, _, time_s = line.partition(b"\t")
            try:
                place, at_s = int(offset), float(time_s)
            except ValueError:
                continue
            if 0 <= at_s < _LAST_S:  # a task may write there as well
                self._ahead.append((place, at_s))


class _Source:
    """A regular file, or its packed one, read on from where the last piece ends; open while a piece is read only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._packed: _Packed | None = None

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield what there is, in pieces of so many bytes. Raises LogUnreadable."""
        while piece := self.read(size):
            yield piece

    def read(self, size: int) -> bytes:
        """Return the next bytes, `size` at most; none at the end, or where there is nothing. Raises LogUnreadable."""
        piece, is_plain = b"", False
        with _opened(self._path) as fd, suppress(OSError):
            is_plain = fd is not None
            piece = b"" if fd is None else os.pread(fd, size, self._at)
        if not is_plain:
            if self._packed is None:
                self._packed = _Packed(Path(f"{self._path}.gz"))
            piece = self._packed.read(self._at, size)
        self._at += len(piece)
        return piece


class _Packed:
    """A gzip file, unpacked as far as it is undamaged. Ask for offsets in ascending order."""

    def __init__(self, path: Path) -> None:
        import zlib  # rarely needed: a run is a week old when its logs are compressed

        self._path = path
        self._unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._error = zlib.error
        self._at = self._unpacked = 0

    def read(self, offset: int, size: int) -> bytes:
        """Return what it holds from an offset on, `size` bytes at most. Raises LogUnreadable."""
        with _opened(self._path) as fd:
            while fd is not None and self._unpacked < _MOST_UNPACKED:
                wanted = offset - self._unpacked
                piece = self._piece(fd, min(size, _CHUNK if wanted <= 0 else wanted))
                self._unpacked += len(piece)
                if not piece or wanted <= 0:
                    return piece
        return b""

    def _piece(self, fd: int, size: int) -> bytes:
        try:
            end = os.fstat(fd).st_size - _TRAILER
            while True:
                packed = os.pread(fd, max(0, min(_PACKED, end - self._at)), self._at)
                piece = self._unpacker.decompress(packed, size)
                self._at += len(packed) - len(self._unpacker.unconsumed_tail)
                if piece or not packed:
                    return piece
        except (OSError, self._error):
            return b""


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """Open a regular file for the block; None for what is none, or cannot be read. Raises LogUnreadable."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        _demand_room(path, error)
        yield None
        return
    try:
        yield fd if stat.S_ISREG(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def _names(directory: Path) -> list[str]:
    """Return the names in a directory, none where there is none. Raises LogUnreadable."""
    try:
        return os.listdir(directory)
    except OSError as error:
        _demand_room(directory, error)
        return []


def _demand_room(path: Path, error: OSError) -> None:
    """Raise LogUnreadable where only the number of open files is in the way: what is there is not taken for nothing."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise LogUnreadable(str(path), error.strerror) from None
