"""Catch-up: which of the fire times that have come are run, and why the others are missed. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import datetime

from .schedule_model import ON_TIME, Schedule

__all__ = ["catch_up"]

_Group = tuple[Sequence[datetime], str | None]


def catch_up(schedule: Schedule, fires: Sequence[datetime], now: datetime) -> tuple[Sequence[datetime], list[_Group]]:
    """Split fire times (ascending, not empty) into those to run and groups of missed ones with their reason.

    The reason is None for those that are missed because they are late: whoever asks knows why.
    """
    on_time = fires[-1:] if now - fires[-1] < ON_TIME else []
    late = fires[: len(fires) - len(on_time)]
    if schedule.catchup == "none":
        return on_time, [(late, None)]
    too_old, late = _part(late, bisect_left(late, now - schedule.catchup_window) if schedule.catchup_window else 0)
    hopeless, late = _part(late, bisect_right(late, now - schedule.start_deadline) if schedule.start_deadline else 0)
    missed: list[_Group] = [(too_old, "catchup_window"), (hopeless, "start_deadline")]
    if schedule.catchup == "all":
        beyond, late = _part(late, max(0, len(late) - schedule.catchup_max) if schedule.catchup_max else 0)
        return [*late, *on_time], [*missed, (beyond, "catchup_max")]
    newest = on_time or late[-1:]
    superseded = late if on_time else late[:-1]
    return newest, [*missed, (superseded, "superseded")]


def _part(fires: Sequence[datetime], place: int) -> tuple[Sequence[datetime], Sequence[datetime]]:
    return fires[:place], fires[place:]
