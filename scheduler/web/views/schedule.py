"""The page of one schedule: its runs by task and by day, how long they took, what did not run, what is to come."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from scheduler.ahead import FireAhead, fires_ahead
from scheduler.pauses import Pauses
from scheduler.schedule_model import Schedule, zone_of
from scheduler.web.book import Book, entry_text
from scheduler.web.feed import Feed
from scheduler.web.fire_times import UNREADABLE
from scheduler.web.incidents import NotRun
from scheduler.web.period_counts import Day, days_of
from scheduler.web.run_index import RunRow
from scheduler.web.task_grid import GridRun, TaskGrid
from workers.dag import Dag
from workers.events import time_of

from .figures import quantile
from .schedules import ScheduleRow, row_of

__all__ = [
    "Ahead",
    "BackfillRow",
    "Field",
    "FileSide",
    "Point",
    "ScheduleView",
    "Series",
    "file_side",
    "grid_of",
    "schedule_view",
]

GRID_RUNS = 30
_SERIES_RUNS = 200
_AHEAD = 10
_MOST_TASKS = 80


class Field(msgspec.Struct):
    """A parameter of its DAG as a form asks for it: `kind` is `text`, `number`, `truth` or `json`."""

    name: str
    kind: str
    value: str


class FileSide(msgspec.Struct):
    """What the files say: its entry, its DAG's tasks and parameters. `problem` says why there is none."""

    problem: str = ""
    description: str = ""
    file: str = ""
    line: int = 0
    text: str = ""
    tasks: list[str] = []
    fields: list[Field] = []


class Point(msgspec.Struct):
    """How long a run took, or how late it was. `at_s` is its fire time or, without one, when it was asked for."""

    run_id: str
    at_s: float
    value_s: float
    status: str


class Series(msgspec.Struct):
    """The last runs that have a value, oldest first, and its percentiles."""

    points: list[Point]
    p50_s: float | None
    p95_s: float | None


class Ahead(msgspec.Struct):
    """A fire time to come, as its zone writes it, and what is to be known of it."""

    at_s: float
    local: str
    remark: str | None


class BackfillRow(msgspec.Struct):
    """A backfill that is not done."""

    backfill_id: str
    by: str
    total: int
    left: int
    open: int
    ended: dict[str, int]


class ScheduleView(msgspec.Struct):
    """One schedule, and the first of its `task_count` tasks. `silence` says why no fire time is to come."""

    schedule: ScheduleRow
    file: FileSide
    tasks: list[str]
    task_count: int
    grid: list[GridRun]
    days: list[Day]
    duration: Series
    lateness: Series
    not_run: list[NotRun]
    ahead: list[Ahead]
    silence: str | None
    backfills: list[BackfillRow]
    is_caught_up: bool


def schedule_view(feed: Feed, name: str, now: datetime, side: FileSide, grid: list[GridRun]) -> ScheduleView:
    """Return what there is to see of a schedule that is on record."""
    rows = feed.index.of_schedule.get(name, [])
    schedule = _in_force(feed, name)
    ahead, silence = _ahead(schedule, now, feed.history.pauses)
    last = rows[-_SERIES_RUNS:]
    found = dict.fromkeys([*side.tasks, *(task for column in grid for task in column.tasks)])
    return ScheduleView(
        schedule=row_of(feed, now, name),
        file=side,
        tasks=list(found)[:_MOST_TASKS],
        task_count=len(found),
        grid=grid,
        days=days_of(feed.days, name, rows, now, _zone(schedule)),
        duration=_series((row, row.duration_s) for row in last),
        lateness=_series((row, row.late_s) for row in last),
        not_run=list(feed.incidents.not_run(name)),
        ahead=ahead,
        silence=silence,
        backfills=[
            BackfillRow(each.backfill_id, each.by, each.total, len(each.slots), len(each.open), each.ended)
            for each in feed.history.backfills.open.values()
            if each.schedule_id == name
        ],
        is_caught_up=feed.is_caught_up,
    )


def file_side(book: Book, schedule: Schedule | None, problem: str) -> FileSide:
    """Read what the files say of a schedule. For a thread."""
    if schedule is None:
        return FileSide(problem=problem)
    side = FileSide(description=schedule.description, file=schedule.file, line=schedule.line)
    try:
        side.text = entry_text(schedule)
    except OSError as error:
        side.problem = f"{schedule.file} cannot be read: {error.strerror}"
    dag = book.dag_of(schedule)
    if isinstance(dag, Dag):
        side.tasks = [task.id for task in dag.tasks]
        side.fields = [_field(name, value) for name, value in {**dag.params, **schedule.params}.items()]
    else:
        side.problem = str(dag.faults[0]) if dag.faults else f"its DAG {schedule.dag} is not there"
    return side


def grid_of(grid: TaskGrid, rows: Sequence[RunRow]) -> list[GridRun]:
    """Read the columns of the newest of these runs, oldest first. For a thread."""
    return grid.of(rows[-GRID_RUNS:])


def _field(name: str, value: Any) -> Field:
    if isinstance(value, str):
        return Field(name, "text", value)
    if isinstance(value, bool):
        return Field(name, "truth", json.dumps(value))
    kind = "number" if isinstance(value, int | float) else "json"
    return Field(name, kind, json.dumps(value, ensure_ascii=False))


def _in_force(feed: Feed, name: str) -> Schedule | None:
    with suppress(*UNREADABLE):
        return feed.fire_times.schedule(feed.history, name)
    return None


def _ahead(schedule: Schedule | None, now: datetime, pauses: Pauses) -> tuple[list[Ahead], str | None]:
    rows: Sequence[FireAhead] = []
    if schedule is not None:
        with suppress(*UNREADABLE):
            rows = fires_ahead([schedule], now, count=_AHEAD)
    clock = "%H:%M" if all(row.utc is None or row.utc[17:19] == "00" for row in rows) else "%H:%M:%S"
    found = [
        Ahead(time_of(row.utc) or 0.0, _local(schedule, row.fire_time, clock), _remark(schedule, row, pauses))
        for row in rows
        if schedule is not None and row.fire_time is not None
    ]
    silence = next((str(row.remark) for row in rows if row.utc is None), None)
    return found, silence if rows else "it is not in force"


def _remark(schedule: Schedule, row: FireAhead, pauses: Pauses) -> str | None:
    at = datetime.fromtimestamp(time_of(row.utc) or 0.0, schedule.zone)
    if pauses.is_paused(schedule.id, schedule.tenant, at, at):
        return "; ".join(filter(None, ("not run: it is paused", row.remark)))
    return row.remark


def _local(schedule: Schedule, fire_time: str, clock: str) -> str:
    local = datetime.fromisoformat(fire_time).astimezone(schedule.zone)
    return f"{local:%a %Y-%m-%d {clock} %Z}"


def _zone(schedule: Schedule | None) -> ZoneInfo:
    """Return the zone that a schedule's days are of; UTC where this machine does not know it."""
    with suppress(*UNREADABLE):
        if schedule is not None:
            return schedule.zone
    return zone_of("UTC")


def _series(values: Iterable[tuple[RunRow, float | None]]) -> Series:
    points = [
        Point(row.run_id, row.fire_s or row.asked_s or 0.0, value, row.status)
        for row, value in values
        if value is not None
    ]
    known = sorted(each.value_s for each in points)
    return Series(points, quantile(known, 50), quantile(known, 95))
