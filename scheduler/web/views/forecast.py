"""The page Forecast: what the schedules will do with the workers, and where it does not fit."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from scheduler.limits import Limits
from scheduler.schedule_model import Schedule
from scheduler.text import counted
from workers.events import time_of

__all__ = ["Forecast", "ForecastReport", "HourLoad", "PoolLoad", "Suffering", "forecast_view"]

_WORST = 12
_FULL = 0.97


class Waits(msgspec.Struct):
    """The middle, the 95th percentile and the longest of waits, in seconds."""

    p50: float = 0.0
    p95: float = 0.0
    max: float = 0.0


class _Hour(msgspec.Struct):
    begin: str
    due: int = 0
    busy_s: float = 0.0
    queued_s: float = 0.0
    deepest: int = 0


class _Figures(msgspec.Struct):
    runs: int = 0
    wait_s: Waits = msgspec.field(default_factory=Waits)
    skipped: dict[str, int] = {}
    missed: dict[str, int] = {}
    cancelled: dict[str, int] = {}
    deadline_misses: int = 0
    timeouts: int = 0
    busy_s: float = 0.0


class WorstMinute(msgspec.Struct):
    """A time of day (UTC) with the longest queue it ever has, how many fire then, and on how many days."""

    time: str
    deepest: int
    due: int
    days: int


class Advice(msgspec.Struct):
    """A schedule's expression and a better one, with the mean wait of its runs on the fullest day under both."""

    schedule_id: str
    cron: str
    proposed: str
    wait_s: float
    proposed_wait_s: float


class ForecastReport(msgspec.Struct):
    """What `tickpool forecast --json` tells, as far as it is looked at."""

    begin: str
    until: str
    workers: int
    schedules: int
    runs: int
    utilisation: float
    assumed_s: float = 0.0
    without_history: list[str] = []
    wait_s: Waits = msgspec.field(default_factory=Waits)
    long_waits: int = 0
    skipped: dict[str, int] = {}
    missed: dict[str, int] = {}
    cancelled: dict[str, int] = {}
    deadline_misses: int = 0
    hours: list[_Hour] = []
    worst_minutes: list[WorstMinute] = []
    advice: list[Advice] = []
    by_schedule: dict[str, _Figures] = {}


class HourLoad(msgspec.Struct):
    """An hour: how many workers are busy on the average, how many fire, the longest queue.

    `is_full` where all are busy all the time and runs wait.
    """

    begin_s: float
    busy: float
    due: int
    deepest: int
    is_full: bool


class PoolLoad(msgspec.Struct):
    """A pool: its slots, how many of them are busy on the average, and the schedules in it."""

    pool: str
    slots: int
    busy: float
    schedules: int


class Suffering(msgspec.Struct):
    """A schedule that fares badly: its runs and their waits, what never ran, the deadlines it misses."""

    schedule_id: str
    runs: int
    wait_s: Waits
    lost: int
    deadline_misses: int


class Forecast(msgspec.Struct):
    """The forecast. Without `report` it is being worked out, or `problem` says why it cannot be."""

    is_pending: bool
    problem: str
    made_s: float | None
    begin_s: float | None = None
    until_s: float | None = None
    workers: int = 0
    schedules: int = 0
    runs: int = 0
    utilisation: float = 0.0
    wait_s: Waits = msgspec.field(default_factory=Waits)
    long_waits: int = 0
    lost: int = 0
    deadline_misses: int = 0
    assumed_s: float = 0.0
    without_history: list[str] = []
    hours: list[HourLoad] = []
    pools: list[PoolLoad] = []
    worst: list[Suffering] = []
    worst_minutes: list[WorstMinute] = []
    advice: list[Advice] = []

    @property
    def sentence(self) -> str:
        """What it comes to."""
        found = [f"{counted(self.long_waits, 'run')} wait more than a minute"] if self.long_waits else []
        found += [f"{counted(self.lost, 'fire time')} without a run"] if self.lost else []
        found += [f"{counted(self.deadline_misses, 'deadline')} missed"] if self.deadline_misses else []
        return "; ".join(found) or "it fits"


def forecast_view(
    report: ForecastReport | None,
    made_s: float | None,
    problem: str,
    schedules: Iterable[Schedule],
    limits: Limits,
    *,
    is_pending: bool,
) -> Forecast:
    """Return what there is to see of a forecast, or that there is none yet."""
    if report is None:
        return Forecast(is_pending, problem, made_s)
    begin_s, until_s = time_of(report.begin) or 0.0, time_of(report.until) or 0.0
    span_s = max(1.0, until_s - begin_s)
    lost = sum(map(_lost, report.by_schedule.values()))
    return Forecast(
        is_pending=is_pending,
        problem=problem,
        made_s=made_s,
        begin_s=begin_s,
        until_s=until_s,
        workers=report.workers,
        schedules=report.schedules,
        runs=report.runs,
        utilisation=report.utilisation,
        wait_s=report.wait_s,
        long_waits=report.long_waits,
        lost=lost,
        deadline_misses=report.deadline_misses,
        assumed_s=report.assumed_s,
        without_history=report.without_history[:20],
        hours=[_hour(each, report.workers) for each in report.hours],
        pools=list(_pools(report, schedules, limits, span_s)),
        worst=_worst(report),
        worst_minutes=report.worst_minutes,
        advice=report.advice,
    )


def first_hour(forecast: Forecast) -> datetime:
    """Return the first hour of a forecast that there is."""
    return datetime.fromtimestamp(forecast.begin_s or 0.0, UTC)


def _hour(hour: _Hour, workers: int) -> HourLoad:
    # A retry may keep a worker idle for a moment even then.
    is_full = hour.queued_s > 0 and hour.busy_s >= _FULL * workers * 3600
    return HourLoad(time_of(hour.begin) or 0.0, round(hour.busy_s / 3600, 3), hour.due, hour.deepest, is_full)


def _pools(report: ForecastReport, schedules: Iterable[Schedule], limits: Limits, span_s: float) -> Iterable[PoolLoad]:
    members: dict[str, list[str]] = {pool: [] for pool in limits.pools}
    for schedule in schedules:
        if schedule.pool in members:
            members[schedule.pool].append(schedule.id)
    for pool, names in members.items():
        busy_s = sum(report.by_schedule[name].busy_s for name in names if name in report.by_schedule)
        yield PoolLoad(pool, limits.pools[pool], round(busy_s / span_s, 3), len(names))


def _worst(report: ForecastReport) -> list[Suffering]:
    found = [
        Suffering(name, each.runs, each.wait_s, _lost(each), each.deadline_misses)
        for name, each in report.by_schedule.items()
    ]
    bad = [each for each in found if (each.deadline_misses, each.lost, each.wait_s.max) > (0, 0, 1.0)]
    return sorted(bad, key=lambda each: (-each.deadline_misses, -each.lost, -each.wait_s.max, each.schedule_id))[
        :_WORST
    ]


def _lost(figures: _Figures) -> int:
    skipped, missed = sum(figures.skipped.values()), sum(figures.missed.values())
    return skipped + missed + figures.cancelled.get("start_deadline", 0)
