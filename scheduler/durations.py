"""How long the runs of each schedule took, as the log tells it."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from itertools import islice
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


class Durations(msgspec.Struct, frozen=True):
    """The lengths of `count` attempts, in seconds: the middle one, the one that 95 % do not exceed, the longest."""

    count: int
    p50_s: float
    p95_s: float
    max_s: float


def read_durations(log: Path, *, per_schedule: int = _PER_SCHEDULE, newest: int = _NEWEST) -> dict[str, Durations]:
    """Return the durations of each schedule in the log, through all its segments, newest first.

    At most `newest` ends are read, and of one schedule the last `per_schedule`; a log that is not there has none.
    That bounds memory; of time, a second for the first 200,000 ends and 2 s a GiB of lines that are no end.
    Takes no lock. Raises LogUnreadable.
    """
    ends = (event for event in read_backward(log, holding=b'"run_finished"') if _is_counted(event))
    return durations_of(islice(ends, newest), per_schedule=per_schedule)


def durations_of(events: Iterable[Event | None], *, per_schedule: int = _PER_SCHEDULE) -> dict[str, Durations]:
    """Return the durations of each schedule from `run_finished` events, of each the first `per_schedule` given.

    Every attempt counts as one. Ends that were cancelled or crashed, runs by hand and lines that are no event of the
    kind do not count. Quantiles are by nearest rank: a length that was measured.
    """
    lengths: dict[str, array[float]] = {}
    for event in events:
        if event is not None and _is_counted(event):
            of_schedule = lengths.setdefault(event["schedule_id"], array("d"))
            if len(of_schedule) < per_schedule:
                of_schedule.append(event["duration_s"])
    return {schedule_id: _summary(sorted(of_schedule)) for schedule_id, of_schedule in lengths.items() if of_schedule}


def _is_counted(event: Event | None) -> bool:
    """Whether it is the end of a schedule's attempt whose length tells something; another hand may have written it."""
    if event is None or event.get("event") != "run_finished" or event.get("status") not in _COUNTED:
        return False
    schedule_id, length = event.get("schedule_id"), event.get("duration_s")
    is_length = isinstance(length, int | float) and not isinstance(length, bool) and 0 <= length < math.inf
    return is_length and isinstance(schedule_id, str) and schedule_id != ""


def _summary(lengths: list[float]) -> Durations:
    def rank(percent: int) -> float:
        return lengths[(len(lengths) * percent - 1) // 100]

    return Durations(len(lengths), rank(50), rank(95), lengths[-1])
