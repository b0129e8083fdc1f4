"""What one worker process does with one request: claim it, run its DAG, put the end on record.

The claim is a compare-and-set on the log, made before any effect; a worker that loses it does nothing.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from .dag import Dag
from .dag_cache import DagCache
from .errors import InvalidFile, TickpoolError
from .event_log import LogNotFlushed, LogUnwritable
from .events import Event
from .failpoints import arm, reach
from .ids import unpack
from .lock import LockTimeout
from .masking import Mask
from .process import identity, prctl
from .process_tree import become_subreaper
from .run_context import RunInfo, Stop
from .run_events import kept_of
from .run_link import RunLink
from .run_request import RunRequest, cancel_text, marker_for, next_attempt, run_fields, wrong_in
from .runner import run_dag
from .segments import LogReader, Position
from .settings import Settings
from .terminal import make_safe

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

__all__ = ["WORKER_NAME", "Executor", "Result", "is_worker", "serve"]

logger = logging.getLogger(__name__)
# Every worker process, and what it forks, has a name (comm, proc(5)) that begins so.
WORKER_NAME = "tickpool-w"
_PR_SET_NAME = 15
_RECORD_AGAIN_S = 1.0
_REASON_CHARS = 4000


class Result(NamedTuple):
    """How a request ended. `status` is the run's, `parked` when it has left the worker to wait, `refused` when another
    had claimed it, `unclaimed` when the log would not take the claim and nothing was done.

    `unrecorded` holds the end that the log would not take; whoever gets the result must append it later.
    """

    run_id: str
    attempt: int
    status: str
    reason: str | None = None
    duration_s: float = 0.0
    unrecorded: Event | None = None


class Executor:
    """Executes requests one at a time in this process, on one state log."""

    def __init__(self, settings: Settings, on_task_event: Callable[[Event], None] | None = None) -> None:
        self.last_result: dict[str, Any] = {}
        self._on_task_event = on_task_event
        self._settings = settings
        self._log = settings.state_log()
        self._task_log = settings.task_log()
        self._reader = LogReader(self._log.path)
        self._dags = DagCache(Path(settings.run_logs_dir))
        self._is_drained = self._is_by_hand = False
        self._link: RunLink | None = None
        self._me = identity(os.getpid())

    def leave_flushing(self) -> None:
        """Leave to the owner what `STATE_FSYNC=interval` flushes: a run must not wait for the disk."""
        for log in (self._log, self._task_log):
            if log.fsync == "interval":
                log.fsync = "off"

    def execute(
        self, request: RunRequest, stop: Stop, since: Position | None = None, *, ask_first: bool = False
    ) -> Result:
        """Claim, run, finish. `since` is a place in the log at which the attempt was known to be unclaimed.

        With `ask_first` the request itself is recorded with the claim, in one append. `last_result` holds what
        `run_dag` returned. Raises LogUnwritable and LockTimeout when it could not be claimed.
        """
        if not self.claim(request, stop, since, ask_first=ask_first):
            return self.refusal(request, stop)
        return self.perform(request, stop)

    def claim(self, request: RunRequest, stop: Stop, since: Position | None = None, *, ask_first: bool = False) -> bool:
        """Record the start of the attempt, unless another process has; return whether it is ours.

        A worker that was told to stop claims nothing more: its request stays for others. Raises as `execute`.
        """
        run_id, attempt = _key(request)
        started = {
            "event": "run_started",
            **run_fields(request),
            "attempt": attempt,
            "starttime": self._me.starttime,
            "boot_id": self._me.boot_id,
        }
        if request.get("parked"):
            started["resumed"] = True
        elif version := self._dags.version(request):
            started["dag_version"] = version

        def is_free(new: list[Event]) -> bool:
            if _is_claimed(new, run_id, attempt):
                return False
            # Who leads since then hands out what waits, and counts what runs: this start would come behind its back.
            # What is to be drained starts nothing; the request waits on.
            self._is_drained = not ask_first and _holds(new, "drain_started")
            return ask_first or not (stop.reason or self._is_drained or _holds(new, "supervisor_started"))

        self._is_by_hand = ask_first
        self._reader.seek(since)
        try:
            return bool(self._log.append_if(is_free, [request, started] if ask_first else [started], self._reader))
        except LogNotFlushed as error:
            # It is on record, so it is ours; nobody else would ever end it.
            logger.error("run %s: %s", run_id, error)  # noqa: TRY400
            return True

    def refusal(self, request: RunRequest, stop: Stop) -> Result:
        """Return the result of a claim that failed."""
        if stop.reason is not None or self._is_drained:
            return Result(*_key(request), "unclaimed", stop.reason or "nothing is to start now (drain)")
        return Result(*_key(request), "refused", "another process has claimed it")

    def perform(self, request: RunRequest, stop: Stop) -> Result:
        """Run what was claimed, and put its end on record."""
        reach("after_claim")
        run_id, attempt = _key(request)
        result = self.last_result = self._run(request, run_id, attempt, stop)
        status = result["status"]
        if status == "parked":
            reach("after_park")
            return Result(run_id, attempt, status, duration_s=round(result["duration_s"], 6))
        finish: Event = {
            "event": "run_finished",
            **run_fields(request),
            "attempt": attempt,
            "status": status,
            "reason": (self._why(status) or result.get("reason") or "")[:_REASON_CHARS] or None,
            "duration_s": round(result.get("duration_s", 0.0), 6),
            "tasks": _count_statuses(result),
            **next_attempt(request, status, datetime.now(UTC)),
        }
        reach("before_finish")
        unrecorded = None if self.record_end(finish) else finish
        return Result(run_id, attempt, status, finish["reason"], finish["duration_s"], unrecorded)

    def _why(self, status: str) -> str | None:
        """Return why a run was cancelled, from the request to cancel it, if there was one since it was claimed."""
        if status != "cancelled" or self._link is None:
            return None
        self._link.news()
        return None if self._link.cancel is None else cancel_text(self._link.cancel)

    def record_end(self, finish: Event) -> bool:
        """Append a `run_finished`; return whether the log took it."""
        try:
            self._log.append(finish)
        except LogNotFlushed as error:
            logger.error("run %s: %s", finish["run_id"], error)  # noqa: TRY400
        except (LogUnwritable, LockTimeout) as error:
            logger.error("run %s: its end is not on record yet: %s", finish["run_id"], error)  # noqa: TRY400
            return False
        return True

    def _run(self, request: RunRequest, run_id: str, attempt: int, stop: Stop) -> dict[str, Any]:
        settings = self._settings
        by_hand = self._perform_child if self._is_by_hand else None
        link = self._link = RunLink(self._log, self._reader, self._task_log.path, request, by_hand)
        if wrong := wrong_in(request):
            return {"status": "failed", "reason": wrong}
        try:
            project = Path(request.get("project") or ".")
            dag = self._dags.dag(project, request)
            return run_dag(
                dag,
                params={**_wanted(dag, request.get("offered") or {}), **(request.get("params") or {})},
                run=RunInfo(
                    run_id=run_id,
                    schedule_id=str(request.get("schedule_id") or request.get("for_schedule") or ""),
                    fire_time=str(request.get("minute") or ""),
                    attempt=attempt,
                    tenant=str(request.get("tenant") or ""),
                    started_at=str(request.get("timestamp") or "") or None,
                ),
                project=project,
                logs_dir=Path(settings.run_logs_dir),
                record=self._record,
                stop=stop,
                timeout_s=request.get("timeout_s"),
                grace_s=settings.task_grace_s,
                marker=marker_for(self._log.path, run_id, attempt),
                log_limit=settings.task_log_bytes,
                kept=kept_of(self._task_log.path, run_id, unpack(request.get("kept") or ())),
                link=link,
            )
        except InvalidFile as error:
            return {"status": "failed", "reason": str(error.faults[0]) if error.faults else str(error)}
        except TickpoolError as error:
            return {"status": "failed", "reason": str(error)}
        except Exception as error:  # the worker's edge: a fault of ours ends this run, not the worker
            logger.exception("run %s", run_id)
            return {"status": "failed", "reason": f"internal error: {type(error).__name__}: {error}"}

    def _perform_child(self, request: RunRequest, mask: Mask) -> int:
        """Perform the run that a run by hand asks for, in a process of its own; return the exit code."""
        stop = Stop()
        signal.signal(signal.SIGTERM, lambda *_: stop.request("the run that asked for it has stopped it"))
        become_subreaper()
        executor, told = Executor(self._settings), {**request, "params": mask.plain(request["params"])}
        is_ours = executor.claim(told, stop, ask_first=True)
        return 0 if is_ours and executor.perform(request, stop).status == "success" else 1

    def _record(self, event: Event) -> None:
        """Append a task event. A task log that cannot be written is no reason to lose the work."""
        if self._on_task_event:
            self._on_task_event(event)
        try:
            self._task_log.append(event)
        except TickpoolError as error:
            logger.warning("run %s: task event lost: %s", event.get("run_id"), error)


def _key(request: RunRequest) -> tuple[str, int]:
    return str(request["run_id"]), int(request.get("attempt") or 1)


def _holds(events: list[Event], name: str) -> bool:
    return any(event.get("event") == name for event in events)


def _wanted(dag: Dag, offered: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a request offers of params that the DAG declares; it need not declare them."""
    return {name: offered[name] for name in offered if name in dag.params}


