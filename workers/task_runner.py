"""The loop of a run: start what is ready, wait for what runs, try again what failed, close what never will."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

from . import process_tree, retry
from .attempt import Attempt
from .dag import Task
from .errors import TickpoolError
from .failpoints import reach
from .masking import Mask
from .poller import Poller, Timer
from .process import CannotStart, read_stat
from .ready_set import Closed, ReadySet
from .run_context import RunContext, Stop
from .run_events import Kept
from .task_log import TaskLog
from .tasks import Outcome, call
from .tasks.imports import Imports
from .tasks.start import start
from .trigger_rules import UpstreamState
from .units import Duration

__all__ = ["Ran", "RunStatus", "TaskRunner"]

logger = logging.getLogger(__name__)

RunStatus: TypeAlias = Literal["success", "failed", "timeout", "cancelled"]


class Ran(NamedTuple):
    """How a set of tasks ended: the status of all, why, and each task's result."""

    status: RunStatus
    reason: str | None
    results: dict[str, dict[str, Any]]


class TaskRunner:
    """Runs tasks of one run, one set after the other (the DAG's own, then its hooks). `close` it in the end."""

    def __init__(self, context: RunContext, *, stop: Stop | None, grace_s: float, log_limit: int) -> None:
        self._context = context
        self._stop = stop
        self._grace_s = grace_s
        self._log_limit = log_limit
        self._imports = Imports(context.project)
        self._poller: Poller | None = None
        self._had_children: set[int] = set()
        self._forget_last_set(())

    def _forget_last_set(self, tasks: Iterable[Task]) -> None:
        self._tasks = ReadySet(tasks)
        self._running: dict[str, Attempt] = {}
        self._retrying: dict[str, tuple[Task, Timer]] = {}
        self._tries: dict[str, int] = {}
        self._results: dict[str, dict[str, Any]] = {}
        self._failure: str | None = None
        self._halted: tuple[RunStatus, str] | None = None

    def run(
        self,
        tasks: Iterable[Task],
        *,
        max_parallel: int,
        limit_s: float | None,
        kept: Mapping[str, Kept] = MappingProxyType({}),
    ) -> Ran:
        """Run the tasks in the order of their needs and return when each has ended and its processes are gone.

        Those that are `kept` count as ended.
        """
        self._forget_last_set(tasks)
        deadline = time.monotonic() + limit_s if limit_s is not None else None
        self._overdue = f"timed out after {Duration(seconds=limit_s or 0)}"
        self._keep(kept)
        self._close(self._tasks.begin())
        while True:
            self._start_ready(max_parallel, deadline)
            if not self._running and not self._retrying:
                break
            self._wait(deadline)
        for task in [*self._tasks.ready, *self._tasks.undecided()]:
            self._cancel(task)
        if self._halted is not None:
            return Ran(*self._halted, self._results)
        return Ran("failed" if self._failure else "success", self._failure, self._results)

    def _keep(self, kept: Mapping[str, Kept]) -> None:
        for task_id, (status, outputs) in kept.items():
            if self._tasks.keep(task_id, status):
                self._context.record("task_kept", task_id=task_id, status=status, outputs=outputs)
                self._results[task_id] = _result(Outcome(status, outputs=outputs), 0)
                self._context.outputs[task_id] = outputs

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
            if self._halted is not None or not self._tasks.ready or len(self._running) >= max_parallel:
                return
            self._start(self._tasks.ready.popleft())

    def _wait(self, deadline: float | None) -> None:
        poller = self._loop()
        if deadline is None or self._halted is not None:
            poller.run_once()
            return
        timer = poller.call_at(deadline, lambda: None)
        poller.run_once()
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
        tried = self._tries[task.id] = self._tries.get(task.id, 0) + 1
        context = self._context
        path, masked = context.log_path(task, tried), context.secrets.stream()
        log = TaskLog(path, self._log_limit, context.logs_dir, masked=masked)
        if task.call is not None and not task.isolate:
            self._run_here(task, tried, log)
            return
        try:
            attempt = self._start_process(task, tried, log)
        except (TickpoolError, OSError) as error:
            self._record_start(task, tried, None)
            self._ended(task, tried, _failed_to_start(error, context.secrets.mask))
            return
        self._running[task.id] = attempt
        self._record_start(task, tried, attempt.pid)

    def _run_here(self, task: Task, tried: int, log: TaskLog) -> None:
        self._record_start(task, tried, os.getpid())
        mask = self._context.secrets.mask
        try:
            outcome = call.run_here(task, self._context.lookup, self._imports, log, mask)
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
            started = start(task, scene, write_end, self._imports)
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

    def _process_ended(self, task: Task, tried: int, outcome: Outcome) -> None:
        del self._running[task.id]
        self._ended(task, tried, outcome)

    def _record_start(self, task: Task, tried: int, pid: int | None) -> None:
        stat = read_stat(pid) if pid is not None and pid != os.getpid() else None
        starttime = {"starttime": stat.starttime} if stat is not None else {}
        self._context.record("task_started", task_id=task.id, task_attempt=tried, pid=pid, **starttime)

    def _ended(self, task: Task, tried: int, outcome: Outcome) -> None:
        reach("after_effect")
        if outcome.status == "failed" and outcome.exit_code in task.skip_on_exit_code:
            outcome.status = "skipped"
        # Before anything is told: events, results, `tasks.*` references and a hook's RUN_REASON all come from here.
        mask = self._context.secrets.mask
        outcome.reason, outcome.outputs = mask.plain(outcome.reason), mask.plain(outcome.outputs)
        self._context.record(
            "task_finished",
            task_id=task.id,
            task_attempt=tried,
            status=outcome.status,
            reason=outcome.reason,
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            duration_s=outcome.duration_s,
            max_rss_kib=outcome.max_rss_kib,
            cpu_user_s=outcome.cpu_user_s,
            cpu_sys_s=outcome.cpu_sys_s,
            log=outcome.log,
            outputs=outcome.outputs,
        )
        self._results[task.id] = _result(outcome, tried)
        self._context.outputs[task.id] = outcome.outputs
        if outcome.status in ("failed", "timeout") and tried <= task.retries.max and self._halted is None:
            self._retry(task, tried, outcome)
        else:
            self._settle(task, outcome)

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
            self._tasks.ready.append(task)
            return
        timer = self._loop().call_at(time.monotonic() + wait_s, lambda: self._try_again(task))
        self._retrying[task.id] = task, timer

    def _try_again(self, task: Task) -> None:
        del self._retrying[task.id]
        self._tasks.ready.append(task)

    def _settle(self, task: Task, outcome: Outcome) -> None:
        """Let a task's last outcome decide what it decides: the run's status and the tasks downstream."""
        if outcome.status == "cancelled":
            return
        failed = outcome.status in ("failed", "timeout") and not task.continue_on_failure
        if failed and self._failure is None:
            verb = "failed: " if outcome.status == "failed" else ""
            self._failure = f"task `{task.id}` {verb}{outcome.reason}"
        state: UpstreamState = "skipped" if outcome.status == "skipped" else "failed" if failed else "success"
        self._close(self._tasks.end(task.id, state))

    def _close(self, closed: Iterable[Closed]) -> None:
        for task, status, reason in closed:
            self._context.record("task_skipped", task_id=task.id, status=status, reason=reason)
            self._results[task.id] = _result(Outcome(status=status, reason=reason), 0)

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

    def _cancel(self, task: Task) -> None:
        reason = self._halted[1] if self._halted is not None else "its needs never ended"
        self._context.record("task_skipped", task_id=task.id, status="cancelled", reason=reason)
        before = self._results.get(task.id)
        self._results[task.id] = {
            **(before or _result(Outcome("cancelled"), 0)),
            "status": "cancelled",
            "reason": reason,
        }


def _failed_to_start(error: TickpoolError | OSError, mask: Mask) -> Outcome:
    code = error.exit_code if isinstance(error, CannotStart) else None
    return Outcome("failed", " ".join(mask.text(str(error)).split())[:2000], exit_code=code)


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
