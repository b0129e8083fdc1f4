"""The page Forecast: what the schedules will do with the workers, and where it does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from scheduler.forecast_facts import ForecastFacts, ForecastFigures, HourFigures, PoolForecast, Waits
from scheduler.text import counted
from workers.events import time_of

__all__ = ["Forecast", "HourLoad", "PoolLoad", "Suffering", "forecast_view"]

_WORST = 12
_MAPS = 8
_FULL = 0.97


class HourLoad(msgspec.Struct):
    """An hour: how many workers (of a pool: slots) are busy on the average, how many fire, the longest queue.

    `is_full` where all are busy all the time. In a pool's queue is who waits while no slot is free.
    """

    begin_s: float
    busy: float
    due: int
    deepest: int
    is_full: bool


class PoolLoad(msgspec.Struct):
    """A pool: its slots, how many of them are busy on the average, and the schedules in it.

    The most loaded come first; only the first eight have `hours`.
    """

    pool: str
    slots: int
    busy: float
    schedules: int
    hours: list[HourLoad]


class Suffering(msgspec.Struct):
    """A schedule that fares badly: its runs and their waits, what never ran, the deadlines it misses."""

    schedule_id: str
    runs: int
    wait_s: Waits
    lost: int
    deadline_misses: int


class Forecast(ForecastFigures, kw_only=True):
    """The forecast, and when it was made. Without `begin_s` it is being worked out, or there has been none.

    `problem` says why there is none of the files as they are.
    """

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


def forecast_view(report: ForecastFacts | None, made_s: float | None, problem: str, *, is_pending: bool) -> Forecast:
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
        pools=_pools(report.pools, max(1.0, until_s - begin_s)),
        worst=_worst(report),
    )


def first_hour(forecast: Forecast) -> datetime:
    """Return the first hour of a forecast that there is."""
    return datetime.fromtimestamp(forecast.begin_s or 0.0, UTC)


def _hour(hour: HourFigures, workers: int) -> HourLoad:
    # A retry may keep a worker idle for a moment even then.
    is_full = hour.busy_s >= _FULL * workers * 3600
    return HourLoad(time_of(hour.begin) or 0.0, round(hour.busy_s / 3600, 3), hour.due, hour.deepest, is_full)


def _pools(pools: Sequence[PoolForecast], span_s: float) -> list[PoolLoad]:
    busy_s = {each.pool: sum(hour.busy_s for hour in each.hours) for each in pools}
    by_load = sorted(pools, key=lambda each: (-busy_s[each.pool] / each.slots, each.pool))
    return [
        PoolLoad(
            each.pool, each.slots, round(busy_s[each.pool] / span_s, 3), each.schedules,
            [_hour(hour, each.slots) for hour in each.hours] if number < _MAPS else [],
        )
        for number, each in enumerate(by_load)
    ]  # fmt: skip


def _worst(report: ForecastFacts) -> list[Suffering]:
    found = [
        Suffering(name, each.runs, each.wait_s, each.lost, each.deadline_misses)
        for name, each in report.by_schedule.items()
    ]
    bad = [each for each in found if (each.deadline_misses, each.lost, each.wait_s.max) > (0, 0, 1.0)]
    return sorted(bad, key=lambda each: (-each.deadline_misses, -each.lost, -each.wait_s.max, each.schedule_id))[
        :_WORST
    ]
