"""Runs and failures by day, of one schedule: counted once, and counted on from there."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from .run_index import RunRow

__all__ = ["Day", "DayCounts"]

BAD = ("failed", "timeout", "crashed")
_WEEKS = 53
_MOST_KNOWN = 500


class Day(msgspec.Struct):
    """A day, as `2026-11-28`: how many runs were asked for in it, and how many of those failed."""

    day: str
    runs: int = 0
    failures: int = 0


class _Known(msgspec.Struct):
    """The counts of the first `count` runs, all of which have ended; `number` is that of the last one of them."""

    days: list[date]
    bounds: list[float]
    runs: list[int]
    failures: list[int]
    count: int = 0
    number: int = 0


class DayCounts:
    """A cache. It depends on the rows that have ended: tell it of each that changes, by `note`."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def note(self, rows: Iterable[RunRow]) -> None:
        """Forget what was counted with a row as it no longer is."""
        for row in rows:
            known = self._known.get(row.schedule_id)
            if known is not None and row.number <= known.number:
                del self._known[row.schedule_id]

    def of(self, schedule_id: str, rows: Sequence[RunRow], now: datetime, zone: ZoneInfo) -> list[Day]:
        """Return the days of 53 weeks up to today in the zone, whole weeks from a Monday on."""
        days = _days(now.astimezone(zone).date())
        known = self._known.get(schedule_id)
        if known is None or known.days != days:
            bounds = [datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() for day in days]
            known = _Known(days, bounds, [0] * len(days), [0] * len(days))
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[schedule_id] = known
        self._count_on(known, rows)
        runs, failures = list(known.runs), list(known.failures)
        for row in rows[known.count :]:
            _count(row, known.bounds, runs, failures)
        return [Day(day.isoformat(), *counts) for day, *counts in zip(days, runs, failures, strict=True)]

    @staticmethod
    def _count_on(known: _Known, rows: Sequence[RunRow]) -> None:
        while known.count < len(rows) and rows[known.count].ended_s is not None:
            row = rows[known.count]
            _count(row, known.bounds, known.runs, known.failures)
            known.count, known.number = known.count + 1, row.number


def _days(today: date) -> list[date]:
    first = today - timedelta(days=today.weekday() + 7 * (_WEEKS - 1))
    return [first + timedelta(days=number) for number in range((today - first).days + 1)]


def _count(row: RunRow, bounds: Sequence[float], runs: list[int], failures: list[int]) -> None:
    at = bisect.bisect_right(bounds, row.asked_s or 0.0) - 1
    if at >= 0:
        runs[at] += 1
        failures[at] += row.status in BAD
