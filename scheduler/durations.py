"""How long the runs of each schedule took, as the log tells it."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from pathlib import Path

import msgspec

from workers.events import Event
from workers.segments import read_backward

__all__ = ["Durations", "durations_of", "read_durations"]

# What took as long as it takes. `timeout` is among them: its length is the limit's, and hides none of the waiting.
# The end of a cancelled or crashed attempt says when somebody stopped it, not how long its work takes.
_COUNTED = ("success", "failed", "timeout")
_PER_SCHEDULE = 1000
_NEWEST = 200_000
_ID = b'"schedule_id":"'


class Durations(msgspec.Struct, frozen=True):
    """The lengths of `count` attempts, in seconds: the middle one, the one that 95 % do not exceed, the longest."""

    count: int
    p50_s: float
    p95_s: float
    max_s: float


def read_durations(log: Path, *, per_schedule: int = _PER_SCHEDULE, newest: int = _NEWEST) -> dict[str, Durations]:
    """Return the durations of each schedule in the log, through all its segments, newest first.

    Of one schedule the last `per_schedule` ends count, and at most `newest` of all; a log that is not there has none.
    Measured, 1.3 to 2.5 s a GiB of log. Takes no lock. Raises LogUnreadable.
    """
    lengths = _Lengths(per_schedule)
    for event in read_backward(log, wanted=lengths.is_wanted):
        lengths.add(event)
        if lengths.count >= newest:
            break
    return lengths.summaries()


def durations_of(events: Iterable[Event | None], *, per_schedule: int = _PER_SCHEDULE) -> dict[str, Durations]:
    """Return the durations of each schedule from `run_finished` events, of each the first `per_schedule` given.

    Every attempt counts as one. Ends that were cancelled or crashed, runs by hand and lines that are no event of the
    kind do not count. Quantiles are by nearest rank: a length that was measured.
    """
    lengths = _Lengths(per_schedule)
    for event in events:
        lengths.add(event)
    return lengths.summaries()


class _Lengths:
    """The lengths of each schedule's attempts, `count` in all, until it has enough of them."""

    def __init__(self, per_schedule: int) -> None:
        self.count = 0
        self._per_schedule = per_schedule
        self._of: dict[str, array[float]] = {}
        self._full: set[bytes] = set()

    def is_wanted(self, line: bytes) -> bool:
        """Say whether a line may be the end of a run whose schedule has not enough; from its bytes, for speed."""
        if b'"run_finished"' not in line:
            return False
        start = line.find(_ID)
        return start < 0 or line[start : line.find(b'"', start + len(_ID))] not in self._full

    def add(self, event: Event | None) -> None:
        if event is None or not _is_counted(event):
            return
        schedule_id = event["schedule_id"]
        lengths = self._of.setdefault(schedule_id, array("d"))
        if len(lengths) < self._per_schedule:
            lengths.append(event["duration_s"])
            self.count += 1
        if len(lengths) >= self._per_schedule:
            self._full.add(_ID + schedule_id.encode(errors="replace"))

    def summaries(self) -> dict[str, Durations]:
        return {schedule_id: _summary(sorted(lengths)) for schedule_id, lengths in self._of.items() if lengths}


def _is_counted(event: Event) -> bool:
    """Whether it is the end of a schedule's attempt whose length tells something; another hand may have written it."""
    if event.get("event") != "run_finished" or event.get("status") not in _COUNTED:
        return False
    schedule_id, length = event.get("schedule_id"), event.get("duration_s")
    is_length = isinstance(length, int | float) and not isinstance(length, bool) and 0 <= length < math.inf
    return is_length and isinstance(schedule_id, str) and schedule_id != ""


def _summary(lengths: list[float]) -> Durations:
    def rank(percent: int) -> float:
        return lengths[(len(lengths) * percent - 1) // 100]

    return Durations(len(lengths), rank(50), rank(95), lengths[-1])
