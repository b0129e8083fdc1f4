"""The book of a run's tasks: which may start, how the others have ended, and what that means for the run."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from .dag import Task
from .ids import base_of
from .mapped import Mapped, item_mark, items_of
from .ready_set import Closed, ReadySet
from .run_context import RunContext
from .run_events import Kept
from .tasks import Outcome
from .trigger_rules import UpstreamState

__all__ = ["TaskBook"]


class _Known(NamedTuple):
    """How an instance of a task with `foreach` ended before: in an attempt before this one, or before it was parked."""

    outcome: Outcome
    item_mark: str | None
    is_of_this_attempt: bool


class TaskBook:
    """One set of tasks. It records the ends of tasks; their starts are for whoever takes them from `ready`."""

    def __init__(self, context: RunContext, tasks: Iterable[Task], limit: int) -> None:
        self.results: dict[str, dict[str, Any]] = {}
        self.failure: str | None = None
        self._context = context
        self._tasks = ReadySet(tasks)
        self._limit = limit
        self._mapped: dict[str, Mapped] = {}
        self._known: dict[str, _Known] = {}

    @property
    def ready(self) -> deque[Task]:
        """The tasks that may start, in the order in which they became so."""
        return self._tasks.ready

    def keep(self, kept: Mapping[str, Kept]) -> None:
        """Count tasks as ended that are not to run again."""
        for task_id, (status, outputs, mark) in kept.items():
            outcome = Outcome(status, outputs=outputs)
            if self._tasks.keep(task_id, status):
                self._note_kept(task_id, outcome)
                self._note(task_id, outcome, 0)
            else:
                self._known[task_id] = _Known(outcome, mark, is_of_this_attempt=False)

    def restore(self, ended: Mapping[str, Mapping[str, Any]]) -> None:
        """Take up how tasks had ended when the run was parked: the event of each, oldest first."""
        for task_id, event in ended.items():
            outcome, task = _outcome_of(event), self._tasks.task(task_id)
            if task is None:
                self._known[task_id] = _Known(outcome, event.get("item_mark"), is_of_this_attempt=True)
            else:
                self._note(task_id, outcome, int(event.get("task_attempt") or 0))
                self._tasks.keep(task_id, self._judge(task, outcome))

    def begin(self) -> None:
        """Judge every task once."""
        self._close(self._tasks.begin())

    def map(self, task: Task) -> None:
        """Put the instances of a task with `foreach` in its place. Raises BadItems, and what a reference raises."""
        mapped = Mapped(task, items_of(task, self._context.lookup), self._limit)
        self._mapped[task.id] = mapped
        self._context.items.update(mapped.items)
        self._bring_instances(mapped)

    def record_end(self, task: Task, tried: int, outcome: Outcome) -> None:
        """Record how an attempt ended, without the secrets of the run."""
        # Before anything is told: events, results, `tasks.*` references and a hook's RUN_REASON all come from here.
        mask, items = self._context.secrets.mask, self._context.items
        outcome.reason, outcome.outputs = mask.plain(outcome.reason), mask.plain(outcome.outputs)
        facts = msgspec.structs.asdict(outcome)
        if task.id in items:
            facts["item_mark"] = item_mark(items[task.id])
        self._context.record("task_finished", task_id=task.id, task_attempt=tried, **facts)
        if not self._is_instance(task):
            self._note(task.id, outcome, tried)

    def settle(self, task: Task, outcome: Outcome) -> None:
        """Let a task's last outcome decide what it decides: the run's status and what comes next."""
        if outcome.status == "cancelled":
            return
        if self._is_instance(task):
            mapped = self._mapped[base_of(task.id)]
            mapped.end(task.id, outcome)
            self._bring_instances(mapped)
        else:
            self._close(self._tasks.end(task.id, self._judge(task, outcome)))

    def counts(self, waiting: Collection[str]) -> dict[str, int]:
        """Count the ended tasks by status; those that wait are none, however they ended when they were tried before."""
        return dict(Counter(str(result["status"]) for name, result in self.results.items() if name not in waiting))

    def left(self) -> list[Task]:
        """Return the tasks that have not ended."""
        return [*self.ready, *self._tasks.undecided(), *(mapped.task for mapped in self._mapped.values())]

    def cancel(self, task: Task, reason: str) -> None:
        """Close a task that will not start, or not again."""
        self._context.record("task_skipped", task_id=task.id, status="cancelled", reason=reason)
        if not self._is_instance(task):
            before = self.results.get(task.id) or _result(Outcome("cancelled"), 0)
            self.results[task.id] = {**before, "status": "cancelled", "reason": reason}

    def _is_instance(self, task: Task) -> bool:
        return task.id in self._context.items

    def _bring_instances(self, mapped: Mapped) -> None:
        """Let the instances start whose turn it is; end the whole when there is none left."""
        for instance in mapped.next_instances():
            known = self._known.pop(instance.id, None)
            if known is None or known.item_mark not in (None, item_mark(mapped.items[instance.id])):
                self.ready.append(instance)
                continue
            if not known.is_of_this_attempt:
                self._note_kept(instance.id, known.outcome)
            mapped.end(instance.id, known.outcome)
        if mapped.is_over():
            del self._mapped[mapped.task.id]
            outcome = mapped.outcome()
            self.record_end(mapped.task, 1, outcome)
            self.settle(mapped.task, outcome)

    def _note_kept(self, task_id: str, outcome: Outcome) -> None:
        self._context.record("task_kept", task_id=task_id, status=outcome.status, outputs=outcome.outputs)

    def _note(self, task_id: str, outcome: Outcome, tried: int) -> None:
        self.results[task_id] = _result(outcome, tried)
        self._context.outputs[task_id] = outcome.outputs

    def _judge(self, task: Task, outcome: Outcome) -> UpstreamState:
        """Return what a task's last outcome means for those downstream; the first failure is the run's."""
        if outcome.status == "upstream_failed":
            return "upstream_failed"
        failed = outcome.status in ("failed", "timeout") and not task.continue_on_failure
        if failed and self.failure is None:
            verb = "failed: " if outcome.status == "failed" else ""
            self.failure = f"task `{task.id}` {verb}{outcome.reason}"
        return "skipped" if outcome.status == "skipped" else "failed" if failed else "success"

    def _close(self, closed: Iterable[Closed]) -> None:
        for task, status, reason in closed:
            self._context.record("task_skipped", task_id=task.id, status=status, reason=reason)
            self.results[task.id] = _result(Outcome(status=status, reason=reason), 0)


def _outcome_of(event: Mapping[str, Any]) -> Outcome:
    """Return how a task ended, from the event that says so."""
    known = {name: event[name] for name in Outcome.__struct_fields__ if event.get(name) is not None}
    return msgspec.convert(known, Outcome, strict=False)


def _result(outcome: Outcome, attempts: int) -> dict[str, Any]:
    return {
        "status": outcome.status,
        "attempts": attempts,
        "exit_code": outcome.exit_code,
        "signal": outcome.signal,
        "duration_s": outcome.duration_s,
        "max_rss_kib": outcome.max_rss_kib,
        "cpu_s": round(outcome.cpu_user_s + outcome.cpu_sys_s, 6),
        "outputs": outcome.outputs,
        "reason": outcome.reason,
    }
