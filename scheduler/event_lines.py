"""What is too much for one line of the log, in parts that fit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec

__all__ = ["LINE_BYTES", "in_lines", "size_of"]

# In UTF-8; a line of the log is ASCII, where a character takes up to three times as much, and holds 64 KiB.
LINE_BYTES = 16 * 1024

T = TypeVar("T")


def in_lines(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield JSON-able items in lists that fit in a line of the log."""
    line: list[T] = []
    room = LINE_BYTES
    for item in items:
        size = size_of(item) + 1
        if line and size > room:
            yield line
            line, room = [], LINE_BYTES
        line.append(item)
        room -= size
    if line:
        yield line


def size_of(item: Any) -> int:
    """Return how many bytes the item takes as JSON, in UTF-8."""
    try:
        return len(msgspec.json.encode(item))
    except UnicodeEncodeError:  # a path that is no UTF-8 holds lone surrogates
        return len(json.dumps(item))
