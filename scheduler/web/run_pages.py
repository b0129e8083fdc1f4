"""The pages of runs: one run, and every run that there was."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from workers.terminal import clean

from . import draw_run
from .desk import desk_of
from .moments import local
from .pages import render
from .run_requests import at_of, filters_of, in_thread, log_text, look_at_run, number_of, read_log
from .views.history import KINDS, STATUSES, run_page
from .views.run import TaskView

__all__ = ["ROUTES"]

_GOOD = ("success", "skipped", "kept")
_VALUE_CHARS = 2000
_MOST_ROWS = 500
# What the form of the page History has, in its order.
_FIELDS = ("q", "schedule", "tenant", "status", "kind", "since", "until")


async def _run(request: Request) -> Response:
    view = await look_at_run(request)
    is_over = not view.is_open or view.attempt != view.attempts[-1].attempt
    log = await read_log(request, view.attempt, is_over=is_over)
    query = request.query_params
    address = {"attempt": str(view.attempt), **({"task": log.task_id} if log.task_id else {})}
    return render(
        request,
        "run.html",
        {
            "run": view,
            "tasks": _shown(view.tasks),
            "log": log,
            "find": query.get("find", "").strip(),
            "is_part": bool(query.get("find", "").strip() or query.get("before")),
            "whole_s": max((task.end_s or 0.0 for task in view.tasks), default=0.0) or 1.0,
            "log_query": urlencode(address),
            "graph": draw_run.graph,
            "bar": draw_run.bar,
            "most_tasks": draw_run.MOST_TASKS,
            "text": _text,
            "clock": _clock,
            "now_s": desk_of(request).now().timestamp(),
        },
    )


async def _log_text(request: Request) -> Response:
    return await log_text(request)


async def _history(request: Request) -> Response:
    index, query = desk_of(request).feed.index, request.query_params
    filters, before = filters_of(request), number_of(request, "before", 1, 1 << 53)
    if filters.q and set(query) == {"q"}:
        if filters.q in index.by_id:
            return RedirectResponse(f"/runs/{filters.q}", 303)
        if filters.q in index.of_schedule:
            return RedirectResponse(f"/schedules/{filters.q}", 303)
    kept = {name: query[name] for name in _FIELDS if query.get(name)}
    past, at = desk_of(request).past, await at_of(request)
    return render(
        request,
        "history.html",
        {
            "page": run_page(index, filters, before),
            "filters": filters,
            "given": {name: query.get(name, "") for name in _FIELDS},
            "before": before,
            "link": lambda **changes: _link(kept, changes),
            "statuses": STATUSES,
            "kinds": KINDS,
            "tenants": sorted(index.tenants),
            "at": at,
            "first_s": await in_thread(past.first_s),
            "now_s": desk_of(request).now().timestamp(),
            "is_caught_up": desk_of(request).feed.is_caught_up,
            "local": _local,
        },
    )


def _shown(tasks: Sequence[TaskView]) -> Sequence[TaskView]:
    """Return the tasks that the page has room for, those that have not ended well among them, in their order."""
    if len(tasks) <= _MOST_ROWS:
        return tasks
    by_want = sorted(range(len(tasks)), key=lambda place: tasks[place].status in _GOOD)
    return [tasks[place] for place in sorted(by_want[:_MOST_ROWS])]


def _link(kept: Mapping[str, str], changes: Mapping[str, object]) -> str:
    """Return the address of this page with other values of some of its fields."""
    values = {**kept, **{name: str(value) for name, value in changes.items()}}
    return f"/history?{urlencode({name: value for name, value in values.items() if value})}"


def _text(value: object) -> str:
    """Return a value of params or outputs as one line."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return clean(text[:_VALUE_CHARS])


def _clock(at_s: float) -> str:
    return f"{local(at_s):%H:%M:%S}"


def _local(at_s: float | None) -> str:
    """Return a moment as a field of the kind datetime-local takes it."""
    return "" if at_s is None else f"{local(at_s):%Y-%m-%dT%H:%M}"


ROUTES = [
    Route("/runs/{run_id}", _run),
    Route("/runs/{run_id}/log.txt", _log_text),
    Route("/history", _history),
]
