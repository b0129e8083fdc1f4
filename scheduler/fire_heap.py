"""The next fire times, soonest first: what the service's tick and the forecast's have in common. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple

from workers.events import Event

from .history import History
from .judge import Fires, due, first_since, judge
from .schedule_model import Schedule
from .triggers import Trigger

__all__ = ["Due", "FireHeap", "verdicts_on"]


class Due(NamedTuple):
    """A schedule, its fire times that have come (in UTC), and the next one after them in seconds since the epoch."""

    schedule: Schedule
    fires: Fires
    following_s: float | None


class FireHeap:
    """The enabled schedules by their next fire time; each goes on from what `history` has judged of it.

    An idle look costs one comparison, and a busy one only what is due.
    """

    def __init__(self, schedules: Iterable[Schedule], history: History, now: datetime) -> None:
        self._schedules = {schedule.id: schedule for schedule in schedules if schedule.enabled}
        following = _Following(now)
        self._heap: list[tuple[float, str]] = []
        for schedule in self._schedules.values():
            # A clock that stands before all that was judged was set back: judge its present minute, if nobody has.
            since = history.judged_until(schedule.id, now) or first_since(now)
            fire = following.after(schedule, since)
            if fire is not None:
                self._heap.append((fire, schedule.id))
        heapq.heapify(self._heap)

    def next_s(self) -> float | None:
        """Return the next fire time of any schedule, in seconds since the epoch."""
        return self._heap[0][0] if self._heap else None

    @contextmanager
    def taking(self, now: datetime) -> Iterator[list[Due]]:
        """Give what is due at `now` (in UTC) to the block. If it raises, the schedules stay due."""
        limit = now.timestamp()
        ready = []
        while self._heap and self._heap[0][0] <= limit:
            ready.append(heapq.heappop(self._heap))
        following = _Following(now)
        try:
            taken = [Due(each, *following.due(each, first)) for first, each in self._named(ready)]
            yield taken
            ready = [(fire, each.id) for each, _, fire in taken if fire is not None]
        finally:
            for entry in ready:
                heapq.heappush(self._heap, entry)

    def _named(self, entries: Iterable[tuple[float, str]]) -> Iterator[tuple[float, Schedule]]:
        return ((at, self._schedules[name]) for at, name in entries)


def verdicts_on(taken: Sequence[Due], now: datetime, history: History, late_reason: str) -> list[Event]:
    """Return the verdict on every fire time that was taken, schedule by schedule."""
    return [event for each, fires, _ in taken for event in judge(each, fires, now, history, late_reason)]


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