def _is_claimed(events: list[Event], run_id: str, attempt: int) -> bool:
    """Say whether these events start this attempt, end the run, or ask for its end."""
    return any(
        event.get("run_id") == run_id
        and (
            event.get("event") == "cancel_requested"
            or (event.get("event") in ("run_started", "run_finished") and (event.get("attempt") or 1) >= attempt)
        )
        for event in events
    )


def _count_statuses(result: dict[str, Any]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for task in result.get("tasks", {}).values():
        counts[task["status"]] = counts.get(task["status"], 0) + 1
    return counts


def is_worker(pid: int) -> bool:
    """Say whether a process is a worker, of any service, or was forked by one."""
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").startswith(WORKER_NAME)
    except OSError:
        return False


def serve(number: int, settings: Settings, inbox: Queue[Any], results: Connection) -> None:
    """Be worker `number`: take (request, position) from `inbox` and send a Result each, until None or the owner's end.

    SIGTERM cancels the present run, records its end, and ends the worker.
    """
    os.setsid()  # a signal for the owner's whole process group (a terminal's, timeout(1)'s) is for the owner to handle
    prctl()(_PR_SET_NAME, f"{WORKER_NAME}{number}".encode(), 0, 0, 0)  # what ps and top show
    present: list[Stop] = []
    _install_signals(present)
    become_subreaper()
    # Without our own copy of the writing end, the owner's death ends the blocking `get` below with EOFError.
    inbox._writer.close()  # type: ignore[attr-defined]
    os.environ.update(settings.environ())
    arm(settings.failpoints)
    make_safe()
    executor = Executor(settings)
    executor.leave_flushing()
    while True:
        try:
            item = inbox.get()
        except (EOFError, OSError):
            return
        if item is None:
            return
        stop = Stop()
        present.append(stop)
        result = _answer(executor, stop, *item)
        try:
            results.send(result)
        except OSError:
            _record_without_owner(executor, stop, result)
            return
        present.clear()
        stop.close()
        if stop.reason:
            return


def _install_signals(present: list[Stop]) -> None:
    """SIGTERM is for the run that is `present`; SIGINT and SIGHUP are for the owner."""

    def on_term(_signum: int, _frame: FrameType | None) -> None:
        if not present:
            sys.exit(0)
        present[0].request("the worker was told to stop")

    signal.signal(signal.SIGTERM, on_term)
    for number in (signal.SIGINT, signal.SIGHUP):
        # Not SIG_IGN: tasks would inherit it across exec (signal(7)), and could not be interrupted.
        signal.signal(number, _pass)


def _pass(_signum: int, _frame: FrameType | None) -> None:
    pass


def _answer(executor: Executor, stop: Stop, request: RunRequest, since: Position) -> Result:
    try:
        is_ours = executor.claim(request, stop, since)
    except (TickpoolError, OSError) as error:
        return Result(*_key(request), "unclaimed", str(error))
    # From here on nothing is caught: a worker that cannot tell the end of what it claimed has to die for it.
    return executor.perform(request, stop) if is_ours else executor.refusal(request, stop)


def _record_without_owner(executor: Executor, stop: Stop, result: Result) -> None:
    """Record the end that the log would not take: nobody else is there any more who knows it."""
    while result.unrecorded is not None and stop.reason is None and not executor.record_end(result.unrecorded):
        time.sleep(_RECORD_AGAIN_S)
