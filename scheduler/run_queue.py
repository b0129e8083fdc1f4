"""The run queue: which waiting run starts next. An in-memory fold of the log, so a restart refills it.

It has the queue protocol (`put`, `get_nowait`, `empty`, `qsize`), so `tick_once` can fill it.
"""

from __future__ import annotations

import heapq
import queue
from collections import OrderedDict
from collections.abc import Iterable

from workers.events import Event
from workers.run_request import RunRequest

from .history import Run, epoch
from .run_timers import time_of

__all__ = ["RunQueue"]


class RunQueue:
    """Waiting RunRequests in the order they were asked for; a run is in it once, however often it is put.

    A run with `overlap: queue` is held back until every run of its schedule before it has ended; a retry is held back
    until its time. `apply` follows the log; `get_nowait` hands out, `put_back` returns what could not be started.
    """

    def __init__(self) -> None:
        self._ready: OrderedDict[str, RunRequest] = OrderedDict()
        self._held: dict[str, OrderedDict[str, RunRequest]] = {}
        self._later: dict[str, RunRequest] = {}
        self._wakes: list[tuple[float, str]] = []
        # The runs of a schedule that are ready, held until their time, handed out, or running.
        self._active: dict[str, set[str]] = {}

    def load(self, runs: Iterable[Run]) -> None:
        """Take the open runs of a history: the queued ones wait, the running ones hold their schedule's turn."""
        waiting = []
        for run in runs:
            if run.status == "running":
                self._activate(run.request)
            else:
                waiting.append(run)
        for run in waiting:
            self.put_later(run.next_request(), run.retry_at)

    def put(self, request: RunRequest) -> None:
        """Add a request at the end."""
        run_id, schedule_id = str(request["run_id"]), str(request.get("schedule_id") or "")
        before = self._active.get(schedule_id, set()) - {run_id}
        if request.get("overlap") in ("queue", "replace") and before:
            self._held.setdefault(schedule_id, OrderedDict())[run_id] = request
        elif (not_before_s := time_of(request.get("not_before"))) is not None:
            self._activate(request)
            self._later[run_id] = request
            heapq.heappush(self._wakes, (not_before_s, run_id))
        else:
            self._activate(request)
            self._ready[run_id] = request

    def put_back(self, request: RunRequest) -> None:
        """Return a request that was handed out and not started: it is next again."""
        run_id = str(request["run_id"])
        self._activate(request)
        self._ready[run_id] = request
        self._ready.move_to_end(run_id, last=False)

    def get_nowait(self) -> RunRequest:
        """Hand out the next request that may start. Raises queue.Empty."""
        if not self._ready:
            raise queue.Empty
        return self._ready.popitem(last=False)[1]

    def empty(self) -> bool:
        """Say whether nothing may start now."""
        return not self._ready

    def qsize(self) -> int:
        """Return how many runs wait, held back ones included."""
        return len(self._ready) + len(self._later) + sum(map(len, self._held.values()))

    def next_wake(self) -> float | None:
        """Return the wall-clock time, seconds since the epoch, at which the next held-back retry may start."""
        while self._wakes and self._wakes[0][1] not in self._later:
            heapq.heappop(self._wakes)
        return self._wakes[0][0] if self._wakes else None

    def apply(self, event: Event) -> None:
        """Follow one event of the log."""
        name = event.get("event")
        if name in ("schedule_enqueued", "run_requested"):
            self.put(event)
        elif name in ("run_started", "run_finished"):
            run_id, schedule_id = str(event.get("run_id")), str(event.get("schedule_id") or "")
            self._ready.pop(run_id, None)
            self._later.pop(run_id, None)
            if schedule_id in self._held:
                self._held[schedule_id].pop(run_id, None)
            if name == "run_started":
                self._activate(event)
            elif not event.get("next_attempt"):
                self._end(run_id, schedule_id)

    def put_later(self, request: RunRequest, retry_at: str | None) -> None:
        """Add a further attempt, held back until `retry_at` (None: at once). It keeps its schedule's turn."""
        if retry_at is None:
            self.put(request)
            return
        run_id = str(request["run_id"])
        self._activate(request)
        self._later[run_id] = request
        heapq.heappush(self._wakes, (float(epoch(retry_at)), run_id))

    def wake(self, now_s: float) -> None:
        """Let the attempts start whose time (seconds since the epoch) has come."""
        while (wake_s := self.next_wake()) is not None and wake_s <= now_s:
            _, run_id = heapq.heappop(self._wakes)
            self._ready[run_id] = self._later.pop(run_id)

    def _activate(self, request: RunRequest | Event) -> None:
        schedule_id = str(request.get("schedule_id") or "")
        if schedule_id:
            self._active.setdefault(schedule_id, set()).add(str(request["run_id"]))

    def _end(self, run_id: str, schedule_id: str) -> None:
        """Close a run, and give its schedule's turn to the next that was held back for it."""
        active, held = self._active.get(schedule_id, set()), self._held.get(schedule_id)
        active.discard(run_id)
        if active:
            return
        self._active.pop(schedule_id, None)
        if held:
            self.put(held.popitem(last=False)[1])
        if not held:
            self._held.pop(schedule_id, None)
