"""What a request asks to see of schedules, looked up: for the pages and for the API alike."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from scheduler.dag_files import stamp
from scheduler.schedule_model import Schedule
from workers.errors import did_you_mean

from .desk import Desk, desk_of
from .problems import Problem
from .views.schedule import FileSide, ScheduleView, file_side, grid_of, schedule_view
from .views.schedules import SORTS, STATUSES, Wanted

__all__ = ["look_at_schedule", "wanted_of"]

_Q_CHARS = 200


def wanted_of(request: Request) -> Wanted:
    """Return what a request asks for in its query. Raises Problem."""
    query = request.query_params
    status, sort = query.get("status", ""), query.get("sort", "") or SORTS[0]
    if status and status not in STATUSES:
        raise Problem(400, "No such status", f"`status` is one of {', '.join(STATUSES)}")
    if sort not in SORTS:
        raise Problem(400, "No such order", f"`sort` is one of {', '.join(SORTS)}")
    q, tenant, tag = (query.get(name, "")[:_Q_CHARS] for name in ("q", "tenant", "tag"))
    return Wanted(q, tenant, tag.strip(), status, sort)


async def look_at_schedule(request: Request) -> ScheduleView:
    """Return all that there is to see of the schedule in the path. Raises Problem."""
    desk, name = desk_of(request), str(request.path_params["schedule_id"])
    if name not in desk.feed.history.schedules:
        desk.roster.refresh(desk.feed)
        raise Problem(404, "No such schedule", f"no schedule `{name[:128]}`{did_you_mean(name, desk.roster.names)}")
    side = await _side(desk, name)
    rows = list(desk.feed.index.of_schedule.get(name, ())[-40:])
    grid = await run_in_threadpool(grid_of, desk.grid, rows)
    return schedule_view(desk.feed, name, desk.now(), side, grid)


async def _side(desk: Desk, name: str) -> FileSide:
    book = desk.book
    configuration = await book.soon()
    schedule = book.schedule(name)
    if schedule is not None and configuration is not None and _has_changed(schedule, configuration.signature):
        await book.fresh()
        schedule = book.schedule(name)
    problem = "The files are being read." if configuration is None else "It is in no file that can be read."
    if schedule is None and configuration is not None and configuration.faults:
        problem = f"{problem} {configuration.faults[0]}"
    return await run_in_threadpool(file_side, book, schedule, book.problem or problem)


def _has_changed(schedule: Schedule, signature: tuple[object, ...]) -> bool:
    return stamp(schedule.file) not in signature
