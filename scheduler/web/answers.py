"""What the API tells beside what the pages show: lists in pages, and what a change has come to."""

from __future__ import annotations

from typing import Any

import msgspec

from .run_index import RunRow
from .views.run import TaskView
from .views.schedules import FaultRow, ScheduleRow

__all__ = ["Done", "EventList", "Me", "Plan", "RunList", "ScheduleList", "TaskList"]


class Done(msgspec.Struct, omit_defaults=True):
    """What was recorded, in a sentence; the run or backfill that it concerns, and where its page is."""

    message: str
    by: str
    run_id: str | None = None
    attempt: int | None = None
    backfill_id: str | None = None
    count: int | None = None
    location: str | None = None


class Plan(msgspec.Struct):
    """What a backfill would come to; `confirm` asks whether to do it. Nothing has been recorded."""

    schedule_id: str
    count: int
    first: str | None
    last: str | None
    estimate_s: float | None
    message: str
    confirm: str | None


class RunList(msgspec.Struct):
    """Some of the runs that were asked for, newest first. `count` and `counts`, by status, are of all of them.

    `counts` leave the filter by status aside.
    """

    items: list[RunRow]
    next_cursor: str | None
    count: int
    counts: dict[str, int]


class ScheduleList(msgspec.Struct):
    """Some of the schedules that were asked for; `count` are all of them.

    `tenants` are all that there are, `faults` those of the configuration as it stands in the files.
    """

    items: list[ScheduleRow]
    next_cursor: str | None
    count: int
    tenants: list[str]
    faults: list[FaultRow]


class TaskList(msgspec.Struct):
    """Tasks of an attempt, each before those that need it."""

    items: list[TaskView]
    next_cursor: str | None


class EventList(msgspec.Struct):
    """Events of the state log as they are recorded, oldest first. A page may have fewer than there is room for.

    `last_id` is the place behind the last of them, where a stream or, later, another page goes on.
    """

    items: list[dict[str, Any]]
    next_cursor: str | None
    last_id: str


class Me(msgspec.Struct):
    """Who asks: the name, and `viewer` or `operator`."""

    name: str
    role: str
