"""Rules about catch-up: a window that cuts nothing off, and one that lets in a flood."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice, pairwise
from typing import Protocol
from zoneinfo import ZoneInfo

from scheduler.schedule_model import Schedule
from workers.units import Duration

from .finding import Finding, about

__all__ = ["catchup_flood", "idle_window", "intervals"]

_LOOKED_AT = 50
_AHEAD = timedelta(days=5 * 366)
_MOST_RUNS = 100
_WEEK = timedelta(days=7)
_STEPS_S = (86400, 3600, 600, 60, 10, 1)


class _Fires(Protocol):
    """What a schedule fires by; equal for schedules that write the same."""

    def between(self, since: datetime, until: datetime) -> Iterator[datetime]: ...
    def __hash__(self) -> int: ...


def intervals(schedule: Schedule, now: datetime) -> Sequence[timedelta]:
    """Return the times between the coming fire times, at most fifty."""
    return _intervals(schedule.fires, schedule.zone, now)


# Schedules share their expressions, and the days of one that is rare are slow to search.
@lru_cache(4096)
def _intervals(trigger: _Fires, zone: ZoneInfo, now: datetime) -> Sequence[timedelta]:
    fires = islice(trigger.between(now.astimezone(zone), now + _AHEAD), _LOOKED_AT + 1)
    return [after - before for before, after in pairwise(fire.astimezone(UTC) for fire in fires)]


def idle_window(schedule: Schedule, now: datetime) -> Iterator[Finding]:
    """Yield a finding for `catchup: latest` with a window that is never shorter than the interval.

    The latest fire time is never older than the interval that follows it, so such a window cuts nothing off.
    """
    window = schedule.catchup_window
    if schedule.catchup != "latest" or window is None:
        return
    first = schedule.fires.next(now.astimezone(schedule.zone))
    second = first and schedule.fires.next(first)
    if first is None or second is None or window < second.astimezone(UTC) - first.astimezone(UTC):
        return  # the plain case, told without fifty fire times
    longest = max(intervals(schedule, now))
    if window < longest:
        return
    message = f"`catchup_window: {window}` cuts nothing off: the latest fire time is never older than {_text(longest)}"
    half = longest / 2
    shorter = next((half // timedelta(seconds=step) * step for step in _STEPS_S if half >= timedelta(seconds=step)), 0)
    write = {"catchup_window": str(Duration(seconds=shorter))} if shorter else {}
    yield about(schedule, ("catchup_window",), "idle-window", message, "or shorter; or leave it out", write)


def catchup_flood(schedule: Schedule, now: datetime) -> Iterator[Finding]:
    """Yield a finding for `catchup: all` that would run more than a hundred fire times after an outage.

    Without a window, an outage of a week is looked at.
    """
    if schedule.catchup != "all":
        return
    if schedule.catchup_max is not None:  # it bounds them
        return
    window = schedule.catchup_window
    length = window or _WEEK
    fires = list(islice(schedule.fires.between(now.astimezone(schedule.zone), now + length), _MOST_RUNS + 1))
    if len(fires) <= _MOST_RUNS:
        return
    span = fires[-1].astimezone(UTC) - fires[0].astimezone(UTC)
    shorter = next(span // timedelta(seconds=step) * step for step in _STEPS_S if span >= timedelta(seconds=step))
    held = f"`catchup_window: {window}` holds" if window else "without `catchup_window`, an outage of a week leaves"
    message = f"{held} more than {_MOST_RUNS} fire times, and `catchup: all` runs them all"
    mend = "so many are enough to be late by; or `catchup: latest`"
    at = ("catchup_window",) if window else ("catchup",)
    yield about(schedule, at, "catchup-flood", message, mend, {"catchup_window": str(Duration(seconds=shorter))})


def _text(length: timedelta) -> str:
    return str(Duration(seconds=length.total_seconds()))
