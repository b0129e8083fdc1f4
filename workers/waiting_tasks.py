"""The tasks of a run that wait without a process: begun, looked at when something comes, told when they end."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator

import msgspec

from . import params
from .dag import Task
from .failpoints import reach
from .ids import child_id
from .run_context import RunContext
from .run_link import RunLink
from .run_request import RunRequest
from .tasks import Outcome
from .waiting import CannotWait, Waiting, answer, begin, come, end

__all__ = ["WaitingTasks"]

# How often the log is looked at while the run cannot be parked: a look at a file that has not grown costs microseconds.
_LOOK_S = 0.5
# A wait this short is not worth the way to another worker.
_WORTH_PARKING_S = 2.0


class WaitingTasks:
    """What waits, by task id. Without a `link` to a log only times can be waited for."""

    def __init__(self, context: RunContext, link: RunLink | None) -> None:
        self._context = context
        self._link = link
        self._waits: dict[str, tuple[Task, Waiting]] = {}
        # A `dag` task that has timed out ends when its run has; until then, how it will have ended.
        self._stopped: dict[str, Outcome] = {}
        self._ended: list[tuple[Task, Waiting, Outcome]] = []

    def __bool__(self) -> bool:
        return bool(self._waits or self._ended)

    def names(self) -> Collection[str]:
        """Return the ids of the tasks that wait."""
        return self._waits.keys()

    def begin(self, task: Task, task_attempt: int) -> Waiting:
        """Begin to wait. Raises TickpoolError where that cannot be."""
        waiting, mask = self.waiting_of(task, task_attempt), self._context.secrets.mask
        waiting = msgspec.structs.replace(waiting, message=mask.text(waiting.message))
        if waiting.kind != "time":
            self._begin_by_link(task, waiting)
        self._waits[task.id] = task, waiting
        return waiting

    def waiting_of(self, task: Task, task_attempt: int) -> Waiting:
        """Return what an attempt of a task waits for. Raises TickpoolError."""
        run = self._context.run
        child = child_id(run.run_id, task.id, run.attempt, task_attempt)
        return begin(task, task_attempt, self._context.lookup_of(task.id), run, time.time(), child)

    def _begin_by_link(self, task: Task, waiting: Waiting) -> None:
        link = self._link
        if link is None:
            raise CannotWait(f"`{waiting.kind}`", "this run has no state log; `tickpool run` and a service have one")
        if waiting.kind == "approval":
            link.ask(waiting)
            return
        if waiting.kind == "dag":
            link.await_run(waiting.run)
            request = self.child_of(task, waiting, link)
            if self._context.secrets.mask.plain(request["params"]) != request["params"]:
                raise CannotWait(f"the run of `{task.dag}`", "its params hold a secret, which would stand in the log")
            link.request(request)
        elif (finish := link.await_run(waiting.run)) is not None:
            self._ended.append((task, waiting, end(waiting, finish, {}, time.time())))

    def child_of(self, task: Task, waiting: Waiting, link: RunLink) -> RunRequest:
        """Return the request for the run of a `dag` task. Raises what a reference raises."""
        return link.child(waiting, task.dag or "", params.resolve(task.params, self._context.lookup_of(task.id)))

    def restore(self, task: Task, waiting: Waiting) -> None:
        """Go on with a wait that began before the run was parked."""
        self._waits[task.id] = task, waiting
        link = self._link
        if link is None:
            return
        if waiting.kind == "approval" and (answered := link.answer_to(waiting)) is not None:
            self._ended.append((task, waiting, answer(waiting, answered, time.time())))
        elif waiting.run and (finish := link.await_run(waiting.run)) is not None:
            self._ended.append((task, waiting, self._end_of_run(waiting, finish)))

    def settle(self) -> Iterator[tuple[Task, int, Outcome]]:
        """Yield what has ended: (task, its attempt, how)."""
        if not self:
            return
        now_s = time.time()
        for event in self._link.news() if self._link is not None else ():
            for task, waiting in [*self._waits.values()]:
                if event["event"] == "run_finished" and event["run_id"] == waiting.run:
                    self._ended.append((task, waiting, self._end_of_run(waiting, event)))
                elif event.get("task_id") == task.id and waiting.kind == "approval":
                    self._ended.append((task, waiting, answer(waiting, event, now_s)))
        for task, waiting in [*self._waits.values()]:
            outcome = come(waiting, now_s)
            if outcome is not None and waiting.kind == "dag" and self._link is not None:
                self._stop(waiting, outcome)
            elif outcome is not None:
                self._ended.append((task, waiting, outcome))
        ended, self._ended = self._ended, []
        for task, waiting, outcome in ended:
            if self._waits.pop(task.id, None) is not None:
                yield task, waiting.task_attempt, outcome

    def _stop(self, waiting: Waiting, outcome: Outcome) -> None:
        if waiting.task_id not in self._stopped and self._link is not None:
            self._stopped[waiting.task_id] = outcome
            self._link.stop(waiting, f"task `{waiting.task_id}` {outcome.reason}")

    def _end_of_run(self, waiting: Waiting, finish: dict[str, object]) -> Outcome:
        if waiting.task_id in self._stopped:
            return self._stopped.pop(waiting.task_id)
        outputs = {}
        if waiting.kind == "dag" and self._link is not None:
            outputs = self._link.outputs_of(waiting.run, self._context.run.started_at)
        return end(waiting, finish, outputs, time.time())

    def wake_in_s(self) -> float | None:
        """Return in how many seconds to look again; None where nothing waits."""
        if not self:
            return None
        looks_s = [0.0] if self._ended else []
        if any(waiting.kind != "time" for _, waiting in self._waits.values()):
            looks_s.append(_LOOK_S)
        if (next_s := self._next_s()) is not None:
            # The clock may be set while it waits.
            looks_s.append(min(max(0.0, next_s - time.time()), 60.0))
        return min(looks_s, default=None)

    def _next_s(self) -> float | None:
        moments = (w.next_s() for _, w in self._waits.values() if w.task_id not in self._stopped)
        return min((at_s for at_s in moments if at_s is not None), default=None)

    def park(self, tasks: dict[str, int], worked_s: float) -> bool:
        """Park the run; False where it has to wait here."""
        link, next_s = self._link, self._next_s()
        if link is None or not link.can_park or self._ended or self._stopped:
            return False
        if next_s is not None and next_s - time.time() < _WORTH_PARKING_S:
            return False
        reach("before_park")
        return link.park([waiting for _, waiting in self._waits.values()], tasks, worked_s)

    def drop(self) -> list[Task]:
        """Forget what waits; return it."""
        dropped = [task for task, _ in self._waits.values()]
        self._waits.clear()
        return dropped
