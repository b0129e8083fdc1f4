"""The run queue: which waiting run starts next. An in-memory fold of the log, so a restart refills it.

It has the queue protocol (`put`, `get_nowait`, `empty`, `qsize`), so `tick_once` can fill it.
"""

from __future__ import annotations

import heapq
import queue
from collections import OrderedDict, deque
from collections.abc import Iterable

from workers.events import Event
from workers.run_request import RunRequest

from .history import Run, epoch

__all__ = ["RunQueue"]


class RunQueue:
    """Waiting RunRequests in the order they were asked for.

    A run with `overlap: queue` is held back until the run of its schedule before it has ended; a retry is held back
    until its time. `apply` follows the log; `get_nowait` hands out, `put_back` returns what could not be started.
    """

    def __init__(self) -> None:
        self._ready: OrderedDict[str, RunRequest] = OrderedDict()
        self._held: dict[str, deque[RunRequest]] = {}
        self._turn: dict[str, str] = {}
        self._later: list[tuple[float, str, RunRequest]] = []

    def load(self, runs: Iterable[Run]) -> None:
        """Take the open runs of a history: the queued ones wait, the running ones hold their schedule's turn."""
        waiting = []
        for run in runs:
            if run.status == "running":
                self._take_turn(run.next_request())
            else:
                waiting.append(run)
        for run in waiting:
            self.put_later(run.next_request(), run.retry_at)

    def put(self, request: RunRequest) -> None:
        """Add a request at the end."""
        if self._take_turn(request):
            self._ready[str(request["run_id"])] = request
        else:
            self._held.setdefault(str(request["schedule_id"]), deque()).append(request)

    def put_back(self, request: RunRequest) -> None:
        """Return a request that was handed out and not started: it is next again."""
        run_id = str(request["run_id"])
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
        return self._later[0][0] if self._later else None

    def apply(self, event: Event) -> None:
        """Follow one event of the log."""
        name = event.get("event")
        if name in ("schedule_enqueued", "run_requested"):
            self.put(event)
        elif name == "run_started":
            self._ready.pop(str(event.get("run_id")), None)
        elif name == "run_finished":
            self._finished(event)

    def put_later(self, request: RunRequest, retry_at: str | None) -> None:
        """Add a further attempt, held back until `retry_at` (None: at once). It keeps its schedule's turn."""
        if retry_at is None:
            self.put(request)
            return
        self._take_turn(request)
        heapq.heappush(self._later, (float(epoch(retry_at)), str(request["run_id"]), request))

    def wake(self, now_s: float) -> None:
        """Let the attempts start whose time (seconds since the epoch) has come."""
        while self._later and self._later[0][0] <= now_s:
            self.put(heapq.heappop(self._later)[2])

    def _finished(self, event: Event) -> None:
        run_id, schedule_id = str(event.get("run_id")), str(event.get("schedule_id"))
        self._ready.pop(run_id, None)
        if not event.get("next_attempt") and self._turn.get(schedule_id) == run_id:
            del self._turn[schedule_id]
            held = self._held.get(schedule_id)
            if held:
                self.put(held.popleft())
            if not held:
                self._held.pop(schedule_id, None)

    def _take_turn(self, request: RunRequest) -> bool:
        """Say whether the request may be ready: it needs no turn, or has its schedule's, or takes a free one."""
        if request.get("overlap") != "queue":
            return True
        run_id = str(request["run_id"])
        return self._turn.setdefault(str(request["schedule_id"]), run_id) == run_id
