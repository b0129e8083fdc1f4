"""How attempts of runs have started and ended, counted: a fold of the state log for whoever draws its curves."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from workers.events import time_of
from workers.segments import Chunk

from .fold_lines import UNUSABLE, wanted_lines

__all__ = ["Buckets", "RunEnds"]

_WANTED = (b'"run_started"', b'"run_finished"')
_DURATIONS_S = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_LATENESSES_S = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 3600)


class _Line(msgspec.Struct):
    event: str = ""
    timestamp: str = ""
    schedule_id: str | None = None
    minute: str | None = None
    attempt: int = 1
    status: str | None = None
    duration_s: float | None = None


class Buckets:
    """How many values there were up to each of some bounds, in seconds, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum_s = 0.0

    def add(self, value_s: float) -> None:
        """Count a value."""
        self.counts[bisect.bisect_left(self.bounds, value_s)] += 1
        self.sum_s += value_s


class RunEnds:
    """Ends by status, how long attempts took, and how late the first ones of fire times began."""

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter()
        self.durations = Buckets(_DURATIONS_S)
        self.latenesses = Buckets(_LATENESSES_S)
        self._decoder = msgspec.json.Decoder(_Line)

    def take(self, chunk: Chunk) -> None:
        """Take in lines of the state log; what cannot be read is passed over."""
        for _, line in wanted_lines(chunk.lines, _WANTED):
            with suppress(*UNUSABLE):
                self._apply(self._decoder.decode(line))

    def _apply(self, line: _Line) -> None:
        if line.event == "run_finished":
            self.ended[line.status or "failed"] += 1
            if line.duration_s is not None:
                self.durations.add(line.duration_s)
        elif line.event == "run_started" and line.schedule_id and line.attempt == 1:
            at_s, due_s = time_of(line.timestamp), time_of(line.minute)
            if at_s is not None and due_s is not None:
                self.latenesses.add(max(0.0, at_s - due_s))
