"""Dispatch: hand waiting runs to free workers, and see that every started run comes to its end on record."""

from __future__ import annotations

import logging
import os
import queue
import time
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from multiprocessing import connection
from typing import Any, Protocol

from workers.errors import TickpoolError
from workers.event_log import LogUnwritable
from workers.events import Event
from workers.lock import LockTimeout
from workers.pool import Died, Finished, WorkerPool
from workers.process import Identity, is_alive
from workers.run_context import RunInfo
from workers.run_request import RunRequest
from workers.settings import Settings, read_settings

from .history import History, Run
from .recovery import exit_text, lost_finish, lost_runs, sweep_runs
from .run_queue import RunQueue
from .state_store import StateStore

__all__ = ["Dispatcher", "InvalidRequest", "drain_queue"]

logger = logging.getLogger(__name__)
_WAIT_S = 0.2
_KILLED_WITHIN_S = 5.0
_ASKING = ("schedule_enqueued", "run_requested")


class InvalidRequest(TickpoolError):
    """A RunRequest that asks for nothing that can be run: (the request, what it lacks)."""

    def __str__(self) -> str:
        return f"run request {self.args[0]!r}: {self.args[1]}"


class Dispatcher:
    """The run queue, the worker pool, and the watch over runs that other processes have."""

    def __init__(self, settings: Settings, size: int) -> None:
        self.store = StateStore(settings.state_log())
        self.queue = RunQueue()
        self.pool = WorkerPool(settings, size)
        self._only: Collection[str] | None = None
        self._watched: dict[int, Identity] = {}
        self._to_watch: list[Identity] = []
        self._unrecorded: list[Event] = []

    def recover(self, now: datetime) -> None:
        """Replay the log: refill the queue, watch runs whose process lives, close those whose process is gone."""
        self.store.refresh()
        runs = self.store.history.runs.values()
        self._close(lost_runs(runs, is_alive), "its worker did not outlive the service", now)
        self.queue.load(runs)
        self._to_watch += [run.process for run in runs if run.status == "running" and run.process]
        self.store.follow(self._follow)

    def take(self, requests: Iterable[RunRequest]) -> None:
        """Be concerned with these requests only, whatever else the log asks for."""
        for request in requests:
            self.queue.put(request)
        self._only = {str(request["run_id"]) for request in requests}
        self.store.follow(self._follow)

    def start_workers(self) -> None:
        """Replace the workers that are missing; a system that gives no process now is asked again next time."""
        try:
            self.pool.start()
        except OSError as error:
            logger.error("cannot start a worker: %s", error)  # noqa: TRY400

    def dispatch(self, now: datetime) -> list[RunRequest]:
        """Hand requests to free workers while there are both; return those handed out."""
        self.queue.wake(now.timestamp())
        handed = []
        for _ in range(self.pool.free()):
            try:
                request = self.queue.get_nowait()
            except queue.Empty:
                break
            self.pool.submit(request, self.store.reader.position)
            handed.append(request)
        return handed

    def waitables(self) -> list[Any]:
        """Return what to wait on besides one's own: workers, and foreign processes that have runs."""
        return [*self.pool.waitables(), *self._watched]

    def settle(self, ready: Collection[Any], now: datetime, *, restart: bool = True) -> None:
        """Deal with what the wait brought: results, dead workers, foreign processes that ended."""
        outcomes = self.pool.collect(ready)
        self.store.refresh()
        for outcome in outcomes:
            if isinstance(outcome, Finished):
                self._finished(outcome)
            else:
                self._bury(outcome, now)
        for pidfd in [fd for fd in ready if fd in self._watched]:
            process = self._watched.pop(pidfd)
            os.close(pidfd)
            self._lose(process, f"process {process.pid} ended without a word", now)
        self._watch_new(now)
        self._record_late()
        if outcomes and restart:
            self.start_workers()

    def run_until(self, is_done: Callable[[], bool]) -> None:
        """Dispatch and settle until `is_done()`; for callers without a loop of their own."""
        self.start_workers()
        while True:
            now = datetime.now(UTC)
            self.store.refresh()
            if is_done():
                return
            self.dispatch(now)
            self.settle(connection.wait(self.waitables(), _WAIT_S), now)

    def kill(self) -> None:
        """Kill the workers that are left, and all that their tasks left; their runs are closed as cancelled."""
        self.pool.kill()
        deadline = time.monotonic() + _KILLED_WITHIN_S
        while not self.pool.is_empty() and time.monotonic() < deadline:
            self.settle(connection.wait(self.pool.waitables(), _WAIT_S), datetime.now(UTC), restart=False)

    def close(self) -> None:
        """End the workers, at once where one still has a run, and close the log."""
        self.pool.retire()
        deadline = time.monotonic() + _KILLED_WITHIN_S
        while not self.pool.is_empty() and not self.pool.busy() and time.monotonic() < deadline:
            self.settle(connection.wait(self.pool.waitables(), _WAIT_S), datetime.now(UTC), restart=False)
        self.kill()
        self.store.close()

    def _follow(self, event: Event) -> None:
        """Keep the queue in step with the log, and note the foreign processes that have runs."""
        run_id = str(event.get("run_id"))
        if self._only is not None and run_id not in self._only:
            return
        if event.get("event") not in _ASKING or self._only is None:
            self.queue.apply(event)
        run = self.store.history.runs.get(run_id)
        if run is None:
            return
        if event["event"] == "run_finished" and event.get("next_attempt"):
            self.queue.put_later(run.next_request(), event.get("retry_at"))
        elif event["event"] == "run_started" and run.process and run.process.pid not in self.pool.pids():
            self._to_watch.append(run.process)

    def _watch_new(self, now: datetime) -> None:
        """Watch foreign processes that have runs; one that is gone already loses them."""
        while self._to_watch:
            process = self._to_watch.pop()
            if process in self._watched.values():
                continue
            try:
                pidfd = os.pidfd_open(process.pid)
            except OSError:
                pidfd = -1
            if pidfd >= 0 and is_alive(process):
                self._watched[pidfd] = process
                continue
            if pidfd >= 0:
                os.close(pidfd)
            self._lose(process, f"process {process.pid} ended without a word", now)

    def _finished(self, outcome: Finished) -> None:
        if outcome.result.unrecorded:
            self._unrecorded.append(outcome.result.unrecorded)
        elif outcome.result.status == "unclaimed" and self._is_waiting(outcome.request):
            logger.error("run %s waits on: %s", outcome.result.run_id, outcome.result.reason)
            self.queue.put_back(outcome.request)

    def _bury(self, outcome: Died, now: datetime) -> None:
        """A worker is gone: an unstarted request waits again, a started one is closed as crashed."""
        text = exit_text(outcome.process.pid, outcome.exit_code)
        if not outcome.expected:
            logger.warning("%s", text)
            run_id = outcome.request["run_id"] if outcome.request else None
            self._try_append({"event": "worker_exited", "worker_pid": outcome.process.pid, "reason": text, "run_id": run_id})
        self._lose(outcome.process, text, now, "cancelled" if outcome.expected else "crashed")
        if outcome.request and self._is_waiting(outcome.request):
            self.queue.put_back(outcome.request)

    def _is_waiting(self, request: RunRequest) -> bool:
        return self.store.history.is_waiting(str(request["run_id"]), int(request.get("attempt") or 1))

    def _lose(self, process: Identity, reason: str, now: datetime, status: str = "crashed") -> None:
        """Close the runs that this process had."""
        self.store.refresh()
        runs = self.store.history.runs.values()
        self._close([run for run in runs if run.status == "running" and run.process == process], reason, now, status)

    def _close(self, lost: list[Run], reason: str, now: datetime, status: str = "crashed") -> None:
        """Kill what is left of these runs, then put their end on record: a state changes only after the tree is gone."""
        late = {event["run_id"] for event in self._unrecorded}
        lost = [run for run in lost if run.run_id not in late]
        if not lost:
            return
        sweep_runs(self.store.log.path, lost)
        self._unrecorded += [lost_finish(run, status, reason, now) for run in lost]
        self._record_late()

    def _record_late(self) -> None:
        """Append the ends that are not on record yet; those that the log will not take are kept for the next time."""
        if not self._unrecorded:
            return

        def still_open(history: History) -> list[Event]:
            return [event for event in self._unrecorded if history.is_running(event["run_id"], event["attempt"])]

        try:
            self.store.commit(still_open)
        except (LogUnwritable, LockTimeout) as error:
            logger.error("%d run(s) have no end on record yet: %s", len(self._unrecorded), error)  # noqa: TRY400
        else:
            self._unrecorded.clear()

    def _try_append(self, event: Event) -> None:
        try:
            self.store.commit(lambda _: [event])
        except (LogUnwritable, LockTimeout) as error:
            logger.error("%s", error)  # noqa: TRY400


