"""Where in the state log a moment is: behind the last line whose time is not later, in the order of the log.

So where a clock was set back, all that came before counts for what followed, and hours that came twice are told as
they were the second time. A line of a time before the log's own beginning, of a clock that was not set yet, tells none.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from typing import NamedTuple

from workers.events import decode_line, time_of
from workers.segments import Chunk, Position

__all__ = ["Piece", "Places", "line_s"]

_PIECE = 32 * 1024
_STAMP = re.compile(rb'^\{"timestamp":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)"', re.MULTILINE)


class Piece(NamedTuple):
    """Some lines of a segment, and the earliest of their times, in seconds since the epoch."""

    earliest_s: float
    start: Position
    end: Position


class Places:
    """A fold of the state log. Safe between threads."""

    def __init__(self) -> None:
        self.first_s: float | None = None
        # By place and by time: one that has a line of an earlier time behind it, or of the same, is never asked for.
        self._pieces: list[Piece] = []

    def take(self, chunk: Chunk) -> None:
        """Take in lines of the state log, from its beginning on."""
        (segment, offset), lines, begin = chunk.at, chunk.lines, 0
        while begin < len(lines):
            end = lines.find(b"\n", begin + _PIECE) + 1 or len(lines)
            earliest_s = self._earliest_s(lines[begin:end])
            if earliest_s is not None:
                self._add(Piece(earliest_s, Position(segment, offset + begin), Position(segment, offset + end)))
            begin = end

    def piece(self, at_s: float) -> Piece | None:
        """Return the lines among which a moment is, in seconds since the epoch; None for one before the log."""
        pieces = list(self._pieces)
        place = bisect_right(pieces, at_s, key=_earliest_s)
        return pieces[place - 1] if place else None

    def _add(self, piece: Piece) -> None:
        pieces, keep = self._pieces, bisect_left(self._pieces, piece.earliest_s, key=_earliest_s)
        if pieces and pieces[-1].end == piece.start and piece.end.offset - pieces[-1].start.offset <= _PIECE:
            piece = Piece(min(piece.earliest_s, pieces[-1].earliest_s), pieces[-1].start, piece.end)
            keep = min(keep, len(pieces) - 1)
        pieces[keep:] = [piece]

    def _earliest_s(self, lines: bytes) -> float | None:
        stamps = _STAMP.findall(lines)
        if self._pieces and len(stamps) == lines.count(b"\n"):
            earliest_s = time_of(min(stamps).decode())
            if earliest_s is not None and earliest_s >= self._pieces[-1].earliest_s:
                return earliest_s
        # Of another hand, or a clock was set back, or a bit has turned: line by line.
        times_s = [at_s for at_s in map(line_s, lines.split(b"\n")) if at_s is not None]
        if self.first_s is None and times_s:
            self.first_s = times_s[0]
        return min((at_s for at_s in times_s if at_s >= (self.first_s or 0.0)), default=None)


def line_s(line: bytes) -> float | None:
    """Return the time of a line, in seconds since the epoch; None where it tells none, or is damaged."""
    event = decode_line(line)
    return None if event is None else time_of(event.get("timestamp"))


def _earliest_s(piece: Piece) -> float:
    return piece.earliest_s
