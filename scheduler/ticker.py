"""The tick: every fire time that has come gets its one verdict, in one append.

`Ticker` keeps the heap of next fire times, so an idle tick looks at one entry and a busy one only at what is due.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from workers.events import Event
from workers.settings import read_settings

from .cron import NaiveDatetime
from .history import History
from .judge import Fires, due, first_since, judge
from .matrix import expand
from .schedule_model import Schedule
from .schedule_rules import schedule_from
from .state_store import StateStore
from .triggers import Trigger

__all__ = ["RunQueueLike", "Ticker", "tick_once"]


class RunQueueLike(Protocol):
    """What `tick_once` needs of a queue; `multiprocessing.Queue` and `queue.Queue` have it."""

    def put(self, item: Event, /) -> object:
        """Take one RunRequest."""


class Ticker:
    """The schedules in force and a heap of their next fire times. Every `now` is an aware datetime."""

    def __init__(self, store: StateStore, schedules: Iterable[Schedule], now: datetime) -> None:
        self._store = store
        self.replace(schedules, now)

    def replace(self, schedules: Iterable[Schedule], now: datetime) -> None:
        """Take other schedules; each goes on from what the log has judged of it."""
        self.schedules = {schedule.id: schedule for schedule in schedules}
        self.resume(now)

    def resume(self, now: datetime) -> None:
        """Build the heap anew from what the log has judged."""
        now = _utc(now)
        following = _Following(now)
        self._heap: list[tuple[float, str]] = []
        for schedule in self.schedules.values():
            if schedule.enabled:
                # A clock that stands before all that was judged was set back: judge its present minute, if nobody has.
                since = self._store.history.judged_until(schedule.id, now) or first_since(now)
                fire = following.after(schedule, since)
                if fire is not None:
                    self._heap.append((fire, schedule.id))
        heapq.heapify(self._heap)

    def next_fire(self) -> datetime | None:
        """Return the next fire time of any schedule, in UTC."""
        return datetime.fromtimestamp(self._heap[0][0], UTC) if self._heap else None

    def tick(self, now: datetime, late_reason: str = "late") -> list[Event]:
        """Record the verdict on every fire time up to `now`, in one append; return the events recorded."""
        now = _utc(now)
        limit = now.timestamp()
        if not self._heap or self._heap[0][0] > limit:
            return []
        ready = []
        while self._heap and self._heap[0][0] <= limit:
            ready.append(heapq.heappop(self._heap))
        following = _Following(now)
        try:
            due_now = [(self.schedules[name], *following.due(self.schedules[name], first)) for first, name in ready]

            def verdicts(history: History) -> list[Event]:
                return [event for each, fires, _ in due_now for event in judge(each, fires, now, history, late_reason)]

            recorded = self._store.commit(verdicts)
            ready = [(fire, each.id) for each, _, fire in due_now if fire is not None]
        finally:
            # After a failed append the schedules stay due: the next tick judges them.
            for entry in ready:
                heapq.heappush(self._heap, entry)
        return recorded


class _Following:
    """The fire times around one `now`, worked out once for all schedules that share expression and zone."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._after: dict[tuple[Trigger, str, datetime], float | None] = {}
        self._due: dict[tuple[Trigger, str, float], tuple[Fires, float | None]] = {}

    def after(self, schedule: Schedule, since: datetime) -> float | None:
        """Return the schedule's first fire time after `since`, in seconds since the epoch."""
        key = (schedule.fires, schedule.timezone, since)
        if key not in self._after:
            fire = schedule.fires.next(since.astimezone(schedule.zone))
            self._after[key] = None if fire is None else fire.timestamp()
        return self._after[key]

    def due(self, schedule: Schedule, first: float) -> tuple[Fires, float | None]:
        """Return the schedule's fire times from `first` to now, and the next one after now."""
        key = (schedule.fires, schedule.timezone, first)
        found = self._due.get(key)
        if found is None:
            start = datetime.fromtimestamp(first, UTC)
            following = self.after(schedule, start)
            fires = [start]
            if following is not None and following <= self._now.timestamp():
                fires += due(schedule, start, self._now)
                following = self.after(schedule, self._now)
            found = self._due[key] = (fires, following)
        return found


def _utc(now: datetime) -> datetime:
    """Return `now` in UTC: two times of one zone are compared by their wall clocks. Raises NaiveDatetime."""
    if now.utcoffset() is None:
        raise NaiveDatetime(now)
    return now.astimezone(UTC)


def tick_once(now: datetime, schedules: Iterable[Schedule | Mapping[str, Any]], run_queue: RunQueueLike) -> list[Event]:
    """Judge the schedules at `now` (aware), record each verdict, put the new RunRequests on `run_queue`; return them.

    The state log is STATE_STORE_PATH. A request is recorded before it is put. A minute that has its verdict, by this
    process or any other, is not judged again. Raises LogUnwritable, LockTimeout, and InvalidFile for a bad mapping.
    """
    store = StateStore(read_settings(os.environ).state_log())
    try:
        store.refresh()
        ticker = Ticker(store, [each for entry in schedules for each in expand(schedule_from(entry))], now)
        requests = [event for event in ticker.tick(now) if event["event"] == "schedule_enqueued"]
    finally:
        store.close()
    for request in requests:
        run_queue.put(request)
    return requests
