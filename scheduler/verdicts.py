"""Verdicts: which fire times of one schedule have been judged, in a form that stays small."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import msgspec

from workers.events import Second

__all__ = ["KEPT", "Range", "ScheduleState", "calendar_of"]

# So many of the newest verdicts are kept one by one.
KEPT = 8
# A missed range that a clock set wrongly leaves is long; those that a late tick leaves are not.
_LONG_S = 600

Range = tuple[Second, Second]


class ScheduleState(msgspec.Struct):
    """What has been judged of one schedule; times are whole seconds since the epoch, ranges include both ends.

    It goes on from `watermark`. `latest` is the highest that ever was: the two differ while the clock stands behind
    where it has been. What has its verdict is told by `judged` (in the order of time), `others` (what came out of that
    order), `missed`, and `settled`: the ranges that a checkpoint made of older verdicts.
    """

    watermark: int
    latest: int
    judged: set[int] = msgspec.field(default_factory=set)
    others: set[int] = msgspec.field(default_factory=set)
    missed: list[Range] = msgspec.field(default_factory=list)
    settled: list[Range] = msgspec.field(default_factory=list)
    spec: dict[str, Any] = msgspec.field(default_factory=dict)

    def is_judged(self, fire_time: int) -> bool:
        """Say whether this fire time has its verdict."""
        return fire_time <= self.latest and (
            fire_time in self.judged
            or fire_time in self.others
            or _holds(self.settled, fire_time)
            or _holds(self.missed, fire_time)
        )

    def judge(self, fire_time: int) -> None:
        """Note that this fire time was enqueued or skipped."""
        if fire_time > self.latest:
            self.judged.add(fire_time)
            self.watermark = self.latest = fire_time
        else:
            self.others.add(fire_time)
            if fire_time > self.watermark:
                self.watermark = fire_time

    def miss(self, first: int, last: int) -> None:
        """Note that the fire times from `first` to `last` were missed."""
        if last < first:
            raise ValueError(last)
        if self.missed and first <= self.missed[-1][1]:
            self.missed = _merged([*self.missed, (first, last)])
        else:
            self.missed.append((first, last))
        self.go_on(last)

    def go_on(self, since: int) -> None:
        """Go on from `since`, unless it lies behind."""
        self.watermark = max(self.watermark, since)
        self.latest = max(self.latest, since)

    def set_back(self, since: int) -> None:
        """Go on from `since`, to which the clock was set.

        What was enqueued or skipped stays judged; what only a wrong clock had called missed may still come.
        """
        self.watermark = min(self.watermark, since)
        self.missed = [(first, min(last, since)) for first, last in self.missed if first <= since]

    def settle(self) -> ScheduleState:
        """Return the same state in little room: all but the newest verdicts become ranges.

        Between two verdicts of a range every fire time has one, for they were judged in order and none was left out;
        times in which the schedule was not in force count with them.
        Where a missed range lies between them they stay apart, because the missed may come again when the clock is
        set back. Of those the newest are kept, and the longest: years that only a wrong clock called missed must not
        fall silent. What lies behind the present time is no neighbour of what lies before it.
        """
        past = sorted(time for time in self.judged if time <= self.watermark)[:-KEPT]
        old_missed, missed = _part(self.missed)
        parts = sorted([*self.settled, *old_missed, *((time, time) for time in past)])
        settled: list[Range] = []
        for first, last in parts:
            before = settled[-1] if settled else None
            if before is None or last > self.watermark or any(before[1] < gap < first for gap, _ in missed):
                settled.append((first, last))
            else:
                settled[-1] = (before[0], max(before[1], last))
        return msgspec.structs.replace(self, judged=self.judged.difference(past), missed=missed, settled=settled)


def _part(missed: list[Range]) -> tuple[list[Range], list[Range]]:
    """Return the missed ranges that may count as judged for good, and those that are kept, both in order."""
    old, newest = missed[:-KEPT], missed[-KEPT:]
    long = [each for each in old if each[1] - each[0] >= _LONG_S]
    longest = sorted(sorted(long, key=lambda each: each[0] - each[1])[:KEPT])
    return [each for each in old if each not in longest], [*longest, *newest]


def _holds(ranges: list[Range], time: int) -> bool:
    place = bisect_right(ranges, time, key=lambda each: each[0]) - 1
    return place >= 0 and time <= ranges[place][1]


def _merged(ranges: list[Range]) -> list[Range]:
    """Return ranges in order, overlapping ones as one."""
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def calendar_of(spec: Mapping[str, Any]) -> str | None:
    """Return the name under which the log keeps the days of a schedule's calendar; None where it has none."""
    calendar = spec.get("calendar")
    name = calendar.get("days") if isinstance(calendar, dict) else None
    return name if isinstance(name, str) else None
