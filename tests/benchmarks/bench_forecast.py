"""The forecast of a week: a mix of schedules as people have them, and one that fires all the time."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from scheduler.durations import Durations
from scheduler.forecast import Plan, drawn_from, simulate
from scheduler.schedule_model import Schedule

from .measure import Bench, Row, Sample, Target
from .processes import in_child

__all__ = ["forecast"]

_MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
_ZONES = ("UTC", "UTC", "Europe/Paris", "America/New_York")
_OVERLAPS = ("skip", "queue", "allow")


class _Played(NamedTuple):
    """How long it took, and how many runs were asked for."""

    seconds: float
    runs: int


def forecast(bench: Bench) -> list[Row]:
    """A week of 1,000 schedules: 5 % every 5 minutes, 45 % hourly, the rest daily; and all of them every 5 minutes."""
    count, days = bench.of(1000, 100), bench.of(7, 1)
    found = bench.race({"mix": lambda: in_child(_play, count, days, True)})["mix"]
    hard = in_child(_play, bench.of(1000, 100), bench.of(7, 1), False)
    what = f"forecast {count:,} schedules, {days} days, {found[0].runs:,} runs"
    each = f"the same with all every 5 minutes, {hard.runs:,} runs: a run"
    return [
        Row("forecast", what, Sample.of("s", (each.seconds for each in found)), target=Target("value", "<=", 10.0)),
        Row("forecast", each, Sample.of("us", [1e6 * hard.seconds / hard.runs])),
    ]


def _play(count: int, days: int, is_mix: bool) -> _Played:
    schedules = [
        Schedule(
            f"s{n:04d}", _cron(n) if is_mix else "*/5 * * * *", "dags/x.yaml", timezone=_ZONES[n % 4],
            overlap=_OVERLAPS[n % 3],
        )
        for n in range(count)
    ]  # fmt: skip
    length_s = 2.0 if is_mix else 0.5
    known = {schedule.id: Durations(100, length_s, 3 * length_s, 6 * length_s) for schedule in schedules}
    plan = Plan(schedules, _MONDAY, _MONDAY + timedelta(days=days), workers=3 if is_mix else 12)
    began = time.perf_counter()
    outcome = simulate(plan, drawn_from(known, 60.0))
    return _Played(time.perf_counter() - began, outcome.runs)


def _cron(number: int) -> str:
    if number % 20 == 0:
        return "*/5 * * * *"
    return f"{number % 60} * * * *" if number % 20 < 10 else f"{number % 60} {number // 60 % 24} * * *"
