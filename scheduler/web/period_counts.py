"""Runs and failures by period, of one schedule: counted once, and counted on from there."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from .run_index import BAD, RunRow

__all__ = ["Day", "PeriodCounts", "asked_s", "days_of", "fire_s"]

_WEEKS = 53
_MOST_KNOWN = 500


class Day(msgspec.Struct):
    """A day, as `2026-11-28`: how many runs have their fire time in it, and how many of those failed."""

    day: str
    runs: int = 0
    failures: int = 0


class _Known(msgspec.Struct):
    """The counts of the first `count` runs, all of which have ended; `number` is that of the last one of them."""

    bounds: Sequence[float]
    runs: list[int]
    failures: list[int]
    count: int = 0
    number: int = 0


class PeriodCounts:
    """A cache. It depends on the rows that have ended: tell it of each that changes, by `note`.

    `at_s` is when a run counts: `asked_s`, or `fire_s`, which comes no later.
    """

    def __init__(self, at_s: Callable[[RunRow], float]) -> None:
        self._at_s = at_s
        self._known: dict[str, _Known] = {}

    def note(self, rows: Iterable[RunRow]) -> None:
        """Forget what was counted with a row as it no longer is."""
        for row in rows:
            known = self._known.get(row.schedule_id)
            if known is not None and row.number <= known.number:
                del self._known[row.schedule_id]

    def of(self, schedule_id: str, rows: Sequence[RunRow], bounds: Sequence[float]) -> tuple[list[int], list[int]]:
        """Return how many runs there are in each period, and how many of them failed.

        `bounds` are where periods begin, in seconds since the epoch; the last one has no end. `rows` are those of the
        schedule, oldest first.
        """
        known = self._known.get(schedule_id)
        if known is None or known.bounds != bounds:
            first = bisect.bisect_left(rows, bounds[0], key=asked_s)
            known = _Known(bounds, [0] * len(bounds), [0] * len(bounds), first, rows[first - 1].number if first else 0)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[schedule_id] = known
        while known.count < len(rows) and rows[known.count].ended_s is not None:
            row = rows[known.count]
            self._count(row, bounds, known.runs, known.failures)
            known.count, known.number = known.count + 1, row.number
        runs, failures = list(known.runs), list(known.failures)
        for row in rows[known.count :]:
            self._count(row, bounds, runs, failures)
        return runs, failures

    def _count(self, row: RunRow, bounds: Sequence[float], runs: list[int], failures: list[int]) -> None:
        at = bisect.bisect_right(bounds, self._at_s(row)) - 1
        if at >= 0:
            runs[at] += 1
            failures[at] += row.status in BAD


def days_of(counts: PeriodCounts, schedule_id: str, rows: Sequence[RunRow], now: datetime, zone: ZoneInfo) -> list[Day]:
    """Return the days of 53 weeks up to today in the zone, whole weeks from a Monday on."""
    days = _days(now.astimezone(zone).date())
    bounds = [datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() for day in days]
    counted = counts.of(schedule_id, rows, bounds)
    return [Day(day.isoformat(), *each) for day, *each in zip(days, *counted, strict=True)]


def asked_s(row: RunRow) -> float:
    """Return when a run was asked for."""
    return row.asked_s or 0.0


def fire_s(row: RunRow) -> float:
    """Return the fire time of a run: one of a backfill counts where it belongs."""
    return asked_s(row) if row.fire_s is None else row.fire_s


def _days(today: date) -> list[date]:
    first = today - timedelta(days=today.weekday() + 7 * (_WEEKS - 1))
    return [first + timedelta(days=number) for number in range((today - first).days + 1)]
