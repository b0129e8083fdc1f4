"""Figures over a time: how often runs succeed, how late they start, how long they wait, how many there are."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence

import msgspec

from scheduler.web.period_counts import BAD
from scheduler.web.run_index import RunIndex, RunRow

__all__ = ["WINDOWS", "Bin", "Figures", "bins_of", "figures_of", "quantile"]

# How long each window is, and into how many parts it is drawn.
WINDOWS = {"1h": (3600, 60), "24h": (86_400, 96), "30d": (30 * 86_400, 120)}


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


def figures_of(index: RunIndex, window: str, now_s: float) -> Figures:
    """Return the figures of a window of WINDOWS up to now."""
    length_s, parts = WINDOWS[window]
    rows = recent_rows(index, now_s - length_s)
    ended = [row for row in rows if row.ended_s is not None and row.ended_s > now_s - length_s]
    counted = [row for row in ended if row.status != "cancelled"]
    good = sum(row.status == "success" for row in counted)
    late = sorted(row.late_s for row in rows if row.late_s is not None)
    waits = sorted(row.waited_s for row in rows if row.waited_s is not None)
    return Figures(
        window=window,
        runs=len(ended),
        failures=sum(row.status in BAD for row in ended),
        success_rate=good / len(counted) if counted else None,
        runs_per_hour=round(len(ended) * 3600 / length_s, 3),
        late_p50_s=quantile(late, 50),
        late_p99_s=quantile(late, 99),
        wait_p50_s=quantile(waits, 50),
        wait_p99_s=quantile(waits, 99),
        bins=bins_of(rows, now_s - length_s, length_s / parts, parts),
    )


def recent_rows(index: RunIndex, since_s: float) -> list[RunRow]:
    """Return the rows of runs that were asked for, or had their end, since then.

    A run that has taken longer than a week is looked for no further back.
    """
    rows = index.rows
    first = bisect.bisect_left(rows, since_s - 7 * 86_400, key=lambda row: row.asked_s or 0.0)
    return [row for row in rows[first:] if (row.ended_s or math.inf) > since_s]


def bins_of(rows: Iterable[RunRow], since_s: float, width_s: float, parts: int) -> list[Bin]:
    """Return the parts of a window, oldest first."""
    bins = [Bin(since_s + number * width_s) for number in range(parts)]
    late: list[list[float]] = [[] for _ in bins]
    waits: list[list[float]] = [[] for _ in bins]
    for row in rows:
        if row.ended_s is not None and 0 <= (at := int((row.ended_s - since_s) / width_s)) < parts:
            here = bins[at]
            if row.status == "success":
                here.success += 1
            elif row.status == "cancelled":
                here.cancelled += 1
            else:
                here.bad += 1
        if row.started_s is not None and 0 <= (at := int((row.started_s - since_s) / width_s)) < parts:
            if row.late_s is not None:
                late[at].append(row.late_s)
            if row.waited_s is not None:
                waits[at].append(row.waited_s)
    for number, here in enumerate(bins):
        late[number].sort()
        waits[number].sort()
        here.late_p50_s, here.late_p99_s = quantile(late[number], 50), quantile(late[number], 99)
        here.wait_p50_s = quantile(waits[number], 50)
    return bins


def quantile(ordered: Sequence[float], percent: int) -> float | None:
    """Return a quantile by nearest rank; None of nothing."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else None
