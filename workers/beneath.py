"""Opening files below a directory whatever links lie there: what a path leads to is decided on open descriptors."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

__all__ = ["LiesOutside", "NotRegular", "is_inside", "open_directory", "open_inside", "open_new", "open_regular"]

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class LiesOutside(OSError):
    """A path that leads out of the directory it has to stay in."""


class NotRegular(OSError):
    """A path that leads to a directory, a FIFO, a device or a socket."""


def is_inside(real: str, root: str | os.PathLike[str]) -> bool:
    """Say whether `real`, a path without links, lies below `root`."""
    return real.startswith(os.path.join(os.path.realpath(root), ""))


def open_inside(path: str | os.PathLike[str], root: str | os.PathLike[str]) -> int:
    """Open a file for reading that lies below `root` once every link is followed.

    What lies elsewhere, and what is no regular file, is never opened, however the links change meanwhile. Raises
    OSError: LiesOutside, NotRegular.
    """
    # O_PATH finds a file without opening it (open(2)).
    found = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not is_inside(os.readlink(f"/proc/self/fd/{found}"), root):
            raise LiesOutside(errno.EXDEV, "lies outside", os.fspath(root))
        return _open_regular(found)
    finally:
        os.close(found)


def open_regular(path: str) -> int:
    """Open a file for reading; its last part may be no link. Raises OSError: NotRegular for a link."""
    found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return _open_regular(found)
    finally:
        os.close(found)


def _open_regular(found: int) -> int:
    mode = os.fstat(found).st_mode
    if stat.S_ISDIR(mode):
        raise NotRegular(errno.EISDIR, "is a directory")
    if not stat.S_ISREG(mode):
        raise NotRegular(errno.EINVAL, "is not a regular file")
    # The very file that was looked at, whatever its path leads to by now.
    return os.open(f"/proc/self/fd/{found}", _READ)


def open_directory(path: str, root: str) -> int:
    """Open a directory at or below `root`, made if absent, on a way without links below `root`. Raises OSError."""
    try:
        here = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        os.makedirs(root, exist_ok=True)
        here = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in os.path.relpath(path, root).split(os.sep):
        above = here
        try:
            here = _step(above, name)
        except NotADirectoryError:
            raise NotADirectoryError(errno.ENOTDIR, "a link or a file is in its way", path) from None
        finally:
            os.close(above)
    return here


def _step(above: int, name: str) -> int:
    with suppress(FileNotFoundError):
        return os.open(name, _STEP, dir_fd=above)
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=above)
    return os.open(name, _STEP, dir_fd=above)


def open_new(directory: int, name: str, mode: int) -> int:
    """Make a file in an open directory and open it for appending; what has the name is removed. Raises OSError."""
    try:
        return os.open(name, _NEW, mode, dir_fd=directory)
    except FileExistsError:
        # A link would be followed, a FIFO would wait for a reader.
        os.unlink(name, dir_fd=directory)
        return os.open(name, _NEW, mode, dir_fd=directory)
