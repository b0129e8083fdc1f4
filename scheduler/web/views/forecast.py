"""The page Forecast: what the schedules will do with the workers, and where it does not fit."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from scheduler.forecast_facts import ForecastFacts, ForecastFigures, HourFigures, Waits
from scheduler.limits import Limits
from scheduler.schedule_model import Schedule
from scheduler.text import counted
from workers.events import time_of

__all__ = ["Forecast", "HourLoad", "PoolLoad", "Suffering", "forecast_view"]

_WORST = 12
_FULL = 0.97


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


class Forecast(ForecastFigures, kw_only=True):
    """The forecast. Without `begin_s` it is being worked out, or `problem` says why it cannot be."""

    is_pending: bool
    problem: str
    made_s: float | None
    begin_s: float | None = None
    until_s: float | None = None
    lost: int = 0
    hours: list[HourLoad] = msgspec.field(default_factory=list)
    pools: list[PoolLoad] = msgspec.field(default_factory=list)
    worst: list[Suffering] = msgspec.field(default_factory=list)

    @property
    def sentence(self) -> str:
        """What it comes to."""
        found = [f"{counted(self.long_waits, 'run')} wait more than a minute"] if self.long_waits else []
        found += [f"{counted(self.lost, 'fire time')} without a run"] if self.lost else []
        found += [f"{counted(self.deadline_misses, 'deadline')} missed"] if self.deadline_misses else []
        return "; ".join(found) or "it fits"


def forecast_view(
    report: ForecastFacts | None,
    made_s: float | None,
    problem: str,
    schedules: Iterable[Schedule],
    limits: Limits,
    *,
    is_pending: bool,
) -> Forecast:
    """Return what there is to see of a forecast, or that there is none yet."""
    if report is None:
        return Forecast(is_pending=is_pending, problem=problem, made_s=made_s)
    begin_s, until_s = time_of(report.begin) or 0.0, time_of(report.until) or 0.0
    figures = {name: getattr(report, name) for name in ForecastFigures.__struct_fields__}
    return Forecast(
        **{**figures, "without_history": report.without_history[:20]},
        is_pending=is_pending,
        problem=problem,
        made_s=made_s,
        begin_s=begin_s,
        until_s=until_s,
        lost=sum(each.lost for each in report.by_schedule.values()),
        hours=[_hour(each, report.workers) for each in report.hours],
        pools=list(_pools(report, schedules, limits, max(1.0, until_s - begin_s))),
        worst=_worst(report),
    )


def first_hour(forecast: Forecast) -> datetime:
    """Return the first hour of a forecast that there is."""
    return datetime.fromtimestamp(forecast.begin_s or 0.0, UTC)


def _hour(hour: HourFigures, workers: int) -> HourLoad:
    # A retry may keep a worker idle for a moment even then.
    is_full = hour.queued_s > 0 and hour.busy_s >= _FULL * workers * 3600
    return HourLoad(time_of(hour.begin) or 0.0, round(hour.busy_s / 3600, 3), hour.due, hour.deepest, is_full)


def _pools(report: ForecastFacts, schedules: Iterable[Schedule], limits: Limits, span_s: float) -> Iterable[PoolLoad]:
    members: dict[str, list[str]] = {pool: [] for pool in limits.pools}
    for schedule in schedules:
        if schedule.pool in members:
            members[schedule.pool].append(schedule.id)
    for pool, names in members.items():
        busy_s = sum(report.by_schedule[name].busy_s for name in names if name in report.by_schedule)
        yield PoolLoad(pool, limits.pools[pool], round(busy_s / span_s, 3), len(names))


def _worst(report: ForecastFacts) -> list[Suffering]:
    found = [
        Suffering(name, each.runs, each.wait_s, each.lost, each.deadline_misses)
        for name, each in report.by_schedule.items()
    ]
    bad = [each for each in found if (each.deadline_misses, each.lost, each.wait_s.max) > (0, 0, 1.0)]
    return sorted(bad, key=lambda each: (-each.deadline_misses, -each.lost, -each.wait_s.max, each.schedule_id))[
        :_WORST
    ]
