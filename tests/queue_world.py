"""Workers and time around a run queue, played: for tests of who comes next over hours."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from scheduler.limits import Limits
from scheduler.run_queue import RunQueue
from workers.events import Event

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class World:
    """A queue, so many workers, and a clock in seconds since `START`.

    A run takes its `length_s` (default 60), and belongs to the tenant before the dot of its name.
    """

    def __init__(self, workers: int, limits: Limits | None = None) -> None:
        self.queue = RunQueue(limits)
        self.workers = workers
        self.now_s = 0.0
        self.asked_at: dict[str, float] = {}
        self.began_at: dict[str, float] = {}
        self.ended_at: dict[str, float] = {}
        self.running: dict[str, Event] = {}
        self._number = 0
        self._ends: list[tuple[float, str]] = []
        self._asks: list[tuple[float, int, Event]] = []

    def ask(self, run_id: str, at_s: float = 0.0, **fields: Any) -> None:
        """Let a run be asked for at some time."""
        request = {"event": "schedule_enqueued", "run_id": run_id, "schedule_id": f"of-{run_id}", "attempt": 1}
        request |= {"tenant": owner(run_id), **fields, "timestamp": stamp(at_s)}
        self._number += 1
        heapq.heappush(self._asks, (at_s, self._number, request))

    def live(self, until_s: float, look: Callable[[], object] = lambda: None) -> None:
        """Let time pass; `look` is called whenever all that may start has started."""
        while True:
            self._start_all()
            look()
            next_s = min([at for at, _ in self._ends[:1]] + [at for at, _, _ in self._asks[:1]], default=until_s)
            if next_s >= until_s:
                self.now_s = until_s
                return
            self.now_s = next_s
            while self._ends and self._ends[0][0] <= next_s:
                self._end(heapq.heappop(self._ends)[1])
            while self._asks and self._asks[0][0] <= next_s:
                event = heapq.heappop(self._asks)[2]
                self.asked_at[event["run_id"]] = next_s
                self.queue.apply(event)

    def work_s(self, tenant: str) -> float:
        """Return how many seconds of work the tenant's runs were given, up to now."""
        ended = self.ended_at
        return sum(
            ended.get(run_id, self.now_s) - began for run_id, began in self.began_at.items() if owner(run_id) == tenant
        )

    def waits_s(self, tenant: str) -> list[float]:
        """Return how long the tenant's runs waited that began."""
        return [began - self.asked_at[name] for name, began in self.began_at.items() if owner(name) == tenant]

    def _start_all(self) -> None:
        self.queue.wake(START.timestamp() + self.now_s)
        while len(self.running) < self.workers and not self.queue.empty():
            request = self.queue.get_nowait()
            run_id = request["run_id"]
            assert run_id not in self.began_at
            self.began_at[run_id], self.running[run_id] = self.now_s, request
            self.queue.apply({**request, "event": "run_started", "timestamp": stamp(self.now_s), "pid": 7})
            heapq.heappush(self._ends, (self.now_s + request.get("length_s", 60.0), run_id))

    def _end(self, run_id: str) -> None:
        request = self.running.pop(run_id)
        self.ended_at[run_id] = self.now_s
        end = {"event": "run_finished", "duration_s": self.now_s - self.began_at[run_id], "status": "success"}
        self.queue.apply({**request, **end, "timestamp": stamp(self.now_s)})


def stamp(at_s: float) -> str:
    """Return a time as the log has it."""
    return (START + timedelta(seconds=at_s)).isoformat().replace("+00:00", "Z")


def owner(run_id: str) -> str:
    """Return the tenant that a run is named after."""
    return run_id.split(".")[0]
