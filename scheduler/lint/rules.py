"""All rules of lint, and what they find in some schedules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import msgspec

from scheduler.durations import Durations
from scheduler.expressions import Expression, clock_expressions
from scheduler.schedule_model import Schedule

from .clock import clock_change
from .crowd import duplicate, herd
from .dates import always_closed, either_day, never_fires_again, short_month, stale_calendar
from .finding import Finding, Slip, about_expression
from .lengths import certain_overlap, short_limits
from .policies import catchup_flood, idle_window
from .steps import uneven_step

__all__ = ["RULES", "find"]

RULES = (
    "never-fires",
    "always-closed",
    "stale-calendar",
    "short-month",
    "either-day",
    "uneven-step",
    "clock-change",
    "herd",
    "duplicate",
    "idle-window",
    "catchup-flood",
    "short-timeout",
    "short-deadline",
    "certain-overlap",
)


def find(
    schedules: Sequence[Schedule], now: datetime, durations: Mapping[str, Durations], max_parallel: int
) -> Iterator[Finding]:
    """Yield what the rules find in the schedules that are enabled, as seen from `now`; pure.

    `durations` are those of the log by schedule; the rules that need them say nothing of a schedule without.
    """
    enabled = [schedule for schedule in schedules if schedule.enabled]
    for alike in _entries(enabled):
        for finding in _of_entry(alike[0], now):
            names = tuple(schedule.id for schedule in alike)
            yield msgspec.structs.replace(finding, schedule_id=finding.entry, schedules=names)
        for schedule in alike:
            taken = durations.get(schedule.id)
            if taken is not None:
                yield from short_limits(schedule, taken)
                yield from certain_overlap(schedule, taken, now)
    yield from herd(enabled, now, max_parallel)
    yield from duplicate(enabled)


def _entries(schedules: Sequence[Schedule]) -> list[list[Schedule]]:
    """Return the schedules by the entry of the file that they come from; a matrix makes several of one."""
    entries: dict[tuple[str, int, str, str], list[Schedule]] = {}
    for schedule in schedules:
        name = (schedule.matrix_of, "") if schedule.matrix_of else ("", schedule.id)
        entries.setdefault((schedule.file, schedule.line, *name), []).append(schedule)
    return list(entries.values())


def _of_entry(schedule: Schedule, now: datetime) -> Iterator[Finding]:
    """Yield what the rules find that look at one entry alone."""
    for index, expression in clock_expressions(schedule):
        for slip in _slips(expression):
            yield about_expression(schedule, index, slip)
    yield from never_fires_again(schedule, now)
    yield from always_closed(schedule, now)
    yield from stale_calendar(schedule, now)
    yield from clock_change(schedule, now)
    yield from idle_window(schedule, now)
    yield from catchup_flood(schedule, now)


def _slips(expression: Expression) -> Iterator[Slip]:
    for rule in (short_month, either_day, uneven_step):
        yield from rule(expression)
