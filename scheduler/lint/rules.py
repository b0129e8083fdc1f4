"""All rules of lint, and what they find in some schedules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from scheduler.durations import Durations
from scheduler.expressions import Expression, clock_expressions
from scheduler.schedule_model import Schedule

from .clock import clock_change
from .crowd import duplicate, herd
from .dates import either_day, never_fires_again, short_month
from .finding import Finding, Slip, about_expression
from .lengths import certain_overlap, short_limits
from .policies import catchup_flood, idle_window
from .steps import uneven_step

__all__ = ["RULES", "find"]

RULES = (
    "never-fires",
    "short-month",
    "either-day",
    "uneven-step",
    "clock-change",
    "herd",
    "duplicate",
    "idle-window",
    "catchup-flood",
    "short-timeout",
    "certain-overlap",
)


def find(
    schedules: Sequence[Schedule], now: datetime, durations: Mapping[str, Durations], max_parallel: int
) -> Iterator[Finding]:
    """Yield what the rules find in the schedules that are enabled, as seen from `now`; pure.

    `durations` are those of the log by schedule; the rules that need them say nothing of a schedule without.
    """
    enabled = [schedule for schedule in schedules if schedule.enabled]
    for schedule in enabled:
        for index, expression in clock_expressions(schedule):
            for slip in _slips(expression):
                yield about_expression(schedule, index, slip)
        yield from never_fires_again(schedule, now)
        yield from clock_change(schedule, now)
        yield from idle_window(schedule, now)
        yield from catchup_flood(schedule, now)
        taken = durations.get(schedule.id)
        if taken is not None:
            yield from short_limits(schedule, taken)
            yield from certain_overlap(schedule, taken, now)
    yield from herd(enabled, now, max_parallel)
    yield from duplicate(enabled)


def _slips(expression: Expression) -> Iterator[Slip]:
    for rule in (short_month, either_day, uneven_step):
        yield from rule(expression)
