"""Pools: how busy the slots of each are by the hour, and how many runs wait for one; a fold beside the figures."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from scheduler.forecast_facts import HourFigures, PoolForecast
from scheduler.limits import place_of
from workers.events import Event, iso

__all__ = ["Pools", "parts_of"]

_HOUR_S = 3600.0


class Pools:
    """The figures of each pool in a span (seconds since the epoch). Give it every turn in order, then `close` it.

    A run waits for its pool while it is asked for, not started, and no slot is free.
    """

    def __init__(self, begin_s: float, until_s: float, slots: Mapping[str, int], schedules: Mapping[str, int]) -> None:
        self._begin_s, self._until_s = begin_s, until_s
        hours = math.ceil((until_s - begin_s) / _HOUR_S)
        self._pools = {name: _Pool(count, schedules.get(name, 0), hours) for name, count in slots.items()}
        self._of: dict[str, _Pool] = {}
        self._running: set[str] = set()

    def take(self, now_s: float, events: Sequence[Event]) -> None:
        """Fold in what was recorded at one moment."""
        if self._pools:
            for event in events:
                self._take(now_s - self._begin_s, event)

    def close(self) -> None:
        """Come to the end of the span."""
        for pool in self._pools.values():
            pool.go_on(self._until_s - self._begin_s)

    def facts(self) -> list[PoolForecast]:
        """Return what is told of each, by name."""
        return [PoolForecast(name, each.slots, each.schedules, each.facts(self._begin_s))
                for name, each in sorted(self._pools.items())]  # fmt: skip

    def _take(self, at_s: float, event: Event) -> None:
        name, run_id = event["event"], event.get("run_id", "")
        if name in ("schedule_enqueued", "run_requested"):
            asked = self._pools.get(place_of(event)[1])
            if asked is not None:
                self._of[run_id] = asked
                asked.go_on(at_s)
                asked.due[int(at_s // _HOUR_S)] += 1
                asked.waiting += 1
            return
        pool = self._of.get(run_id)
        if pool is None or name not in ("run_started", "run_finished"):
            return
        pool.go_on(at_s)
        if name == "run_started":
            self._running.add(run_id)
            pool.waiting -= 1
            pool.busy += 1
            return
        if run_id in self._running:
            self._running.remove(run_id)
            pool.busy -= 1
        else:
            pool.waiting -= 1
        if event.get("next_attempt"):
            pool.waiting += 1
        else:
            del self._of[run_id]


class _Pool:
    """One pool: what it does now, since `at_s` seconds after the begin, and what came before by the hour."""

    def __init__(self, slots: int, schedules: int, hours: int) -> None:
        self.slots, self.schedules = slots, schedules
        self.busy = self.waiting = 0
        self.due, self._deepest = array("l", bytes(8 * hours)), array("l", bytes(8 * hours))
        self._busy_s, self._queued_s = array("d", bytes(8 * hours)), array("d", bytes(8 * hours))
        self._at_s = 0.0

    def go_on(self, at_s: float) -> None:
        """Add what is busy and what waits to the hours that go by until then."""
        waiting = self.waiting if self.busy >= self.slots else 0
        if self.busy:
            for hour, span_s in parts_of(self._at_s, at_s, _HOUR_S):
                self._busy_s[hour] += self.busy * span_s
                self._queued_s[hour] += waiting * span_s
                self._deepest[hour] = max(self._deepest[hour], waiting)
        self._at_s = at_s

    def facts(self, begin_s: float) -> list[HourFigures]:
        columns = zip(self.due, self._busy_s, self._queued_s, self._deepest, strict=True)
        return [
            HourFigures(
                iso(datetime.fromtimestamp(begin_s + _HOUR_S * n, UTC)), due, round(busy_s, 3), round(queued_s, 3), most
            )
            for n, (due, busy_s, queued_s, most) in enumerate(columns)
        ]


def parts_of(start_s: float, end_s: float, part_s: float) -> Iterator[tuple[int, float]]:
    """Yield each part of `part_s` seconds between two moments, by number, and how many seconds of it lie there."""
    while start_s < end_s:
        part = int(start_s // part_s)
        stop_s = min(end_s, part_s * (part + 1))
        yield part, stop_s - start_s
        start_s = stop_s
