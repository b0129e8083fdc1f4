"""Runs as JSON: a list with filters, one run, its tasks, its output; a past state; and what may be done with a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from .answers import Done, RunList, TaskList
from .desk import by_of, desk_of
from .endpoints import Nothing
from .past import PastState
from .problems import Problem
from .queries import (
    AnswerBody,
    AtQuery,
    AttemptQuery,
    LogQuery,
    OutputQuery,
    RerunBody,
    RetryBody,
    RunsQuery,
    TasksQuery,
    cursor_of,
    key_of,
)
from .run_changes import answer_run, cancel_run, rerun_run, retry_run
from .run_index import OPEN
from .run_output import Log
from .run_requests import TASK, at_of, filters_of, in_thread, log_text, look_at_run, number_of, read_log, row_of
from .views.history import run_page
from .views.run import RunView

__all__ = [
    "answer_question", "ask_cancel", "ask_rerun", "ask_retry", "by_output", "list_runs", "list_tasks", "tell_log",
    "tell_log_text", "tell_run", "tell_state",
]  # fmt: skip


async def list_runs(request: Request, query: RunsQuery) -> RunList:
    """Return a page of the runs that are asked for, newest first."""
    index, key, before = desk_of(request).feed.index, key_of(query.cursor, tuple[str]), None
    if key is not None:
        # By its id: the numbers of runs are others after a start on a log whose oldest segments are gone.
        row = index.by_id.get(key[0])
        if row is None:
            raise Problem(410, "No such cursor", "nothing is on record any more of the run that it names")
        before = row.number
    page = run_page(index, filters_of(request), before, query.limit)
    following = None if page.next_before is None else cursor_of(page.runs[-1].run_id)
    return RunList(page.runs, following, page.count, page.counts)


async def tell_run(request: Request, _query: AttemptQuery) -> RunView:
    """Return a run, in one of its attempts."""
    return await look_at_run(request)


async def list_tasks(request: Request, query: TasksQuery) -> TaskList:
    """Return the tasks of an attempt."""
    tasks, key, first = (await look_at_run(request)).tasks, key_of(query.cursor, tuple[str]), 0
    if key is not None:
        first = next((place for place, task in enumerate(tasks, 1) if task.task_id == key[0]), 0)
        if not first:
            raise Problem(410, "No such cursor", "the attempt has no such task")
    items = tasks[first : first + query.limit]
    return TaskList(items, cursor_of(items[-1].task_id) if first + query.limit < len(tasks) else None)


async def tell_log(request: Request, _query: LogQuery) -> Log:
    """Return lines of output."""
    row = row_of(request)
    attempt = number_of(request, "attempt", 1, 1 << 31) or row.attempt
    is_over = row.status not in OPEN or attempt != row.attempt
    return await read_log(request, attempt, is_over=is_over)


async def tell_log_text(request: Request, _query: OutputQuery) -> Response:
    """Return all of the output, as a file."""
    return await log_text(request)


def by_output(request: Request) -> object:
    """Return what stays as it is for as long as nothing is written to the output of an attempt. Raises Problem."""
    row = row_of(request)
    attempt = number_of(request, "attempt", 1, 1 << 31) or row.attempt
    directory = Path(desk_of(request).feed.settings.run_logs_dir) / row.run_id / str(attempt)
    with suppress(OSError), os.scandir(directory) as entries:
        return row.status, sorted((each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in entries)
    return row.status


async def tell_state(request: Request, _query: AtQuery) -> PastState:
    """Return the state at a past moment."""
    state = await at_of(request)
    assert state is not None
    return state


async def ask_cancel(request: Request, _body: Nothing) -> Done:
    """Ask for the end of a run."""
    row, settings, by = row_of(request), desk_of(request).feed.settings, by_of(request)
    return await _done(request, lambda: cancel_run(settings, row, by))


async def ask_retry(request: Request, body: RetryBody) -> Done:
    """Ask for a further attempt."""
    row, settings, by = row_of(request), desk_of(request).feed.settings, by_of(request)
    first, is_failed_only = body.first or None, body.what == "failed"
    return await _done(request, lambda: retry_run(settings, row, by, is_failed_only=is_failed_only, first=first))


async def ask_rerun(request: Request, body: RerunBody) -> Done:
    """Ask for a new run like this one."""
    desk, row, by = desk_of(request), row_of(request), by_of(request)
    now, is_as_was = desk.now(), body.like == "was"
    return await _done(request, lambda: rerun_run(desk.feed.settings, desk.directory, row, now, by, as_was=is_as_was))


async def answer_question(request: Request, body: AnswerBody) -> Done:
    """Answer an approval that a run asks for."""
    row, settings, by = row_of(request), desk_of(request).feed.settings, by_of(request)
    task_id = str(request.path_params["task_id"])
    if not TASK.fullmatch(task_id):
        raise Problem(404, "No such task", "the run has no task of this id")
    is_approved, comment, now = body.answer == "approve", body.comment.strip(), desk_of(request).now()
    return await _done(request, lambda: answer_run(settings, row, task_id, comment, now, by, is_approved=is_approved))


async def _done(request: Request, change: Callable[[], Done]) -> Done:
    """Record a change in a thread, and return once the pages know of it."""
    done = await in_thread(change)
    await desk_of(request).feed.until_seen(done.run_id or "", done.attempt or 1)
    return done
