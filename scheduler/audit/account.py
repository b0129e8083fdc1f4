"""The account of one schedule: the fire times that its definition demands, against the verdicts that came."""

from __future__ import annotations

import copy
import itertools
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from scheduler.schedule_model import CLOSED, Schedule, schedule_from_spec
from scheduler.triggers import Trigger
from workers.errors import TickpoolError
from workers.events import iso

from .report import Ledger, Place

__all__ = ["Account", "Records", "Shared"]

# Fire times from a start on, which any number of schedules follow, each at its own pace (itertools.tee).
Shared = dict[tuple[Trigger, str, int], Iterator[int]]
# The days of calendars by the names that specs have for them.
Records = dict[str, dict[str, Any]]
_FAR = datetime(2200, 1, 1, tzinfo=UTC)
_MANY = 10_000


class Account:
    """One schedule: the fire times that are due, as an iterator that goes along with its verdicts.

    `before` are ranges of which the log holds no verdicts any more. `voided` is what was missed by a clock that was set
    back since: the service that saw it judges it anew; another one goes on from the latest time it finds, and then
    it is `excused`: it has had its verdict.
    """

    def __init__(self, schedule_id: str, since: int, ledger: Ledger) -> None:
        self.spec: dict[str, Any] = {}
        self.was_known = False
        self.watermark = self.latest = since
        self.judged: set[int] = set()
        self.missed: list[tuple[int, int]] = []
        self.before: list[tuple[int, int]] = []
        self.voided: list[tuple[int, int]] = []
        self.excused: list[tuple[int, int]] = []
        self._id = schedule_id
        self._ledger = ledger
        self._owed: dict[int, Place] = {}
        self._schedule: Schedule | None = None
        self._due: Iterator[int] = iter(())
        self._next: int | None = None

    def begin(self, spec: dict[str, Any], since: int, shared: Shared, calendars: Records) -> None:
        """Take a definition from `since` on, or from what is judged already if that is later.

        `shared` has the fire times of schedules that begin along with this one: many have the same ones.
        """
        self.remove()
        self._owed.clear()
        self.spec = spec
        self.watermark, self.latest = max(self.watermark, since), max(self.latest, since)
        if spec:
            self.was_known = True
            try:
                self._schedule = schedule_from_spec(self._id, spec, calendars)
                key = (self._schedule.fires, self._schedule.timezone, self.watermark)
                if key not in shared:
                    (shared[key],) = itertools.tee(self._fires(self.watermark, None), 1)
                self._due = copy.copy(shared[key])
                self._next = next(self._due, None)
            except (TickpoolError, OSError, ValueError, KeyError) as error:
                self._ledger.violate("G3", f"the definition of schedule `{self._id}` cannot be read: {error}")
                self._schedule = None
        if self._schedule is None or not spec.get("enabled"):
            self._due, self._next = iter(()), None

    def remove(self) -> None:
        """Take in that it is gone: from here on it has no fire times."""
        self.spec, self._schedule = {}, None
        self._due, self._next = iter(()), None

    def judge(self, fire: int, *, by_service: bool) -> None:
        """Note the verdict on one fire time."""
        if fire in self.judged or (self.missed and _holds(self.missed, fire)):
            self._ledger.violate("G1", f"fire time {_iso(fire)} of `{self._id}` has its verdict already")
        self.judged.add(fire)
        if fire > self.latest:
            self.latest = self.watermark = fire
        elif fire > self.watermark:
            self.watermark = fire
        if self._next == fire or self._walk_to(fire) == fire:
            self._next = next(self._due, None)
        elif self._owed.pop(fire, None) is None:
            self._check_fire(fire, by_service=by_service)

    def miss(self, first: int, last: int, count: int, reason: str, *, is_more: bool) -> None:
        """Note that the fire times from `first` to `last` were missed."""
        if self._schedule is not None and not is_more:
            found = self._walk_through(first, last)
            if found and (found[0], found[-1], len(found)) != (first, last, count):
                text = f"{count} missed fire times of `{self._id}` from {_iso(first)} to {_iso(last)} are on record;"
                self._ledger.violate("G3", f"{text} its expression has {len(found)}")
            elif not found:
                self._ledger.violate("G3", f"`{self._id}` has no fire time from {_iso(first)} to {_iso(last)}")
            if reason in CLOSED:
                self.check_closed(found, reason)
            if any(fire in self.judged or _holds(self.missed, fire) for fire in found):
                text = f"a missed fire time of `{self._id}` from {_iso(first)} to {_iso(last)} has its verdict already"
                self._ledger.violate("G1", text)
        elif self._schedule is not None:
            self._walk_to(first)
            if self._next is not None:
                self._due_after(last)
        elif self.was_known:
            text = f"fire times of `{self._id}` from {_iso(first)} to {_iso(last)} are missed, and it is not in force"
            self._ledger.violate("G3", text)
        self.missed.append((first, last))
        if len(self.missed) > 1 and first < self.missed[-2][0]:
            self.missed.sort()
        self.watermark, self.latest = max(self.watermark, last), max(self.latest, last)

    def check_closed(self, fires: list[int], reason: str | None) -> None:
        """A schedule runs at no fire time that its definition closes, and is skipped for that reason at no other."""
        schedule = self._schedule
        if reason not in CLOSED and (schedule is None or not schedule.can_close):
            return
        for fire in fires:
            why = schedule.closed(datetime.fromtimestamp(fire, UTC)) if schedule is not None else None
            if why != (reason if reason in CLOSED else None):
                text = f"is judged as {reason or 'enqueued'}, and by its definition it is {why or 'open'}"
                self._ledger.violate("G3", f"fire time {_iso(fire)} of `{self._id}` {text}")

    def set_back(self, since: int) -> None:
        """Go on from `since` if that is earlier than where it stands."""
        if since >= self.watermark:
            return
        self.watermark = since
        self.voided += [(max(first, since + 1), last) for first, last in self.missed if last > since]
        self.missed = [(first, min(last, since)) for first, last in self.missed if first <= since]
        if self._schedule is not None and self.spec.get("enabled"):
            self._due_after(since)

    def lead(self) -> None:
        """Take in that another service goes on with it."""
        if self.voided:
            self.excused, self.voided = sorted(self.excused + self.voided), []

    def close(self, until: int) -> None:
        """Demand the verdict on every fire time up to `until` of the definition in force."""
        self._walk_to(until + 1)
        owed = sorted(fire for fire in self._owed if fire <= until)
        for fire in owed[:3]:
            self._ledger.violate("G3", f"fire time {_iso(fire)} of `{self._id}` has no verdict", self._owed[fire])
        if len(owed) > 3:
            text = f"{len(owed) - 3} or more further fire times of `{self._id}` up to {_iso(owed[-1])} have none"
            self._ledger.violate("G3", text, self._owed[owed[3]])
        for fire in owed:
            del self._owed[fire]

    def _walk_to(self, fire: int) -> int | None:
        """Pass what is due before `fire`, and note what of it has no verdict; return what is due next."""
        while self._next is not None and self._next < fire:
            if not self._is_settled(self._next):
                self._owed[self._next] = self._ledger.place
                if len(self._owed) > _MANY:
                    self._due_after(fire - 1)
                    break
            self._next = next(self._due, None)
        return self._next

    def _walk_through(self, first: int, last: int) -> list[int]:
        """Return the fire times from `first` to `last`, and pass them."""
        found: list[int] = []
        if self._walk_to(first) is not None and self._next is not None and self._next >= first:
            while self._next is not None and self._next <= last:
                found.append(self._next)
                self._next = next(self._due, None)
        if not found or found[0] != first:
            found = list(self._fires(first - 1, last))
        for fire in found:
            self._owed.pop(fire, None)
        return found

    def _is_settled(self, fire: int) -> bool:
        return fire in self.judged or any(_holds(each, fire) for each in (self.missed, self.before, self.excused))

    def _check_fire(self, fire: int, *, by_service: bool) -> None:
        """A verdict that is not the next one due is on a fire time all the same, or it is wrong."""
        if self._schedule is None:
            if self.was_known or by_service:
                self._ledger.violate("G3", f"fire time {_iso(fire)} is judged, and `{self._id}` is not in force")
        elif not self.spec.get("enabled") or next(self._fires(fire - 1, fire), None) is None:
            self._ledger.violate("G3", f"{_iso(fire)} is judged, and is no fire time of `{self._id}`")

    def _due_after(self, since: int) -> None:
        self._due = self._fires(since, None)
        self._next = next(self._due, None)

    def _fires(self, since: int, until: int | None) -> Iterator[int]:
        schedule = self._schedule
        if schedule is None:
            return iter(())
        start = datetime.fromtimestamp(since, UTC).astimezone(schedule.zone)
        end = _FAR if until is None else datetime.fromtimestamp(until, UTC)
        return (int(fire.timestamp()) for fire in schedule.fires.between(start, end))


def _holds(ranges: list[tuple[int, int]], time: int) -> bool:
    place = bisect_right(ranges, time, key=lambda each: each[0]) - 1
    return place >= 0 and time <= ranges[place][1]


def _iso(time: int) -> str:
    return iso(datetime.fromtimestamp(time, UTC))
