"""The lines of a log that the dashboard looks at, and what comes of one that it cannot use."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

import msgspec

from workers.events import is_intact
from workers.segments import LogReader, Position

__all__ = ["UNUSABLE", "lines_between", "wanted_lines"]

# What comes of a line that is no JSON, or whose fields are of other types than they should be: it is passed over.
UNUSABLE = (
    msgspec.DecodeError, RecursionError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError,
)  # fmt: skip


def wanted_lines(lines: bytes, marks: Collection[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that hold one of these marks and are as they were written, each behind its offset.

    A line without a checksum is of another hand, and is taken as it is.
    """
    offset = 0
    for line in lines.split(b"\n"):
        for mark in marks:
            if mark in line:
                if is_intact(line) is not False:
                    yield offset, line
                break
        offset += len(line) + 1


def lines_between(path: str | os.PathLike[str], first: Position, last: Position) -> Iterator[bytes]:
    """Yield the lines of a log between two places, many at a time. Raises LogUnreadable."""
    reader = LogReader(path, first)
    try:
        for chunk in reader.chunks():
            if chunk.at >= last:
                return
            length = last.offset - chunk.at.offset if chunk.at.segment == last.segment else len(chunk.lines)
            yield chunk.lines[:length]
            if length <= len(chunk.lines) and chunk.at.segment == last.segment:
                return
    finally:
        reader.close()
