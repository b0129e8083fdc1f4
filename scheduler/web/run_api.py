"""Runs as JSON: a list with filters, one run, its tasks, its output; a past state; and what may be done with a run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .api import answer
from .desk import desk_of, user_of
from .past import PastState
from .problems import Problem
from .run_changes import Done, answer_run, cancel_run, rerun_run, retry_run
from .run_output import Log
from .run_requests import (
    TASK,
    TEXT_CHARS,
    at_of,
    filters_of,
    in_thread,
    look_at_run,
    number_of,
    read_log,
    row_of,
)
from .views.history import ROWS, RunPage, run_page
from .views.run import RunView, TaskView

__all__ = ["BODIES", "RESPONSES", "ROUTES"]

_OPEN = ("queued", "running", "parked")
_MOST_ROWS = 500
# The feed looks every 40 ms; what was recorded just now is there within this time.
_SEEN_WITHIN_S = 2.0

T = TypeVar("T")


class AnswerBody(msgspec.Struct):
    """What answers a question: `approve` or `reject`, and why."""

    answer: str = ""
    comment: str = ""


class RetryBody(msgspec.Struct):
    """What is to run again: `all`, or what `failed`; or a task, and what needs it."""

    what: str = "all"
    first: str = ""


class RerunBody(msgspec.Struct):
    """With the schedule and the DAG of `today`, or as they `was` then."""

    like: str = "today"


async def _runs(request: Request) -> Response:
    filters = filters_of(request)
    before, limit = number_of(request, "before", 1, 1 << 53), number_of(request, "limit", 1, _MOST_ROWS)
    return answer(request, run_page(desk_of(request).feed.index, filters, before, limit or ROWS))


async def _run(request: Request) -> Response:
    return answer(request, await look_at_run(request))


async def _tasks(request: Request) -> Response:
    return answer(request, (await look_at_run(request)).tasks)


async def _log(request: Request) -> Response:
    row = row_of(request)
    attempt = number_of(request, "attempt", 1, 1 << 31) or row.attempt
    is_over = row.status not in _OPEN or attempt != row.attempt
    return answer(request, await read_log(request, attempt, is_over=is_over))


async def _state(request: Request) -> Response:
    state = await at_of(request)
    if state is None:
        raise Problem(400, "Which moment?", "`at` is an ISO 8601 time, such as 2026-11-23T09:00")
    return answer(request, state)


async def _cancel(request: Request) -> Response:
    row, settings, by = row_of(request), desk_of(request).feed.settings, _by(request)
    return await _done(request, lambda: cancel_run(settings, row, by))


async def _retry(request: Request) -> Response:
    row, settings, by = row_of(request), desk_of(request).feed.settings, _by(request)
    body = await _body(request, RetryBody)
    if body.what not in ("all", "failed"):
        raise Problem(400, "Retry what?", "`what` is `all` or `failed`; `first` names a task")
    first, is_failed_only = body.first or None, body.what == "failed"
    return await _done(request, lambda: retry_run(settings, row, by, is_failed_only=is_failed_only, first=first))


async def _rerun(request: Request) -> Response:
    desk, row, by = desk_of(request), row_of(request), _by(request)
    body = await _body(request, RerunBody)
    if body.like not in ("today", "was"):
        raise Problem(400, "Like what?", "`like` is `today` or `was`")
    now, is_as_was = desk.now(), body.like == "was"
    return await _done(request, lambda: rerun_run(desk.feed.settings, desk.directory, row, now, by, as_was=is_as_was))


async def _approval(request: Request) -> Response:
    row, settings, by = row_of(request), desk_of(request).feed.settings, _by(request)
    task_id = str(request.path_params["task_id"])
    if not TASK.fullmatch(task_id):
        raise Problem(404, "No such task", "the run has no task of this id")
    body = await _body(request, AnswerBody)
    if body.answer not in ("approve", "reject"):
        raise Problem(400, "Yes or no?", "`answer` is `approve` or `reject`")
    is_approved, comment, now = body.answer == "approve", body.comment.strip(), desk_of(request).now()
    return await _done(request, lambda: answer_run(settings, row, task_id, comment, now, by, is_approved=is_approved))


async def _done(request: Request, change: Callable[[], Done]) -> Response:
    """Record a change in a thread, and answer once the pages know of it."""
    done = await in_thread(change)
    index, deadline = desk_of(request).feed.index, time.monotonic() + _SEEN_WITHIN_S
    while time.monotonic() < deadline:
        row = index.by_id.get(done.run_id)
        if row is not None and row.attempt >= done.attempt:
            break
        await asyncio.sleep(0.02)
    return answer(request, done)


async def _body(request: Request, kind: type[T]) -> T:
    body = await request.body()
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "The body cannot be read", str(error)[:TEXT_CHARS]) from None


def _by(request: Request) -> str:
    return f"{user_of(request).name}@dashboard"


ROUTES = [
    Route("/runs", _runs),
    Route("/runs/{run_id}", _run),
    Route("/runs/{run_id}/tasks", _tasks),
    Route("/runs/{run_id}/log", _log),
    Route("/state", _state),
    Route("/runs/{run_id}/cancel", _cancel, methods=["POST"]),
    Route("/runs/{run_id}/retry", _retry, methods=["POST"]),
    Route("/runs/{run_id}/rerun", _rerun, methods=["POST"]),
    Route("/runs/{run_id}/approvals/{task_id}", _approval, methods=["POST"]),
]
# What each of them answers with, and what those take that change something; by path below /api/v1.
RESPONSES: dict[str, type] = {
    "/runs": RunPage,
    "/runs/{run_id}": RunView,
    "/runs/{run_id}/tasks": list[TaskView],
    "/runs/{run_id}/log": Log,
    "/state": PastState,
    "/runs/{run_id}/cancel": Done,
    "/runs/{run_id}/retry": Done,
    "/runs/{run_id}/rerun": Done,
    "/runs/{run_id}/approvals/{task_id}": Done,
}
BODIES: dict[str, type] = {
    "/runs/{run_id}/retry": RetryBody,
    "/runs/{run_id}/rerun": RerunBody,
    "/runs/{run_id}/approvals/{task_id}": AnswerBody,
}
