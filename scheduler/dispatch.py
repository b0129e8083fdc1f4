"""Dispatch: hand waiting runs to free workers, and see that every started run comes to its end on record."""

from __future__ import annotations

import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from multiprocessing import connection
from pathlib import Path
from typing import Any

from workers.event_log import LogNotFlushed
from workers.events import Event
from workers.failpoints import reach
from workers.pool import Died, Finished, WorkerPool
from workers.process import Identity, is_alive
from workers.process_tree import reap_orphans, sweep
from workers.run_request import RunRequest
from workers.settings import Settings

from .cancels import Cancels
from .history import History
from .open_runs import Run, is_fit
from .owed import Owed
from .parked_runs import parent_of
from .process_watch import ProcessWatch
from .recovery import exit_text, lost_finish, lost_runs, sweep_runs
from .run_queue import RunQueue
from .run_timers import RunTimers, has_news, news_events, timer_events
from .state_store import StateStore

__all__ = ["Dispatcher"]

logger = logging.getLogger(__name__)
_WAIT_S = 0.2
_KILLED_WITHIN_S = 5.0
_FLUSH_S = 0.5
_KILLED = ("cancelled: its worker was killed", "cancelled")
_ASKING = ("schedule_enqueued", "run_requested")


class Dispatcher:
    """The run queue, the worker pool, and the watch over runs that other processes have.

    With `adopts` this process is a subreaper whose only children are the pool's: any other child is something that a
    dead worker's task left, and is killed with it.
    """

    def __init__(self, settings: Settings, size: int, *, adopts: bool = False) -> None:
        self.store = StateStore(settings.state_log())
        self.task_log = settings.task_log()
        if settings.fsync == "interval":
            # Flushed by `flush`, when there is time: no run waits for the disk.
            self.store.log.fsync = "off"
        self.queue = RunQueue()
        self.pool = WorkerPool(settings, size)
        self._settings = settings
        self._adopts = adopts
        self._only: set[str] | None = None
        self._outcomes: deque[Finished | Died] = deque()
        self._watch = ProcessWatch()
        self._timers = RunTimers()
        self._cancels = Cancels(self.store.history, settings.task_grace_s)
        self._killed: set[Identity] = set()
        self._owed = Owed(self.store)
        self._flushed = self.store.reader.position
        self._dirty_since: float | None = None

    def recover(self, now: datetime) -> None:
        """Replay the log: refill the queue, watch runs whose process lives, close those whose process is gone."""
        self.store.refresh()
        runs = self.store.history.runs
        self._close(lost_runs(runs.values(), is_alive), "its worker did not outlive the service", now)
        self._owed.record()
        self.queue.limits = self.store.history.limits
        self.queue.load(run for run in runs.values() if is_fit(run.request))
        self._timers.load(runs.values())
        self._cancels.load(runs.values())
        for run in runs.values():
            if run.status == "running" and run.process:
                self._watch.add(run.process)
        self.store.follow(self._follow)

    def take(self, requests: Collection[RunRequest]) -> None:
        """Be concerned with these requests only, which the log has, and with the runs that they have asked for.

        Limits on record hold for them.
        """
        history = self.store.history
        names = dict.fromkeys(str(request["run_id"]) for request in requests)
        children = [run for name in names for run in history.children.of(name)]
        self.queue.limits = history.limits
        for request in (*requests, *(run.next_request() for run in children)):
            self.queue.put(request)
        self._only = {*names, *(run.run_id for run in children)}
        ours = [history.runs[name] for name in self._only if name in history.runs]
        self._timers.load(ours)
        self._cancels.load(ours)
        self.store.follow(self._follow)

    def has_open_runs(self) -> bool:
        """Say whether one of those that this process is concerned with is open."""
        return not (self._only or set()).isdisjoint(self.store.history.runs)

    def start_workers(self) -> None:
        """Replace the workers that are missing; a system that gives no process now is asked again later."""
        try:
            self.pool.start()
        except OSError as error:
            logger.error("cannot start a worker: %s", error)  # noqa: TRY400

    def dispatch(self, now: datetime) -> list[RunRequest]:
        """Hand requests to free workers while there are both; return those handed out."""
        handed: list[RunRequest] = []
        if self._owed.held_s() or self._is_draining():
            return handed
        self._close_unstarted(now)
        self.queue.wake(now.timestamp())
        for _ in range(self.pool.free()):
            request = self._next_waiting()
            if request is None:
                break
            reach("before_put")
            try:
                self.pool.submit(request, self.store.reader.position)
            except Exception:
                self.queue.put_back(request)
                raise
            handed.append(request)
        return handed

    def waitables(self) -> list[Any]:
        """Return what to wait on besides one's own: workers, and foreign processes that have runs."""
        return [*self.pool.waitables(), *self._watch.waitables()]

    def wake_s(self) -> float | None:
        """Return in how many seconds there is something to do that no waitable tells of; None when there is not."""
        held_s = self._owed.held_s()
        rests_s = [self.pool.pause_s()]
        if self._dirty_since is not None:
            rests_s.append(max(0.0, self._dirty_since + _FLUSH_S - time.monotonic()))
        if self._owed or (not self.queue.empty() and not self._is_draining() and (held_s or self.pool.free())):
            rests_s.append(held_s)
        times_s = (self.queue.next_wake(), self._timers.next_wake())
        rests_s += [max(held_s, at_s - time.time()) for at_s in times_s if at_s is not None]
        rests_s += [self._cancels.wake_s(), held_s if self._cancels.has_waiting() else None]
        return min((each for each in rests_s if each is not None), default=None)

    def settle(self, ready: Collection[Any], now: datetime, *, restart: bool = True) -> None:
        """Deal with what the wait brought: results, dead workers, foreign processes that ended.

        What could not be dealt with, because this raises, is dealt with by the next call.
        """
        self._outcomes += self.pool.collect(ready)
        self.store.refresh()
        while self._outcomes:
            outcome = self._outcomes[0]
            if isinstance(outcome, Finished):
                self._finished(outcome)
            else:
                self._bury(outcome, now)
            self._outcomes.popleft()
        for process in self._watch.look(ready):
            self._lose(process, now, *_KILLED if process in self._killed else ())
            self._watch.forget(process)
        self._killed.update(self._cancels.signal(self.pool, self._watch))
        self._owed.record()
        self._close_unstarted(now)
        if restart:
            self.start_workers()

    def flush(self) -> None:
        """Flush the logs half a second after something came; the workers leave it to this process."""
        if self._settings.fsync == "off" or self.store.reader.position == self._flushed:
            return
        now = time.monotonic()
        self._dirty_since = self._dirty_since or now
        if now - self._dirty_since < _FLUSH_S:
            return
        self._flushed, self._dirty_since = self.store.reader.position, None
        for log in (self.store.log, self.task_log):
            try:
                log.sync()
            except LogNotFlushed as error:
                logger.error("%s", error)  # noqa: TRY400

    def run_until(
        self, is_done: Callable[[], bool], on_handed: Callable[[list[RunRequest]], object] = lambda _: None
    ) -> None:
        """Dispatch and settle until `is_done()`; for callers without a loop of their own."""
        self.store.refresh()
        while not is_done():
            self.start_workers()
            on_handed(self.dispatch(datetime.now(UTC)))
            wake_s = self.wake_s()
            ready = connection.wait(self.waitables(), _WAIT_S if wake_s is None else min(wake_s, _WAIT_S))
            self.settle(ready, datetime.now(UTC))
            self.flush()

    def busy(self) -> int:
        """Return how many workers have runs: our own, and those of services that died."""
        return self.pool.busy() + len(self._watch.workers())

    def is_quiet(self) -> bool:
        """Say whether no worker is left."""
        return self.pool.is_empty() and not self._watch.workers()

    def terminate(self) -> None:
        """Tell all workers to cancel their runs and end, those of services that died as well."""
        self.pool.terminate()
        self._watch.signal_workers(signal.SIGTERM)

    def kill_adopted(self) -> None:
        """Kill the workers of services that died, and all that their tasks left; their runs are closed as cancelled."""
        self._killed.update(self._watch.signal_workers(signal.SIGKILL))
        deadline = time.monotonic() + _KILLED_WITHIN_S
        while self._watch.workers() and time.monotonic() < deadline:
            self.settle(connection.wait(self._watch.waitables(), _WAIT_S), datetime.now(UTC), restart=False)

    def kill(self) -> None:
        """Kill the workers that are left, and all that their tasks left; their runs are closed as cancelled."""
        self.pool.kill()
        self._await_workers(_KILLED_WITHIN_S)
        self._owed.let_go()
        self._owed.record()

    def close(self) -> None:
        """End the workers and close the log; tasks that still run get TERM, their grace, and KILL."""
        try:
            self.pool.retire()
            if self.pool.busy():
                self.pool.terminate()
            self._await_workers(_KILLED_WITHIN_S + self._settings.task_grace_s)
        finally:
            self.kill()
            self._watch.close()
            self._dirty_since = float("-inf")
            self.flush()
            self.store.close()
            self.task_log.close()

    def _await_workers(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.pool.is_empty() and time.monotonic() < deadline:
            self.settle(connection.wait(self.pool.waitables(), _WAIT_S), datetime.now(UTC), restart=False)

    def _close_unstarted(self, now: datetime) -> None:
        """Close what waits and was cancelled or may not start any more, and tell of deadlines that have passed."""
        due = self._timers.due(now.timestamp())
        if self._owed.held_s() or not (due or self._cancels.has_waiting() or has_news(self.store.history)):
            return

        def decide(history: History) -> list[Event]:
            cancelled = list(self._cancels.ends())
            gone = {event["run_id"] for event in cancelled}
            timed = timer_events(history, [each for each in due if each.run_id not in gone], now)
            return [*cancelled, *timed, *news_events(history, gone, self._only)]

        if self._owed.commit(decide, "what is too late waits"):
            self._timers.drop(due)

    def _follow(self, event: Event) -> None:
        """Keep the queue in step with the log, and note the foreign processes that have runs."""
        name, run_id = event.get("event"), str(event.get("run_id"))
        run = self.store.history.runs.get(run_id)
        if self._only is not None and name in _ASKING and run is not None and parent_of(run) in self._only:
            self._only.add(run_id)
        elif self._only is not None and (run_id not in self._only or name in _ASKING):
            return
        self._timers.follow(event)
        self._cancels.follow(event)
        if name in (*_ASKING, "run_resumed") and run is not None and run.status == "queued" and not is_fit(run.request):
            return
        self.queue.follow(event, run)
        if name == "run_started" and run is not None and run.process and run.process.pid not in self.pool.pids():
            self._watch.add(run.process)

    def _is_draining(self) -> bool:
        """Say whether an operator wants nothing started; who runs what it was given is not asked."""
        return self._only is None and self.store.history.drain is not None

    def _next_waiting(self) -> RunRequest | None:
        """Take the next request of the queue that nobody else has taken meanwhile, as the log has it now."""
        while not self.queue.empty():
            request = self.queue.get_nowait()
            if self._is_waiting(request):
                return self._present(request)
            self.queue.forget(request)
        return None

    def _present(self, request: RunRequest) -> RunRequest:
        """Return the request of a waiting run as it is now: since it was handed out the run may have been parked."""
        return self.store.history.runs[str(request["run_id"])].next_request()

    def _is_waiting(self, request: RunRequest) -> bool:
        run_id, history = str(request["run_id"]), self.store.history
        return history.is_waiting(run_id, int(request.get("attempt") or 1)) and history.runs[run_id].cancel is None

    def _finished(self, outcome: Finished) -> None:
        result = outcome.result
        if result.unrecorded:
            self._owed.add(result.unrecorded)
            self._owed.hold()
        elif result.status == "unclaimed" and self._is_waiting(outcome.request):
            logger.error("run %s waits: %s", result.run_id, result.reason)
            self.queue.put_back(self._present(outcome.request))
            self._owed.hold()

    def _bury(self, outcome: Died, now: datetime) -> None:
        """A worker is gone: an unstarted request waits again, a started one is closed as crashed."""
        process, request = outcome.process, outcome.request
        text = exit_text(process.pid, outcome.exit_code)
        if self._adopts:
            self._sweep_children()
        if outcome.expected:
            self._lose(process, now, f"cancelled: {text}", "cancelled")
        else:
            logger.warning("%s", text)
            place = len(self._owed)
            self._lose(process, now, text)
            exited = {"event": "worker_exited", "worker_pid": process.pid, "reason": text}
            self._owed.add({**exited, "run_id": request["run_id"] if request else None}, place=place)
        if request and self._is_waiting(request):
            self.queue.put_back(self._present(request))
        elif request:
            self.pool.forgive()

    def _sweep_children(self) -> None:
        family = self.pool.family()
        if family is not None:
            sweep(children_but=family)
            reap_orphans(family)

    def _lose(self, process: Identity, now: datetime, reason: str = "", status: str = "crashed") -> None:
        """Close the runs that this process had."""
        self.store.refresh()
        runs = self.store.history.runs.values()
        lost = [run for run in runs if run.status == "running" and run.process == process]
        self._close(lost, reason or f"process {process.pid} ended without a word", now, status)

    def _close(self, lost: list[Run], reason: str, now: datetime, status: str = "crashed") -> None:
        """Kill what is left of these runs, then owe the log their end: a state changes only after the tree is gone."""
        known = self._owed.ends()
        lost = [run for run in lost if run.run_id not in known]
        if lost:
            sweep_runs(self.store.log.path, Path(self._settings.events_path), lost)
            self._owed.add(*(lost_finish(run, status, reason, now) for run in lost))
