"""The tick: every fire time that has come gets its one verdict, in one append."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from workers.events import Event
from workers.settings import read_settings

from .cron import NaiveDatetime
from .cron_times import EPOCH
from .fire_heap import FireHeap, verdicts_on
from .matrix import expand
from .schedule_model import Schedule
from .schedule_rules import schedule_from
from .state_store import StateStore
from .waits import Found, arrived, verdicts_on_arrivals

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
        self._fires = FireHeap(self.schedules.values(), self._store.history, _utc(now))

    def next_fire(self) -> datetime | None:
        """Return the next fire time of any schedule, in UTC."""
        fire_s = self._fires.next_s()
        return None if fire_s is None else datetime.fromtimestamp(fire_s, UTC)

    def has_arrivals(self) -> bool:
        """Say whether a run has ended for which a schedule has waited, and that has no verdict yet."""
        return any(arrived(self.schedules, self._store.history, (), EPOCH))

    def follow(self, now: datetime) -> list[Event]:
        """Record the verdicts on what has come by ends of runs, and on no fire time; return the events recorded."""
        if not self.has_arrivals():
            return []
        return self._store.commit(lambda history: verdicts_on_arrivals(self.schedules, history, (), _utc(now)))

    def is_due(self, now: datetime, files: Iterable[Found] = ()) -> bool:
        """Say whether a tick at `now` has anything to judge."""
        fire_s = self._fires.next_s()
        if fire_s is not None and fire_s <= _utc(now).timestamp():
            return True
        return any(arrived(self.schedules, self._store.history, files, now))

    def tick(self, now: datetime, late_reason: str = "late", files: Iterable[Found] = ()) -> list[Event]:
        """Record the verdict on every fire time up to `now`, and on what has come for those that wait for something.

        All in one append; return the events recorded. Of what has come for one schedule the oldest is judged; `files`
        are those that lie at the paths of schedules with `on_file`. After a failed append the schedules stay due: the
        next tick judges them.
        """
        now, files = _utc(now), list(files)
        if not self.is_due(now, files):
            return []
        with self._fires.taking(now) as taken:
            return self._store.commit(
                lambda history: [
                    *verdicts_on(taken, now, history, late_reason),
                    *verdicts_on_arrivals(self.schedules, history, files, now),
                ]
            )


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
