"""What the address of a request names: a run, an attempt, its output, filters, a past moment. Raises Problem."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from scheduler.text import span
from workers.errors import TickpoolError
from workers.ids import is_id, is_run_id

from .desk import desk_of
from .moments import local_time, read_moment_s
from .past import PastState
from .problems import Problem
from .run_index import OPEN, RunRow
from .run_lines import read_row
from .run_output import Log, LogShelf, text_of
from .views.figures import WINDOWS
from .views.history import KINDS, Filters
from .views.run import RunView, run_view, with_open

__all__ = [
    "TASK",
    "TEXT_CHARS",
    "at_of",
    "filters_of",
    "in_thread",
    "log_text",
    "look_at_run",
    "number_of",
    "read_log",
    "row_of",
    "task_of",
    "window_of",
]

TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}(\[[0-9]{1,4}\])?")
TEXT_CHARS = 200
_STATUS = re.compile(r"[a-z_]{1,32}")
_MOST_LINES = 2000

T = TypeVar("T")


def row_of(request: Request) -> RunRow:
    """Return the row of the run that an address names, once it is decoded. Raises Problem."""
    run_id = str(request.path_params["run_id"])
    feed = desk_of(request).feed
    row = feed.index.by_id.get(run_id) if is_run_id(run_id) else None
    if row is not None:
        return row
    if is_run_id(run_id) and not feed.is_caught_up:
        raise Problem(503, "History is still being read", f"run `{run_id}` is not among what has been read so far")
    raise Problem(404, "No such run", "nothing is on record of a run of this id")


async def look_at_run(request: Request) -> RunView:
    """Return the run that a request names, in the attempt that it names. Raises Problem."""
    desk, row = desk_of(request), row_of(request)
    attempt = number_of(request, "attempt", 1, 1 << 31)

    def look() -> RunView:
        record = read_row(desk.feed.settings, row)
        if record is None:
            raise Problem(410, "Its lines are gone", _last_known(row))
        if attempt is not None and attempt not in record.attempts:
            raise Problem(404, "No such attempt", f"it has {', '.join(map(str, record.attempts))}")
        return run_view(desk.feed.settings, record, row, desk.feed.index, desk.now(), attempt)

    return with_open(await in_thread(look), desk.feed.history, desk.now())


def _last_known(row: RunRow) -> str:
    """Say what there is still to tell of a run whose lines are not in the log any more."""
    where = f", pruned with the segment that began at seq {row.span.end.segment}" if row.span else ""
    schedule = f" of schedule {row.schedule_id}" if row.schedule_id else ""
    facts = [f"run {row.run_id}{schedule} was {row.status} in attempt {row.attempt}"]
    moments = (("asked for", row.asked_s), ("started", row.started_s), ("ended", row.ended_s))
    facts += [f"{word} {_local(at_s)}" for word, at_s in moments if at_s is not None]
    facts += [f"took {span(row.duration_s)}"] if row.duration_s is not None else []
    return f"its lines are no longer in the log{where}: {', '.join(facts)}"


def _local(at_s: float) -> str:
    return f"{local_time(at_s):%Y-%m-%d %H:%M:%S}"


async def read_log(request: Request, attempt: int, *, is_over: bool) -> Log:
    """Return the output that a request names of an attempt. Raises Problem."""
    row, settings = row_of(request), desk_of(request).feed.settings
    task = task_of(request)
    word = request.query_params.get("find", "").strip()[:TEXT_CHARS]
    shelf = _shelf(settings.run_logs_dir)
    if word:
        return await in_thread(lambda: shelf.find(row.run_id, attempt, task, word, is_over=is_over))
    after = number_of(request, "after", 0, 1 << 53) or 0
    before = number_of(request, "before", 1, 1 << 53)
    limit = number_of(request, "limit", 1, _MOST_LINES) or 500
    if before is not None:
        return await in_thread(lambda: shelf.before(row.run_id, attempt, task, before, limit=limit, is_over=is_over))
    return await in_thread(lambda: shelf.read(row.run_id, attempt, task, after=after, limit=limit, is_over=is_over))


def log_text(request: Request) -> Response:
    """Return the output that a request names, all of it, as a file. Raises Problem."""
    row, settings = row_of(request), desk_of(request).feed.settings
    attempt, task = number_of(request, "attempt", 1, 1 << 31) or row.attempt, task_of(request)
    is_over = row.status not in OPEN or attempt != row.attempt
    directory = Path(settings.run_logs_dir) / row.run_id / str(attempt)
    name = ".".join([row.run_id, *([task] if task else []), *([str(attempt)] if attempt > 1 else []), "log.txt"])
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    lines = text_of(directory, task, is_over=is_over)
    return StreamingResponse(lines, media_type="text/plain; charset=utf-8", headers=headers)


def window_of(request: Request) -> str:
    """Return the window that a request names. Raises Problem."""
    window = request.query_params.get("window", "24h")
    if window not in WINDOWS:
        raise Problem(400, "No such window", f"`window` is one of {', '.join(WINDOWS)}")
    return window


def task_of(request: Request) -> str | None:
    """Return the task that a request names; None of all of them. Raises Problem."""
    task = request.query_params.get("task", "")
    if task and not TASK.fullmatch(task):
        raise Problem(404, "No such task", "`task` is the id of a task, or of an item of one, such as `load[2]`")
    return task or None


def number_of(request: Request, name: str, least: int, most: int) -> int | None:
    """Return a whole number of the query; None where it is not there. Raises Problem."""
    text = request.query_params.get(name, "")
    if not text:
        return None
    if len(text) > 20 or not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
        raise Problem(400, "No such number", f"`{name}` is a whole number from {least} to {most}")
    return int(text)


def filters_of(request: Request) -> Filters:
    """Return the filters of the query. Raises Problem."""
    query = request.query_params
    kind, status = query.get("kind", ""), query.get("status", "")
    if kind and kind not in KINDS:
        raise Problem(400, "No such kind", f"`kind` is one of {', '.join(KINDS)}")
    if status and not _STATUS.fullmatch(status):
        raise Problem(400, "No such status", "`status` is how a run is or has ended, such as `failed`")
    for name in ("schedule", "tenant"):
        if query.get(name) and not is_id(query[name]):
            raise Problem(400, "No such name", f"`{name}` is an id")
    return Filters(
        q=query.get("q", "").strip()[:TEXT_CHARS],
        schedule=query.get("schedule", ""),
        tenant=query.get("tenant", ""),
        status=status,
        kind=kind,
        since_s=read_moment_s("since", query.get("since", "")),
        until_s=read_moment_s("until", query.get("until", "")),
    )


async def at_of(request: Request) -> PastState | None:
    """Return the state at the moment that a request names; None where it names none. Raises Problem."""
    at_s = read_moment_s("at", request.query_params.get("at", ""))
    desk = desk_of(request)
    if at_s is None:
        return None
    if at_s > desk.now().timestamp():
        raise Problem(404, "Not past yet", "`at` is a moment that has been")
    if not desk.feed.is_caught_up:
        raise Problem(503, "History is still being read", "what was then is not whole yet")
    return await in_thread(lambda: desk.past.state_at(at_s))


async def in_thread(act: Callable[[], T]) -> T:
    """Do what reads or writes files beside the loop. Raises Problem where a log cannot be read."""
    try:
        return await run_in_threadpool(act)
    except TickpoolError as error:
        raise Problem(503, "The log cannot be read", str(error)) from None


@lru_cache(4)
def _shelf(logs: str) -> LogShelf:
    return LogShelf(Path(logs))
