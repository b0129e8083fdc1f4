"""The page of one run: why it ran, its attempts, its tasks, what it asks, and what may be done with it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from msgspec.structs import asdict

from scheduler.history import History
from scheduler.run_look import look
from scheduler.run_record import RunRecord
from scheduler.run_view import RunFacts
from scheduler.status import Approval, approvals_of
from scheduler.task_view import TaskFacts
from scheduler.web.run_index import OPEN, RunIndex, RunRow
from workers.events import text_or_none
from workers.ids import base_of, child_id
from workers.settings import Settings

__all__ = ["ACTIONS", "RunView", "TaskView", "run_view", "with_open"]

# What may be done with a run, in the order in which the page has it.
ACTIONS = ("cancel", "retry", "retry_failed", "rerun")
_GOOD = ("success", "skipped", "kept")


class TaskView(TaskFacts):
    """A task, and the run that it has asked for, if it has. An instance of a task with `foreach` has its `base_id`."""

    base_id: str = ""
    child_run: str | None = None

    @property
    def is_instance(self) -> bool:
        """Say whether it is one item of a task with `foreach`."""
        return self.base_id != self.task_id


class RunView(RunFacts):
    """A run, and what else the dashboard knows of it; `actions` are those of ACTIONS that are open to it."""

    tasks: list[TaskView]
    number: int
    kind: str
    is_open: bool
    cancelled_by: str | None
    parent: str | None
    children: list[str]
    rerun_of: str | None
    approvals: list[Approval]
    actions: list[str]


def run_view(
    settings: Settings, record: RunRecord, row: RunRow, index: RunIndex, now: datetime, attempt: int | None = None
) -> RunView:
    """Return what there is to see of a run; what the open run asks is added by `with_open`."""
    facts = look(settings, record, now, attempt)
    request = record.request
    parent = request.get("parent")
    tasks = [_task(task, facts, index) for task in facts.tasks]
    view = RunView(
        **{**asdict(facts), "tasks": tasks},
        number=row.number,
        kind=row.kind,
        is_open=row.status in OPEN,
        cancelled_by=None,
        parent=text_or_none(parent.get("run_id") if isinstance(parent, dict) else request.get("for_run")),
        children=[task.child_run for task in tasks if task.child_run],
        rerun_of=text_or_none(request.get("rerun_of")),
        approvals=[],
        actions=[],
    )
    view.actions = list(_actions(view))
    return view


def _task(task: TaskFacts, run: RunFacts, index: RunIndex) -> TaskView:
    ids = (child_id(run.run_id, task.task_id, run.attempt, number) for number in range(task.tries, 0, -1))
    child_run = next((name for name in ids if name in index.by_id), None)
    return TaskView(**asdict(task), base_id=base_of(task.task_id), child_run=child_run)


def with_open(view: RunView, history: History, now: datetime) -> RunView:
    """Add what the fold of the log knows of an open run: what it asks, and who wants it ended."""
    run = history.runs.get(view.run_id)
    if run is not None:
        view.approvals = list(approvals_of(run, now))
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
