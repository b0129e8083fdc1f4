"""Figures over a time: how often runs succeed, how late they start, how long they wait, how many there are."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from itertools import chain
from operator import attrgetter

import msgspec

from scheduler.web.run_index import RunIndex, RunRow

__all__ = ["WINDOWS", "Bin", "Figures", "Tally", "quantile"]

# How long each window is, and into how many parts it is drawn.
WINDOWS = {"1h": (3600, 60), "24h": (86_400, 96), "30d": (30 * 86_400, 120)}
_LONGEST_S = max(length_s for length_s, _ in WINDOWS.values())
_STARTED_S, _ENDED_S = attrgetter("started_s"), attrgetter("ended_s")
# More values than so many are sorted anew at once; fewer are put in their places.
_FEW = 200


class Bin(msgspec.Struct):
    """A part of a window: when it begins, and what ended in it; medians of the runs that started in it, in seconds."""

    at_s: float
    success: int = 0
    bad: int = 0
    cancelled: int = 0
    late_p50_s: float | None = None
    late_p99_s: float | None = None
    wait_p50_s: float | None = None


class Figures(msgspec.Struct):
    """A window as a whole. `success_rate` is of those that were not cancelled; lengths are in seconds."""

    window: str
    runs: int
    failures: int
    success_rate: float | None
    runs_per_hour: float
    late_p50_s: float | None
    late_p99_s: float | None
    wait_p50_s: float | None
    wait_p99_s: float | None
    bins: list[Bin]


class _Slot(msgspec.Struct):
    """What a part of a window has: ends by kind, and the lengths of what started in it, ascending."""

    success: int = 0
    bad: int = 0
    cancelled: int = 0
    late: list[float] = []
    waits: list[float] = []


class Tally:
    """The figures of each window of WINDOWS, counted on from one look to the next.

    Parts begin at whole multiples of their width, so that one that has passed stays as it was.
    """

    def __init__(self, index: RunIndex) -> None:
        self._index = index
        # So many of the first that have started, and ended, are older than any window reaches.
        self._old_starts = self._old_ends = self._reopened = 0
        self._begin()

    def _begin(self) -> None:
        self._windows = {name: _Window(*each) for name, each in WINDOWS.items()}
        self._starts = self._ends = 0
        reopened = self._index.reopened
        # Those that were taken out of `ended` since may have been among the old ones.
        self._old_ends = max(0, self._old_ends - (reopened - self._reopened))
        self._reopened = reopened

    def advance(self, now_s: float) -> None:
        """Count what has come since the last call, as far as any window reaches."""
        index, since_s = self._index, now_s - _LONGEST_S
        if self._reopened != index.reopened:
            self._begin()
        self._old_starts = _first_since(since_s, index.started, self._old_starts, _STARTED_S)
        self._old_ends = _first_since(since_s, index.ended, self._old_ends, _ENDED_S)
        self._starts, self._ends = max(self._starts, self._old_starts), max(self._ends, self._old_ends)
        starts, ends = index.started[self._starts :], index.ended[self._ends :]
        self._starts, self._ends = len(index.started), len(index.ended)
        for window in self._windows.values():
            window.advance(starts, ends, now_s)

    def figures(self, name: str, now_s: float) -> Figures:
        """Return the figures of a window up to now."""
        self.advance(now_s)
        return self._windows[name].figures(name, now_s)


def _first_since(
    since_s: float, rows: Sequence[RunRow], place: int, moment_of: Callable[[RunRow], float | None]
) -> int:
    """Return the place, from this one on, of the first row whose moment is none or not before then."""
    while place < len(rows) and (at_s := moment_of(rows[place])) is not None and at_s < since_s:
        place += 1
    return place


class _Window:
    """One window: its parts by number since the epoch."""

    def __init__(self, length_s: float, parts: int) -> None:
        self._width_s, self._parts = length_s / parts, parts
        self._slots: dict[int, _Slot] = {}
        # Of all parts together, ascending; made when it is asked for.
        self._late: list[float] | None = None
        self._waits: list[float] | None = None

    def advance(self, starts: Sequence[RunRow], ends: Sequence[RunRow], now_s: float) -> None:
        first = self._first(now_s)
        for number in [number for number in self._slots if number < first]:
            del self._slots[number]
            self._late = self._waits = None
        if len(starts) > _FEW:
            self._late = self._waits = None
        for row in starts:
            if row.started_s is not None and (number := int(row.started_s / self._width_s)) >= first:
                slot = self._slot(number)
                _take(row.late_s, slot.late, self._late)
                _take(row.waited_s, slot.waits, self._waits)
        for row in ends:
            if row.ended_s is not None and (number := int(row.ended_s / self._width_s)) >= first:
                slot = self._slot(number)
                slot.success += row.status == "success"
                slot.cancelled += row.status == "cancelled"
                slot.bad += row.status not in ("success", "cancelled")

    def figures(self, name: str, now_s: float) -> Figures:
        first = self._first(now_s)
        slots = [self._slots.get(number) or _Slot() for number in range(first, first + self._parts)]
        if self._late is None or self._waits is None:
            self._late = sorted(chain.from_iterable(slot.late for slot in slots))
            self._waits = sorted(chain.from_iterable(slot.waits for slot in slots))
        success, bad = sum(slot.success for slot in slots), sum(slot.bad for slot in slots)
        runs, begin_s = success + bad + sum(slot.cancelled for slot in slots), first * self._width_s
        return Figures(
            window=name,
            runs=runs,
            failures=bad,
            success_rate=success / (success + bad) if success + bad else None,
            runs_per_hour=round(runs * 3600 / (now_s - begin_s), 3),
            late_p50_s=quantile(self._late, 50),
            late_p99_s=quantile(self._late, 99),
            wait_p50_s=quantile(self._waits, 50),
            wait_p99_s=quantile(self._waits, 99),
            bins=[_bin(begin_s + number * self._width_s, slot) for number, slot in enumerate(slots)],
        )

    def _first(self, now_s: float) -> int:
        return int(now_s / self._width_s) - self._parts + 1

    def _slot(self, number: int) -> _Slot:
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = _Slot()
        return slot


def _take(value: float | None, *ordered: list[float] | None) -> None:
    if value is not None:
        for values in ordered:
            if values is not None:
                bisect.insort(values, value)


def _bin(at_s: float, slot: _Slot) -> Bin:
    return Bin(
        at_s,
        slot.success,
        slot.bad,
        slot.cancelled,
        late_p50_s=quantile(slot.late, 50),
        late_p99_s=quantile(slot.late, 99),
        wait_p50_s=quantile(slot.waits, 50),
    )


def quantile(ordered: Sequence[float], percent: int) -> float | None:
    """Return a quantile by nearest rank; None of nothing."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else None
