"""Which tasks of a DAG may start, given how others ended: the graph's state, with no clock and no process in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Literal, NamedTuple

from .dag import Task
from .trigger_rules import UpstreamState, decide

__all__ = ["Closed", "ReadySet"]


class Closed(NamedTuple):
    """A task that will never run, and why: `skipped` or `upstream_failed`."""

    task: Task
    status: Literal["skipped", "upstream_failed"]
    reason: str


class ReadySet:
    """The tasks of one DAG: waiting, ready (in the order they became so), or ended."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = {task.id: task for task in tasks}
        self._states: dict[str, UpstreamState] = dict.fromkeys(self._tasks, "waiting")
        self._undecided = dict.fromkeys(self._tasks)
        self._downstream: dict[str, list[Task]] = {task_id: [] for task_id in self._tasks}
        for task in self._tasks.values():
            for upstream in task.needs:
                self._downstream[upstream].append(task)
        self.ready: deque[Task] = deque()

    def task(self, task_id: str) -> Task | None:
        """Return the task of that id, if it is one of these."""
        return self._tasks.get(task_id)

    def keep(self, task_id: str, state: UpstreamState) -> bool:
        """Count a task as ended before any is judged; say whether there is such a task."""
        if task_id not in self._undecided:
            return False
        del self._undecided[task_id]
        self._states[task_id] = state
        return True

    def begin(self) -> list[Closed]:
        """Judge every task once; return those closed without running."""
        return self._judge(list(self._tasks.values()))

    def end(self, task_id: str, state: UpstreamState) -> list[Closed]:
        """Take note of a task's last state; return the downstream tasks that this closes, direct and indirect."""
        self._states[task_id] = state
        return self._judge(self._downstream[task_id])

    def undecided(self) -> list[Task]:
        """Return the tasks that are neither ready nor running nor ended, in the DAG's order."""
        return [self._tasks[task_id] for task_id in self._undecided]

    def _judge(self, tasks: list[Task]) -> list[Closed]:
        closed = []
        pending = deque(tasks)
        while pending:
            task = pending.popleft()
            if task.id not in self._undecided:
                continue
            verdict = decide(task.trigger_rule, [self._states[upstream] for upstream in task.needs])
            if verdict == "wait":
                continue
            del self._undecided[task.id]
            if verdict == "run":
                self.ready.append(task)
                continue
            state: Literal["skipped", "upstream_failed"] = "skipped" if verdict == "skip" else verdict
            self._states[task.id] = state
            closed.append(Closed(task, state, self._reason(task)))
            pending.extend(self._downstream[task.id])
        return closed

    def _reason(self, task: Task) -> str:
        ended = (f"`{each}` {self._states[each]}" for each in task.needs if self._states[each] != "waiting")
        listed = list(ended)
        more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
        return f"trigger rule {task.trigger_rule}: {', '.join(listed[:5])}{more}"
