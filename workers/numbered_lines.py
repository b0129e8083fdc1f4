"""Every line of a log with its place, through all segments: for whoever has to judge the lines themselves.

Reads only, and takes no lock. It reads what is there when it begins; what is appended meanwhile is left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from .lines import LONGEST
from .segments import LogUnreadable, Segment, list_segments, open_segment, rotated_path

__all__ = ["Block", "numbered_lines"]

_BLOCK = 1 << 20
_NO_JSON = b"\0"


class Block(NamedTuple):
    """Some lines of one file, without their newlines; the first one has the number `first`, counted from 1.

    `is_torn` tells that the last of them has no newline: it is being written, or was cut off.
    """

    path: Path
    first: int
    lines: list[bytes]
    is_torn: bool = False


def numbered_lines(path: Path, on_read: Callable[[int, int], object] = lambda _done, _all: None) -> Iterator[Block]:
    """Yield the lines of all segments; `on_read` is told how many bytes of how many are done. Raises LogUnreadable."""
    try:
        segments = list_segments(path)
        sizes = [os.stat(segment.path).st_size for segment in segments]
        done = 0
        for segment, size in zip(segments, sizes, strict=True):
            fd, place = _open(path, segment)
            try:
                for block in _blocks(fd, place, size):
                    yield block
                    done += sum(map(len, block.lines)) + len(block.lines)
                    on_read(done, sum(sizes))
            finally:
                os.close(fd)
    except OSError as error:
        raise LogUnreadable(str(path), f"{error.strerror}: {error.filename or path}") from None


def _open(path: Path, segment: Segment) -> tuple[int, Path]:
    """Open a segment that was listed, which may have got its rotated name since."""
    for place in (segment.path, rotated_path(path, segment.first_seq)):
        fd = open_segment(place)
        if fd is None:
            continue
        with ExitStack() as unless_kept:
            unless_kept.callback(os.close, fd)
            if os.fstat(fd).st_ino == segment.inode:
                unless_kept.pop_all()
                return fd, place
    raise LogUnreadable(str(segment.path), "it was removed while the log was read")


def _blocks(fd: int, path: Path, size: int) -> Iterator[Block]:
    offset, number, rest = 0, 1, b""
    while offset < size and (data := os.pread(fd, min(_BLOCK, size - offset), offset)):
        offset += len(data)
        *whole, tail = data.split(b"\n")
        if not whole:
            rest = rest + tail if len(rest) < LONGEST else _NO_JSON
            continue
        whole[0] = rest + whole[0]
        yield Block(path, number, whole)
        number += len(whole)
        rest = tail
    if rest:
        yield Block(path, number, [rest], is_torn=True)
