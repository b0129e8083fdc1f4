"""What the tasks of a run have said: their logs as lines, in the order in which they came."""

from __future__ import annotations

import heapq
import os
import re
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

__all__ = ["Line", "RunOutput", "attempts_of"]

_LOG = re.compile(r"(?P<log>(?P<task>.+)\.(?P<attempt>[0-9]+)\.log)(\.gz)?")
_CHUNK = 1024 * 1024
_LONGEST = 4 * _CHUNK
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
    """Return the attempts of a run that have left a directory, ascending."""
    try:
        names = os.listdir(run_dir)
    except OSError:
        return []
    return sorted(int(name) for name in names if name.isascii() and name.isdecimal())


class RunOutput:
    """The logs of one attempt of a run; `read` them again while they grow. Of one `task` only, where one is named.

    A log that was compressed (`.log.gz`) is read like one that was not. A link is not followed: whoever reads may see
    more than the tasks may. With `newest_bytes` no more than about so much of what is new in a log is kept: the lines
    before that are counted in `passed_over`. A line of more than 4 MiB comes in parts of that length.
    """

    def __init__(self, directory: Path, task: str | None = None, newest_bytes: int | None = None) -> None:
        self._directory = directory
        self._task = task
        self._newest_bytes = newest_bytes
        self._logs: dict[str, _Log] = {}

    @property
    def tasks(self) -> list[str]:
        """The tasks of which there is output so far, in order of name."""
        return sorted({log.task_id for log in self._logs.values()})

    @property
    def passed_over(self) -> int:
        """How many lines were counted and not read, so far."""
        return sum(log.passed_over for log in self._logs.values())

    def read(self, *, is_over: bool = False) -> list[Line]:
        """Return the lines that are new since the last call, in order of time.

        A line that has no end yet comes with the call that finds its end, or when it `is_over`.
        """
        self._find()
        found = [line for log in self._logs.values() for line in log.read(self._newest_bytes, is_over=is_over)]
        return sorted(found, key=lambda line: line.time_s)

    def lines(self, *, is_over: bool = False) -> Iterator[Line]:
        """Yield what `read` returns, and keep no more of it than a few MiB of each log."""
        self._find()
        each = [log.read(self._newest_bytes, is_over=is_over) for log in self._logs.values()]
        return heapq.merge(*each, key=lambda line: line.time_s)

    def _find(self) -> None:
        try:
            names = sorted(os.listdir(self._directory))
        except OSError:
            return
        for name in names:
            match = _LOG.fullmatch(name)
            if match and match["log"] not in self._logs and self._task in (None, match["task"]):
                log = _Log(self._directory / match["log"], match["task"], int(match["attempt"]))
                self._logs[match["log"]] = log


class _Log:
    """One log, read from where the last call has come to."""

    def __init__(self, path: Path, task_id: str, attempt: int) -> None:
        self.task_id = task_id
        self.passed_over = 0
        self._path = path
        self._attempt = attempt
        self._times = _Times(Path(f"{path}.times"))
        self._at = 0
        self._rest = b""

    def read(self, newest_bytes: int | None, *, is_over: bool) -> Iterator[Line]:
        pieces = _pieces(self._path, self._at)
        for piece in pieces if newest_bytes is None else self._newest(pieces, newest_bytes):
            begin = self._at - len(self._rest)
            self._at += len(piece)
            # The log first: the time of a chunk is written before it.
            self._times.look_again()
            *lines, self._rest = (self._rest + piece).split(b"\n")
            for line in lines:
                yield self._line(begin, line)
                begin += len(line) + 1
            if len(self._rest) >= _LONGEST:
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
                self.passed_over += first.count(b"\n")
                self._at, self._rest, is_cut = self._at + len(first), b"", not first.endswith(b"\n")
        for piece in kept:
            if is_cut:
                end = piece.find(b"\n") + 1
                self.passed_over += end > 0
                self._at += end or len(piece)
                piece, is_cut = piece[end:] if end else b"", end == 0
            yield piece

    def _line(self, begin: int, line: bytes) -> Line:
        return Line(self._times.at_s(begin), self.task_id, self._attempt, line.decode("utf-8", "replace").rstrip("\r"))


class _Times:
    """When the bytes of a log came. Ask for offsets in ascending order; what lies behind them is forgotten."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
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
        piece = next(_pieces(self._path, self._at), b"")
        self._is_dry = not piece
        self._at += len(piece)
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            offset, _, time_s = line.partition(b"\t")
            try:
                place, at_s = int(offset), float(time_s)
            except ValueError:
                continue
            if 0 <= at_s < _LAST_S:  # a task may write there as well
                self._ahead.append((place, at_s))


def _pieces(path: Path, offset: int) -> Iterator[bytes]:
    """Yield what a regular file, or its packed one, has from an offset on, MiB by MiB; nothing where there is none."""
    if (fd := _opened(path)) is not None:
        with open(fd, "rb") as file, suppress(OSError):
            file.seek(offset)
            while piece := file.read(_CHUNK):
                yield piece
    elif (fd := _opened(Path(f"{path}.gz"))) is not None:
        with open(fd, "rb") as packed:
            yield from _unpacked(packed, offset)


def _opened(path: Path) -> int | None:
    """Open a regular file; None for what is none, or cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def _unpacked(packed: BinaryIO, offset: int) -> Iterator[bytes]:
    """Yield what a gzip file holds from an offset on, as far as it is undamaged."""
    import gzip  # rarely needed: a run is a week old when its logs are compressed
    import zlib

    with gzip.GzipFile(fileobj=packed) as file, suppress(EOFError, OSError, zlib.error):
        file.seek(offset)
        while file.tell() < _MOST_UNPACKED and (piece := file.read(_CHUNK)):
            yield piece
