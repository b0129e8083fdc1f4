"""What the tasks of a run have said: their logs as lines, in the order in which they came."""

from __future__ import annotations

import os
import re
import stat
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

__all__ = ["Line", "RunOutput", "attempts_of"]

_LOG = re.compile(r"(?P<log>(?P<task>.+)\.(?P<attempt>[0-9]+)\.log)(\.gz)?")
_CHUNK = 1024 * 1024
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
    more than the tasks may.
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
        found = [line for log in self._logs.values() for line in log.read(is_over=is_over)]
        return sorted(found, key=lambda line: line.time_s)

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
    """One log and its times, read from where the last call has come to."""

    def __init__(self, path: Path, task_id: str, attempt: int) -> None:
        self.task_id = task_id
        self._path = path
        self._attempt = attempt
        self._at = self._times_at = 0
        self._rest = self._times_rest = b""
        self._offsets: list[int] = []
        self._times_s: list[float] = []

    def read(self, *, is_over: bool) -> Iterator[Line]:
        # The log first: the time of a chunk is written before it.
        begin = self._at - len(self._rest)
        data = self._rest + _bytes_from(self._path, self._at)
        self._at = begin + len(data)
        self._read_times()
        *lines, self._rest = data.split(b"\n")
        if is_over and self._rest:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            yield Line(self._time_s(begin), self.task_id, self._attempt, line.decode("utf-8", "replace").rstrip("\r"))
            begin += len(line) + 1

    def _read_times(self) -> None:
        data = _bytes_from(Path(f"{self._path}.times"), self._times_at)
        self._times_at += len(data)
        *lines, self._times_rest = (self._times_rest + data).split(b"\n")
        for line in lines:
            offset, _, time_s = line.partition(b"\t")
            try:
                place, at_s = int(offset), float(time_s)
            except ValueError:
                continue
            if 0 <= at_s < _LAST_S:  # a task may write there as well
                self._offsets.append(place)
                self._times_s.append(at_s)

    def _time_s(self, offset: int) -> float:
        place = bisect_right(self._offsets, offset) - 1
        return self._times_s[place] if place >= 0 else 0.0


def _bytes_from(path: Path, offset: int) -> bytes:
    """Return what a regular file, or its packed one, has from an offset on; nothing where there is none."""
    if (fd := _opened(path)) is not None:
        with open(fd, "rb") as file, suppress(OSError):
            file.seek(offset)
            return file.read()
    elif (fd := _opened(Path(f"{path}.gz"))) is not None:
        with open(fd, "rb") as packed:
            return _unpacked(packed)[offset:]
    return b""


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


def _unpacked(packed: BinaryIO) -> bytes:
    """Return what a gzip file holds, as far as it is undamaged."""
    import gzip  # rarely needed: a run is a week old when its logs are compressed
    import zlib

    data = bytearray()
    with gzip.GzipFile(fileobj=packed) as file, suppress(EOFError, OSError, zlib.error):
        while len(data) < _MOST_UNPACKED and (chunk := file.read(_CHUNK)):
            data += chunk
    return bytes(data)
