"""The next fire time of each schedule in force, kept: to work them all out takes a second for ten thousand."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec

from scheduler.history import History
from scheduler.schedule_model import Schedule, schedule_from_spec
from workers.errors import TickpoolError

__all__ = ["UNREADABLE", "Fire", "FireTimes"]

_HOUR_S = 3600.0
# A drawing an hour long has no room for what is closer. Fire times are whole seconds.
_APART_S = 14.0

# What comes of the spec of a schedule that this version, or this machine, cannot use.
UNREADABLE = (TickpoolError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError)


class Fire(msgspec.Struct):
    """The next fire time of a schedule, in seconds since the epoch, and those that follow within an hour.

    Those that come within 15 s of one that is told are left out, so of more than 120 there may be more.
    """

    schedule_id: str
    at_s: float
    later_s: list[float] = []


class FireTimes:
    """The schedules as their specs say, and when each fires next; `refresh` goes on where it left off."""

    def __init__(self) -> None:
        self._schedules: dict[str, tuple[dict[str, Any], Schedule | None]] = {}
        self._next: dict[str, float | None] = {}
        self._words: dict[str, tuple[Schedule, str]] = {}
        self._later: dict[str, tuple[float, list[float]]] = {}
        self._loads = -1
        self._left: list[str] = []
        # A heap; of a schedule that was edited since, or is gone, `_next` says otherwise.
        self._soonest: list[tuple[float, str]] = []

    def schedule(self, history: History, name: str) -> Schedule | None:
        """Return a schedule that is in force; None for one that is not there, or whose spec cannot be read."""
        state = history.schedules.get(name)
        if state is None or not state.spec:
            return None
        known = self._schedules.get(name)
        if known is None or known[0] is not state.spec:
            found = None
            # A newer version may have written it.
            with suppress(*UNREADABLE):
                found = schedule_from_spec(name, state.spec, history.calendars)
            known = self._schedules[name] = (state.spec, found)
            self._next.pop(name, None)
        return known[1]

    def words(self, history: History, name: str) -> str:
        """Say in plain words when a schedule that is in force fires; empty where that cannot be said."""
        schedule = self.schedule(history, name)
        known = self._words.get(name)
        if schedule is not None and (known is None or known[0] is not schedule):
            told = ""
            with suppress(*UNREADABLE):
                told = schedule.fires.explain()
            known = self._words[name] = (schedule, told)
        return known[1] if known is not None and schedule is not None else ""

    def refresh(self, history: History, loads: int, now: datetime, budget_s: float) -> bool:
        """Work out what is new or has passed, for so long at most; say whether all is known.

        `loads` counts how often schedules were loaded: only then are all of them looked at.
        """
        end, now_s = time.monotonic() + budget_s, now.timestamp()
        if self._loads != loads:
            self._loads = loads
            self._take_up(history)
        while self._soonest and self._soonest[0][0] <= now_s:
            at_s, name = heapq.heappop(self._soonest)
            if self._next.get(name) == at_s:
                self._left.append(name)
        while self._left:
            self._work_out(history, self._left.pop(), now)
            if time.monotonic() > end:
                return not self._left
        return True

    def at_s(self, name: str) -> float | None:
        """Return when a schedule fires next, as far as that is known."""
        return self._next.get(name)

    def soonest(self, history: History, now: datetime, limit: int) -> list[Fire]:
        """Return the next fire times of the schedules that are not paused, soonest first; one of each."""
        now_s = now.timestamp()
        fires = (
            (name, at_s)
            for at_s, name in _in_order(self._soonest)
            if at_s > now_s and self._next.get(name) == at_s and not self._is_held(history, name, at_s, now)
        )
        return [Fire(name, at_s, self._following(history, name, at_s)) for name, at_s in islice(fires, limit)]

    def _following(self, history: History, name: str, first_s: float) -> list[float]:
        """Return the fire times of an hour behind the next one; worked out once for each next one."""
        known = self._later.get(name)
        schedule = self.schedule(history, name)
        if schedule is None or (known is not None and known[0] == first_s):
            return known[1] if known is not None else []
        later_s: list[float] = []
        at_s = first_s
        with suppress(*UNREADABLE):
            # From seconds: by a zone's own clock, 14 s after the second of two equal hours is in the first (PEP 495).
            while fire := schedule.fires.next(datetime.fromtimestamp(at_s + _APART_S, schedule.zone)):
                at_s = fire.timestamp()
                if at_s > first_s + _HOUR_S:
                    break
                later_s.append(at_s)
        self._later[name] = (first_s, later_s)
        return later_s

    def _take_up(self, history: History) -> None:
        """Note which schedules are new, edited or gone."""
        for name in self._schedules.keys() - history.schedules.keys():
            del self._schedules[name]
            self._next.pop(name, None)
            self._words.pop(name, None)
            self._later.pop(name, None)
        known = {name: spec for name, (spec, _) in self._schedules.items() if name in self._next}
        self._left = [name for name, state in history.schedules.items() if known.get(name) is not state.spec]

    def _work_out(self, history: History, name: str, now: datetime) -> None:
        schedule, fire = self.schedule(history, name), None
        if schedule is not None and history.schedules[name].spec.get("enabled"):
            with suppress(*UNREADABLE):
                fire = schedule.fires.next(now.astimezone(schedule.zone))
        self._next[name] = None if fire is None else fire.timestamp()
        if fire is not None:
            heapq.heappush(self._soonest, (fire.timestamp(), name))

    @staticmethod
    def _is_held(history: History, name: str, at_s: float, now: datetime) -> bool:
        state = history.schedules.get(name)
        tenant = str(state.spec.get("tenant") or "default") if state is not None else "default"
        at = datetime.fromtimestamp(at_s, now.tzinfo)
        return history.pauses.is_paused(name, tenant, at, at)


def _in_order(heap: Sequence[tuple[float, str]]) -> Iterator[tuple[float, str]]:
    """Yield the entries of a heap, the smallest first, and leave it as it is."""
    places = [(heap[0], 0)] if heap else []
    while places:
        entry, place = heapq.heappop(places)
        yield entry
        for below in range(2 * place + 1, min(2 * place + 3, len(heap))):
            heapq.heappush(places, (heap[below], below))
