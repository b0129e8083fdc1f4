"""The loop of a run: start what is ready, wait for what runs, try again what failed, close what never will."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

from msgspec import to_builtins

from . import process_tree, retry
from .attempt import Attempt
from .child_run import start_here
from .dag import Task
from .errors import TickpoolError
from .failpoints import reach
from .masking import Mask
from .poller import Poller, Timer
from .process import CannotStart, read_stat
from .run_context import RunContext, Stop
from .run_events import Kept
from .run_link import Before, RunLink
from .task_book import TaskBook
from .task_log import TaskLog
from .tasks import Outcome, Started, call
from .tasks.imports import Imports
from .tasks.start import start
from .units import Duration
from .waiting import Waiting, is_waiting_kind
from .waiting_tasks import WaitingTasks

__all__ = ["Ran", "RunStatus", "TaskRunner"]

logger = logging.getLogger(__name__)

_NOTHING = Before()
RunStatus: TypeAlias = Literal["success", "failed", "timeout", "cancelled", "parked"]


class Ran(NamedTuple):
    """How a set of tasks ended: the status of all, why, and each task's result."""

    status: RunStatus
    reason: str | None
    results: dict[str, dict[str, Any]]


class TaskRunner:
    """Runs tasks of one run, one set after the other (the DAG's own, then its hooks). `close` it in the end."""

    def __init__(
        self, context: RunContext, *, stop: Stop | None, grace_s: float, log_limit: int, link: RunLink | None = None
    ) -> None:
        self._context = context
        self._link = link
        self._stop = stop
        self._grace_s = grace_s
        self._log_limit = log_limit
        self._imports = Imports(context.project)
        self._poller: Poller | None = None
        self._had_children: set[int] = set()
        self._forget_last_set(())

    def _forget_last_set(self, tasks: Iterable[Task], max_parallel: int = 1) -> None:
        self._book = TaskBook(self._context, tasks, max_parallel)
        self._running: dict[str, Attempt] = {}
        self._waiting = WaitingTasks(self._context, self._link)
        self._waited_before: dict[str, Waiting] = {}
        self._retrying: dict[str, tuple[Task, Timer]] = {}
        self._tries: dict[str, int] = {}
        self._halted: tuple[RunStatus, str] | None = None

    def run(
        self,
        tasks: Iterable[Task],
        *,
        max_parallel: int,
        limit_s: float | None,
        kept: Mapping[str, Kept] = MappingProxyType({}),
        before: Before = _NOTHING,
    ) -> Ran:
        """Run the tasks in the order of their needs and return when each has ended and its processes are gone.

        Those that are `kept` count as ended. A run that was parked goes on from what was `before`. The status is
        `parked` when all that is left waits, and the log has that.
        """
        began = time.monotonic()
        self._forget_last_set(tasks, max_parallel)
        book, worked_s = self._book, before.worked_s
        book.keep(kept)
        book.restore(before.ended)
        self._waited_before = {waiting.task_id: waiting for waiting in before.waits}
        book.begin()
        deadline = began + limit_s if limit_s is not None else None
        self._overdue = f"timed out after {Duration(seconds=(limit_s or 0) + worked_s)}"
        while True:
            self._start_ready(max_parallel, deadline)
            if not self._running and not self._retrying:
                if not self._waiting or self._halted is not None:
                    break
                if self._waiting.park(book.counts(self._waiting.names()), worked_s + time.monotonic() - began):
                    return Ran("parked", None, book.results)
            self._wait(deadline)
        for task in book.left():
            self._cancel(task)
        if self._halted is not None:
            return Ran(*self._halted, book.results)
        return Ran("failed" if book.failure else "success", book.failure, book.results)

    def close(self) -> None:
        """Kill what the tasks left behind and close what was opened."""
        for attempt in list(self._running.values()):
            attempt.abandon()
        if self._poller is not None:
            self._poller.close()
            self._sweep()
        self._imports.close()

    def _sweep(self) -> None:
        # A subreaper without children has nothing to look for, and learns it in a microsecond. In other processes
        # what is left has gone to another parent, so only the scan can tell.
        if not process_tree.is_subreaper():
            killed = process_tree.sweep(self._context.marker)
        elif process_tree.children_left():
            killed = process_tree.sweep(self._context.marker, children_but=self._had_children)
            process_tree.reap_orphans(self._had_children)
        else:
            return
        if killed:
            logger.info("%s: killed %d processes that its tasks had left behind", self._context.run.run_id, killed)

    def _start_ready(self, max_parallel: int, deadline: float | None) -> None:
        while True:
            if self._stop is not None and self._stop.reason is not None:
                self._halt("cancelled", f"cancelled: {self._stop.reason}")
            elif deadline is not None and time.monotonic() >= deadline:
                self._halt("timeout", self._overdue)
            for ended in self._waiting.settle() if self._halted is None else ():
                self._ended(*ended)
            if self._halted is not None or not self._book.ready or len(self._running) >= max_parallel:
                return
            self._start(self._book.ready.popleft())

    def _wait(self, deadline: float | None) -> None:
        poller, now = self._loop(), time.monotonic()
        looks = [] if deadline is None or self._halted is not None else [deadline]
        if self._halted is None and (look_s := self._waiting.wake_in_s()) is not None:
            looks.append(now + look_s)
        timers = [poller.call_at(when, lambda: None) for when in looks]
        poller.run_once()
        for timer in timers:
            timer.cancel()

    def _loop(self) -> Poller:
        if self._poller is None:
            self._poller = Poller()
            if self._stop is not None:
                self._poller.watch(self._stop.fileno(), self._hear_stop)
            if process_tree.children_left():
                me = os.getpid()
                self._had_children = {stat.pid for stat in process_tree.find(lambda stat: stat.ppid == me, dead=True)}
        return self._poller

    def _hear_stop(self) -> None:
        # The descriptor stays readable, for others that wait for it; `_start_ready` reads the reason.
        if self._stop is not None:
            self._loop().unwatch(self._stop.fileno())

    def _start(self, task: Task) -> None:
        if task.foreach is not None:
            self._map(task)
            return
        if task.id in self._waited_before:
            waiting = self._waited_before.pop(task.id)
            self._tries[task.id] = waiting.task_attempt
            self._waiting.restore(task, waiting)
            return
        tried = self._tries[task.id] = self._tries.get(task.id, 0) + 1
        if task.call is not None and not task.isolate:
            self._run_here(task, tried, self._log_of(task, tried))
            return
        begun: Waiting | None = None
        pid: int | None = None
        try:
            if is_waiting_kind(task) and not self._is_run_here(task):
                begun = self._waiting.begin(task, tried)
            else:
                attempt = self._running[task.id] = self._start_process(task, tried, self._log_of(task, tried))
                pid = attempt.pid
        except (TickpoolError, OSError) as error:
            self._record_start(task, tried, None)
            self._ended(task, tried, _failed_to_start(error, self._context.secrets.mask))
        else:
            self._record_start(task, tried, pid, begun)

    def _log_of(self, task: Task, tried: int) -> TaskLog:
        context = self._context
        return TaskLog(
            context.log_path(task, tried), self._log_limit, context.logs_dir, masked=context.secrets.stream()
        )

    def _is_run_here(self, task: Task) -> bool:
        """Say whether a `dag` is run by a process of this run: one by hand has no service to leave it to."""
        return task.dag is not None and self._link is not None and self._link.execute is not None

    def _map(self, task: Task) -> None:
        """Begin a task with `foreach`: its instances come in its place."""
        self._record_start(task, 1, None)
        try:
            self._book.map(task)
        except TickpoolError as error:
            outcome = _failed_to_start(error, self._context.secrets.mask)
            self._book.record_end(task, 1, outcome)
            self._book.settle(task, outcome)

    def _run_here(self, task: Task, tried: int, log: TaskLog) -> None:
        self._record_start(task, tried, os.getpid())
        mask = self._context.secrets.mask
        try:
            outcome = call.run_here(task, self._context.lookup_of(task.id), self._imports, log, mask)
        except TickpoolError as error:
            outcome = _failed_to_start(error, mask)
        log.close()
        outcome.log = log.path if log.is_open else None
        if task.timeout is not None and outcome.duration_s > task.timeout.total_seconds():
            outcome.status, outcome.reason = "timeout", f"timed out after {task.timeout}"
        self._ended(task, tried, outcome)

    def _start_process(self, task: Task, tried: int, log: TaskLog) -> Attempt:
        poller, context = self._loop(), self._context
        scene = context.scene(task, tried)
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            # Only this end: the writers' end belongs to programs that expect to be able to wait.
            os.set_blocking(read_end, False)
            started = self._start_child(task, tried, write_end) or start(task, scene, write_end, self._imports)
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        attempt = Attempt(
            started,
            read_end,
            poller=poller,
            log=log,
            marks=(f"TICKPOOL_RUN={context.marker}", f"TASK_ID={task.id}", f"TASK_ATTEMPT={tried}"),
            grace_s=self._grace_s,
            on_end=lambda outcome: self._process_ended(task, tried, outcome),
        )
        if task.timeout is not None:
            timeout_s = task.timeout.total_seconds()
            attempt.stop_at(time.monotonic() + timeout_s, "timeout", f"timed out after {task.timeout}")
        return attempt

    def _start_child(self, task: Task, tried: int, output: int) -> Started | None:
        """Run a `dag` in a process of this run, where nobody else does; None for every other task."""
        link = self._link
        if link is None or not self._is_run_here(task):
            return None
        waiting = self._waiting.waiting_of(task, tried)
        request = self._waiting.child_of(task, waiting, link)
        return start_here(waiting, link, request, output, self._context.secrets.mask)

    def _process_ended(self, task: Task, tried: int, outcome: Outcome) -> None:
        del self._running[task.id]
        self._ended(task, tried, outcome)

    def _record_start(self, task: Task, tried: int, pid: int | None, waiting: Waiting | None = None) -> None:
        stat = read_stat(pid) if pid is not None and pid != os.getpid() else None
        more: dict[str, Any] = {"starttime": stat.starttime} if stat is not None else {}
        if waiting is not None:
            more["waits"] = to_builtins(waiting)
        self._context.record("task_started", task_id=task.id, task_attempt=tried, pid=pid, **more)

    def _ended(self, task: Task, tried: int, outcome: Outcome) -> None:
        reach("after_effect")
        if outcome.status == "failed" and outcome.exit_code in task.skip_on_exit_code:
            outcome.status = "skipped"
        self._book.record_end(task, tried, outcome)
        if outcome.status in ("failed", "timeout") and tried <= task.retries.max and self._halted is None:
            self._retry(task, tried, outcome)
        else:
            self._book.settle(task, outcome)

    def _retry(self, task: Task, tried: int, outcome: Outcome) -> None:
        run = self._context.run
        wait_s = retry.delay_s(task.retries, tried, f"{run.run_id}/{run.attempt}/{task.id}/{tried}")
        self._context.record(
            "task_retried",
            task_id=task.id,
            task_attempt=tried + 1,
            delay_s=round(wait_s, 3),
            reason=outcome.reason,
        )
        if wait_s <= 0:
            self._book.ready.append(task)
            return
        timer = self._loop().call_at(time.monotonic() + wait_s, lambda: self._try_again(task))
        self._retrying[task.id] = task, timer

    def _try_again(self, task: Task) -> None:
        del self._retrying[task.id]
        self._book.ready.append(task)

    def _halt(self, status: RunStatus, reason: str) -> None:
        """Start nothing more and stop what runs; the first call counts."""
        if self._halted is not None:
            return
        self._halted = status, reason
        for attempt in self._running.values():
            attempt.stop("cancelled", reason)
        for task, timer in self._retrying.values():
            timer.cancel()
            self._cancel(task)
        self._retrying.clear()
        for task in self._waiting.drop():
            self._cancel(task)

    def _cancel(self, task: Task) -> None:
        self._book.cancel(task, self._halted[1] if self._halted is not None else "its needs never ended")


def _failed_to_start(error: TickpoolError | OSError, mask: Mask) -> Outcome:
    code = error.exit_code if isinstance(error, CannotStart) else None
    return Outcome("failed", " ".join(mask.text(str(error)).split())[:2000], exit_code=code)