class _Queue(Protocol):
    """What `drain_queue` needs of a queue."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002 - the standard's
        """Take an item, or raise queue.Empty."""

    def qsize(self) -> int:
        """Return about how many items there are."""


def drain_queue(run_queue: _Queue, max_parallel: int = 3) -> list[dict[str, Any]]:
    """Execute every RunRequest of the queue on worker processes; return one mapping a run, in the queue's order.

    A mapping holds `run_id`, `schedule_id`, `minute`, `attempt`, `status`, `reason`, `duration_s`. The state log is
    STATE_STORE_PATH. A request that the log does not have is recorded first. Attempts that the request allows are
    made before this returns. Raises InvalidRequest for a request without a DAG; then nothing was run.
    """
    requests = [_complete(request) for request in _take_all(run_queue)]
    if not requests:
        return []
    settings = read_settings(os.environ)
    dispatcher = Dispatcher(settings, min(max_parallel, len(requests)))
    ends: dict[str, Event] = {}

    def note(event: Event) -> None:
        if event.get("event") == "run_finished" and not event.get("next_attempt"):
            ends[str(event.get("run_id"))] = event

    try:
        dispatcher.store.refresh()
        waiting = _admit(dispatcher.store, requests)
        dispatcher.store.follow(note)
        dispatcher.take(waiting)
        dispatcher.run_until(lambda: all(request["run_id"] in ends for request in waiting))
    finally:
        dispatcher.close()
    return [_outcome(request, ends.get(request["run_id"])) for request in requests]


def _take_all(run_queue: _Queue) -> Iterable[Any]:
    # An mp.Queue counts an item before its feeder thread has written it: wait for what was counted.
    while run_queue.qsize() > 0:
        try:
            yield run_queue.get(timeout=5)
        except queue.Empty:
            return


def _complete(request: Any) -> RunRequest:
    if not isinstance(request, dict) or not request.get("dag"):
        raise InvalidRequest(request, "it names no `dag`")
    if request.get("run_id"):
        return request
    name = str(request.get("schedule_id") or "run")
    return {**request, "run_id": RunInfo.manual(name, datetime.now(UTC)).run_id}


def _admit(store: StateStore, requests: list[RunRequest]) -> list[RunRequest]:
    """Record the requests that the log does not have; return those that are waiting to run."""

    def unknown(history: History) -> list[Event]:
        return [
            {"attempt": 1, **request, "event": "schedule_enqueued"}
            for request in requests
            if "seq" not in request and request["run_id"] not in history.runs
        ]

    store.commit(unknown)
    runs = store.history.runs
    return [request for request in requests if request["run_id"] in runs]


def _outcome(request: RunRequest, end: Event | None) -> dict[str, Any]:
    facts = end or {"status": "refused", "reason": "it has run already", "attempt": request.get("attempt")}
    return {
        "run_id": request["run_id"],
        "schedule_id": request.get("schedule_id"),
        "minute": request.get("minute"),
        "attempt": facts.get("attempt"),
        "status": facts["status"],
        "reason": facts.get("reason"),
        "duration_s": facts.get("duration_s"),
    }
