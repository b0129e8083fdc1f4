"""The lines of one file: forward, backward, and what its two ends tell. Reads only, and takes no lock.

A line counts once its newline is there. A line of more than `LONGEST` bytes is given shortened, so that it is no JSON.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from .events import seq_of

__all__ = ["LONGEST", "final_line", "first_seq", "last_seq", "line_start", "lines_backward", "lines_forward"]

LONGEST = 1 << 20
_FIRST_BLOCK = 1024
_BLOCK = 64 * 1024
_CUT = b"\0"  # never valid in JSON


def lines_forward(fd: int) -> Iterator[bytes]:
    """Yield the lines of a file that are not blank, first to last."""
    offset, size, kept = 0, _FIRST_BLOCK, _Pieces()
    while block := os.pread(fd, size, offset):
        offset += len(block)
        size = _BLOCK
        head, *whole = block.split(b"\n")
        kept.add(head)
        if whole:
            yield from filter(bytes.strip, (kept.joined(), *whole[:-1]))
            kept = _Pieces(whole[-1])


def lines_backward(fd: int, end: int) -> Iterator[bytes]:
    """Yield the lines before `end`, which stands behind a newline, that are not blank; last to first."""
    size, kept = _FIRST_BLOCK, _Pieces()
    while end > 0:
        start = max(0, end - size)
        *whole, tail = os.pread(fd, end - start, start).split(b"\n")
        end, size = start, _BLOCK
        kept.add(tail)
        if whole:
            yield from filter(bytes.strip, (kept.joined(backward=True), *reversed(whole[1:])))
            kept = _Pieces(whole[0])
    yield from filter(bytes.strip, (kept.joined(backward=True),))


class _Pieces:
    """A line that comes block by block; of an endless one only the ends are kept."""

    def __init__(self, first: bytes = b"") -> None:
        self._pieces = [first]
        self._size = len(first)

    def add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > LONGEST:
            del self._pieces[1:]
            self._pieces.append(_CUT)
        self._pieces.append(piece)

    def joined(self, *, backward: bool = False) -> bytes:
        return b"".join(reversed(self._pieces) if backward else self._pieces)


def first_seq(fd: int) -> int | None:
    """Return the seq of a file's first line, told by the first line that carries one; None when none does."""
    for index, line in enumerate(lines_forward(fd)):
        seq = seq_of(line)
        if seq is not None:
            return max(1, seq - index)
    return None


def last_seq(fd: int, end: int) -> tuple[int | None, int]:
    """Return the last seq that a line before `end` carries, and how many lines follow that line.

    A line that carries none (damaged, or written by another hand) still uses one up.
    """
    after = 0
    for line in lines_backward(fd, end):
        seq = seq_of(line)
        if seq is not None:
            return seq, after
        after += 1
    return None, after


def final_line(fd: int, end: int) -> bytes | None:
    """Return the line right before `end` with its newline, if one short read shows it whole.

    Empty when it is longer; None when `end` stands behind no newline: the tail is torn.
    """
    block = os.pread(fd, _FIRST_BLOCK, max(0, end - _FIRST_BLOCK))
    if not block.endswith(b"\n"):
        return None
    start = block.rfind(b"\n", 0, -1) + 1
    return block[start:] if start else b""


def line_start(fd: int, end: int) -> int:
    """Return the offset behind the last newline before `end`."""
    while end > 0:
        start = max(0, end - _BLOCK)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
