"""The next fire time of each schedule in force, kept: to work them all out takes a second for ten thousand."""

from __future__ import annotations

import heapq
import time
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import msgspec

from scheduler.history import History
from scheduler.schedule_model import Schedule, schedule_from_spec
from workers.errors import TickpoolError

__all__ = ["Fire", "FireTimes"]

_HOUR_S = 3600.0
# A drawing an hour long has no room for what is closer. Fire times are whole seconds.
_APART = timedelta(seconds=14)

_UNREADABLE = (TickpoolError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError)


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

    def schedule(self, history: History, name: str) -> Schedule | None:
        """Return a schedule that is in force; None for one that is not there, or whose spec cannot be read."""
        state = history.schedules.get(name)
        if state is None or not state.spec:
            return None
        known = self._schedules.get(name)
        if known is None or known[0] is not state.spec:
            found = None
            # A newer version may have written it.
            with suppress(*_UNREADABLE):
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
            with suppress(*_UNREADABLE):
                told = schedule.fires.explain()
            known = self._words[name] = (schedule, told)
        return known[1] if known is not None and schedule is not None else ""

    def refresh(self, history: History, now: datetime, budget_s: float) -> bool:
        """Work out what is new or has passed, for so long at most; say whether all is known."""
        end, now_s = time.monotonic() + budget_s, now.timestamp()
        for name in [name for name in self._next if name not in history.schedules]:
            del self._next[name], self._schedules[name]
            self._words.pop(name, None)
            self._later.pop(name, None)
        for name, state in history.schedules.items():
            schedule = self.schedule(history, name)
            known = self._next.get(name, 0.0)
            if known is None or known > now_s:
                continue
            fire = None
            if schedule is not None and state.spec.get("enabled"):
                with suppress(*_UNREADABLE):
                    fire = schedule.fires.next(now.astimezone(schedule.zone))
            self._next[name] = None if fire is None else fire.timestamp()
            if time.monotonic() > end:
                return False
        return True

    def at_s(self, name: str) -> float | None:
        """Return when a schedule fires next, as far as that is known."""
        return self._next.get(name)

    def soonest(self, history: History, now: datetime, limit: int) -> list[Fire]:
        """Return the next fire times of the schedules that are not paused, soonest first, one of each."""
        found = heapq.nsmallest(
            4 * limit,
            ((at_s, name) for name, at_s in self._next.items() if at_s is not None and at_s > now.timestamp()),
        )
        fires = [(name, at_s) for at_s, name in found if not self._is_held(history, name, at_s, now)]
        return [Fire(name, at_s, self._following(history, name, at_s)) for name, at_s in fires[:limit]]

    def _following(self, history: History, name: str, first_s: float) -> list[float]:
        """Return the fire times of an hour behind the next one; worked out once for each next one."""
        known = self._later.get(name)
        schedule = self.schedule(history, name)
        if schedule is None or (known is not None and known[0] == first_s):
            return known[1] if known is not None else []
        later_s: list[float] = []
        at: datetime | None = datetime.fromtimestamp(first_s, schedule.zone)
        with suppress(*_UNREADABLE):
            while at is not None and (at := schedule.fires.next(at + _APART)) is not None:
                if at.timestamp() > first_s + _HOUR_S:
                    break
                later_s.append(at.timestamp())
        self._later[name] = (first_s, later_s)
        return later_s

    @staticmethod
    def _is_held(history: History, name: str, at_s: float, now: datetime) -> bool:
        state = history.schedules.get(name)
        tenant = str(state.spec.get("tenant") or "default") if state is not None else "default"
        at = datetime.fromtimestamp(at_s, now.tzinfo)
        return history.pauses.is_paused(name, tenant, at, at)
