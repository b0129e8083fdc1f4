"""The fire times ahead of each schedule, as rows: what `next` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice

import msgspec
from msgspec.structs import replace

from .daylight import remark_on
from .schedule_model import Schedule
from .triggers import Never

__all__ = ["FireAhead", "fires_ahead"]


class FireAhead(msgspec.Struct):
    """A fire time to come, in its zone and in UTC; `cron` is as it is written, None where there is none.

    Of a schedule without any fire time the times are None, and `remark` says why.
    """

    schedule_id: str
    fire_time: str | None
    utc: str | None
    in_s: float | None
    remark: str | None
    timezone: str
    cron: str | list[str] | None
    explained: str


def fires_ahead(
    schedules: Sequence[Schedule], now: datetime, *, count: int | None, until: datetime | None = None
) -> list[FireAhead]:
    """Return the fire times after `now`, soonest first: of each schedule at most `count`, and none after `until`.

    A schedule without any has one row, at the end, that says why: its times are None.
    """
    rows = [row for schedule in schedules for row in _rows(schedule, now, count, until)]
    return sorted(rows, key=lambda row: (row.utc is None, row.utc or row.schedule_id))


def _rows(schedule: Schedule, now: datetime, count: int | None, until: datetime | None) -> Iterator[FireAhead]:
    row = FireAhead(
        schedule_id=schedule.id,
        fire_time=None,
        utc=None,
        in_s=None,
        remark=None,
        timezone=schedule.timezone,
        cron=schedule.cron,
        explained=schedule.fires.explain(),
    )
    is_silent = True
    for fire in islice(_fires(schedule, now, until), count):
        is_silent = False
        utc = fire.astimezone(UTC)
        closed = schedule.closed(utc)
        remarks = [f"not run: {closed}"] if closed is not None else []
        if moved := schedule.moved_from(utc):
            remarks.append(f"in place of {' and '.join(f'{day:%a %Y-%m-%d}' for day in moved)}, a holiday")
        remarks += filter(None, [remark_on(schedule, fire)])
        yield replace(
            row,
            fire_time=fire.isoformat(),
            utc=utc.isoformat(),
            in_s=round((utc - now).total_seconds(), 1),
            remark="; ".join(remarks) or None,
        )
    if is_silent and count != 0:
        yield replace(row, remark=_silence(schedule, now))


def _fires(schedule: Schedule, now: datetime, until: datetime | None) -> Iterator[datetime]:
    if not schedule.enabled:
        return
    moment: datetime | None = now.astimezone(schedule.zone)
    while moment is not None:
        moment = schedule.fires.next(moment)
        if moment is not None:
            if until is not None and moment.astimezone(UTC) > until:
                return
            yield moment


def _silence(schedule: Schedule, now: datetime) -> str:
    """Say why a schedule has no fire time in what was asked for."""
    if not schedule.enabled:
        return "disabled: it does not fire"
    if isinstance(schedule.fires, Never):
        return f"no fire times: it runs {schedule.fires.explain()}"
    following = schedule.fires.next(now.astimezone(schedule.zone))
    return "it never fires again" if following is None else f"fires next at {following.isoformat()}"
