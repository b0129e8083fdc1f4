"""What is done to the files of a log, each step whole or not at all. The caller holds the log's lock."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from .errors import TickpoolError

__all__ = [
    "LogNotFlushed",
    "LogUnwritable",
    "begin_segment",
    "make_directory",
    "move_tail",
    "reason",
    "sync_directory",
    "write_whole",
]

_BLOCK = 1 << 20


class LogUnwritable(TickpoolError):
    """The log cannot be written: (path, the reason). Nothing of the refused events is in the log.

    One case is left: a disk that took a part and then refuses to cut it off may keep the first of several events.
    """

    def __str__(self) -> str:
        return f"{self.args[0]}: cannot be written: {self.args[1]}"


class LogNotFlushed(LogUnwritable):
    """The events are in the log, but the disk refused to flush them: (path, the reason). Do not append them again."""

    def __str__(self) -> str:
        return f"{self.args[0]}: written, but not flushed to the disk: {self.args[1]}"


def reason(error: OSError | TickpoolError) -> str:
    """Return what the system said, and of which file when it named one."""
    if isinstance(error, TickpoolError):
        return str(error)
    said = error.strerror or str(error)
    return f"{said} ({error.filename2 or error.filename})" if error.filename else said


def write_whole(fd: int, data: bytes, end: int) -> None:
    """Write all of `data` behind `end`, the end of the file, or nothing of it. Raises OSError."""
    if os.write(fd, data) != len(data):
        # A full disk takes a part without an error; the next write would have failed (POSIX write(2)).
        with suppress(OSError):
            os.ftruncate(fd, end)
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}, or over a limit of file size")


def move_tail(fd: int, start: int, end: int, path: Path) -> None:
    """Move the bytes from `start` to `end`, the end of the file, behind those in `path`, and a newline after them.

    When they cannot be saved they stay where they are. Raises OSError.
    """
    out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        before = os.fstat(out).st_size
        place = start
        while place < end:
            block = os.pread(fd, min(_BLOCK, end - place), place)
            write_whole(out, block, before)
            place += len(block)
        write_whole(out, b"\n", before)
    finally:
        os.close(out)
    os.ftruncate(fd, start)


def begin_segment(path: Path, data: bytes, rotated: Path) -> None:
    """Give the file at `path` the name `rotated` too, then let a new file with `data` take the path.

    `path` leads to a whole file at any moment, and every step can be done again after a kill. Raises OSError;
    FileExistsError when another file has the name `rotated`.
    """
    fresh = path.with_name(path.name + ".next")
    try:
        _write_like(path, fresh, data)
        try:
            os.link(path, rotated)
        except FileExistsError:
            # The name is there already when a rotation was cut off right here.
            if not os.path.samefile(path, rotated):
                raise
        # Not every file system keeps the order of names: the second name first, or a power cut could take both.
        sync_directory(path.parent)
        os.rename(fresh, path)
    except OSError:
        with suppress(OSError):
            os.unlink(fresh)
        raise
    sync_directory(path.parent)


def _write_like(model: Path, path: Path, data: bytes) -> None:
    """Write `data` to the disk as a file with the owner and the mode of `model`."""
    stat = os.stat(model)
    with suppress(FileNotFoundError):
        os.unlink(path)  # a rotation that was cut off left it; a link there must not be followed
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with suppress(PermissionError):
            os.fchown(fd, stat.st_uid, stat.st_gid)
        os.fchmod(fd, stat.st_mode & 0o777)
        write_whole(fd, data, 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: Path) -> None:
    """Make a directory, and those above it, with their names on the disk. Raises OSError."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(exist_ok=True)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Flush the names in a directory to the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
