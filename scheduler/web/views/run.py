"""The page of one run: why it ran, its attempts, its tasks, what it asks, and what may be done with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from scheduler.history import History
from scheduler.open_runs import Run
from scheduler.run_look import look
from scheduler.run_record import RunRecord
from scheduler.web.run_index import RunIndex, RunRow
from workers.events import time_of
from workers.ids import base_of, child_id
from workers.settings import Settings

__all__ = ["ACTIONS", "AttemptView", "RunQuestion", "RunView", "TaskView", "run_view", "with_open"]

# What may be done with a run, in the order in which the page has it.
ACTIONS = ("cancel", "retry", "retry_failed", "rerun")
_OPEN = ("queued", "running", "parked")
_GOOD = ("success", "skipped", "kept")


class AttemptView(msgspec.Struct):
    """An attempt of a run; moments as the log has them, lengths in seconds."""

    attempt: int
    status: str
    asked_at: str | None
    started_at: str | None
    ended_at: str | None
    waited_s: float | None
    duration_s: float | None
    reason: str | None
    worker_pid: int | None
    dag_version: str | None

    @property
    def started_s(self) -> float | None:
        """When it started, in seconds since the epoch."""
        return time_of(self.started_at)


class TaskView(msgspec.Struct):
    """A task, or one instance of a task with `foreach`. `after_s` is when it began, from the start of its attempt."""

    task_id: str
    depth: int
    needs: list[str]
    status: str
    tries: int
    exit_code: int | None
    signal: int | None
    after_s: float | None
    duration_s: float | None
    cpu_s: float | None
    max_rss_kib: int | None
    outputs: dict[str, Any]
    reason: str | None
    is_hook: bool
    base_id: str = ""
    child_run: str | None = None

    @property
    def is_instance(self) -> bool:
        """Say whether it is one item of a task with `foreach`."""
        return self.base_id != self.task_id

    @property
    def max_rss_bytes(self) -> int | None:
        """The most memory that it had."""
        return None if self.max_rss_kib is None else self.max_rss_kib * 1024


class RunQuestion(msgspec.Struct):
    """An approval that the run asks for."""

    task_id: str
    message: str
    asked_s: float | None
    until_s: float | None
    default: str | None


class RunView(msgspec.Struct):
    """A run. The tasks are those of the attempt that is shown; `actions` are those of ACTIONS that are open to it."""

    run_id: str
    number: int
    kind: str
    status: str
    attempt: int
    why: str
    schedule_id: str | None
    fire_time: str | None
    by: str | None
    dag: str | None
    dag_version: str | None
    tenant: str
    params: dict[str, Any]
    reason: str | None
    waited_s: float | None
    duration_s: float | None
    attempts: list[AttemptView]
    tasks: list[TaskView]
    is_open: bool
    cancelled_by: str | None
    parent: str | None
    children: list[str]
    rerun_of: str | None
    questions: list[RunQuestion]
    actions: list[str]

    @property
    def shown(self) -> AttemptView:
        """The attempt that is shown."""
        return next(each for each in self.attempts if each.attempt == self.attempt)

    @property
    def fire_s(self) -> float | None:
        """The fire time, in seconds since the epoch."""
        return time_of(self.fire_time)


def run_view(
    settings: Settings, record: RunRecord, row: RunRow, index: RunIndex, now: datetime, attempt: int | None = None
) -> RunView:
    """Return what there is to see of a run; what the open run asks is added by `with_open`."""
    facts = look(settings, record, now, attempt)
    request = record.request
    parent = request.get("parent")
    view = msgspec.convert(
        {
            **facts,
            "number": row.number,
            "kind": row.kind,
            "is_open": row.status in _OPEN,
            "cancelled_by": None,
            "parent": str(parent.get("run_id")) if isinstance(parent, dict) else request.get("for_run"),
            "children": [],
            "rerun_of": request.get("rerun_of"),
            "questions": [],
            "actions": [],
        },
        RunView,
        strict=False,
    )
    for task in view.tasks:
        task.base_id = base_of(task.task_id)
        ids = (child_id(view.run_id, task.task_id, view.attempt, number) for number in range(task.tries, 0, -1))
        task.child_run = next((name for name in ids if name in index.by_id), None)
    view.children = [task.child_run for task in view.tasks if task.child_run]
    view.actions = list(_actions(view))
    return view


def with_open(view: RunView, history: History, now: datetime) -> RunView:
    """Add what the fold of the log knows of an open run: what it asks, and who wants it ended."""
    run = history.runs.get(view.run_id)
    if run is not None:
        view.questions = list(_questions(run, now))
        view.cancelled_by = None if run.cancel is None else run.cancel.get("by", "somebody")
    return view


def _actions(view: RunView) -> Iterator[str]:
    if view.is_open:
        yield "cancel"
        return
    if view.dag:
        yield "retry"
        if any(task.status not in _GOOD for task in view.tasks if not task.is_hook):
            yield "retry_failed"
        yield "rerun"


def _questions(run: Run, now: datetime) -> Iterator[RunQuestion]:
    for task_id, asked in run.asks(now).items():
        yield RunQuestion(
            task_id=task_id,
            message=str(asked.get("message") or ""),
            asked_s=_moment(asked, "timestamp"),
            until_s=_moment(asked, "until"),
            default=str(asked["default"]) if asked.get("default") else None,
        )


def _moment(facts: Mapping[str, Any], name: str) -> float | None:
    return time_of(facts.get(name))
