"""The statistics of schedules over a time: how often they succeed, how long they take, how late they start."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from workers.events import Event, time_of
from workers.run_events import newer_than
from workers.segments import read_backward

__all__ = ["Quantiles", "ScheduleStats", "read_stats"]

_TREND = 30
_EVENTS = (b'"run_finished"', b'"run_started"', b'"schedule_skipped"', b'"schedule_missed"')


class Quantiles(msgspec.Struct):
    """Quantiles by nearest rank, in seconds; None of nothing."""

    p50: float | None
    p95: float | None
    p99: float | None


class ScheduleStats(msgspec.Struct):
    """How a schedule fares: `ended` counts its runs by outcome, `trend` has the last lengths, the newest at the end."""

    schedule_id: str
    runs: int
    success_rate: float | None
    ended: dict[str, int]
    duration_s: Quantiles
    lateness_s: Quantiles
    by_operator: int
    skipped: int
    missed: int
    trend: list[float]


class _Stats(msgspec.Struct):
    ended: Counter[str] = msgspec.field(default_factory=Counter)
    lengths: list[float] = []
    late: list[float] = []
    by_operator: int = 0
    skipped: int = 0
    missed: int = 0
    seen: set[str] = msgspec.field(default_factory=set)


def read_stats(log: Path, since: datetime, schedule_id: str | None = None) -> list[ScheduleStats]:
    """Return the statistics of each schedule, or of one, from the events since then, sorted by name.

    Counted are the runs that came due by themselves: what an operator triggers, runs again or backfills is a number of
    its own. A run counts once, as it ended last; its length is that of its last attempt, and its lateness, in seconds,
    the time from its fire time to the start of its first. Quantiles are by nearest rank. Raises LogUnreadable.
    """
    stats: dict[str, _Stats] = {}
    for event in newer_than(since, _read(log)):
        name = event.get("schedule_id") or event.get("for_schedule")
        if isinstance(name, str) and name and schedule_id in (None, name):
            _take(stats.setdefault(name, _Stats()), event)
    # Of a run that goes on there is a start, and nothing to tell yet.
    return [_row(name, stats[name]) for name in sorted(stats)]


def _read(log: Path) -> Iterator[Event]:
    for event in read_backward(log, wanted=lambda line: any(name in line for name in _EVENTS)):
        if event is not None:
            yield event


def _take(stats: _Stats, event: Event) -> None:
    """Count an event; they come newest first."""
    kind, count = event.get("event"), event.get("count")
    if kind == "schedule_skipped":
        stats.skipped += 1
    elif kind == "schedule_missed":
        stats.missed += count if type(count) is int and count > 0 else 0
    elif kind == "run_finished" and not event.get("next_attempt"):
        run_id = str(event.get("run_id"))
        if run_id in stats.seen:  # it has been retried, and ended otherwise since
            return
        stats.seen.add(run_id)
        if event.get("schedule_id"):
            stats.ended[str(event.get("status"))] += 1
            _add(stats.lengths, event.get("duration_s"))
        else:
            stats.by_operator += 1
    elif kind == "run_started" and event.get("attempt") == 1 and event.get("schedule_id"):
        due_s, started_s = time_of(event.get("minute")), time_of(event.get("timestamp"))
        _add(stats.late, None if due_s is None or started_s is None else max(0.0, started_s - due_s))


def _add(values: list[float], value: object) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        values.append(float(value))


def _row(name: str, stats: _Stats) -> ScheduleStats:
    runs = stats.ended.total()
    return ScheduleStats(
        schedule_id=name,
        runs=runs,
        success_rate=round(stats.ended["success"] / runs, 6) if runs else None,
        ended=dict(stats.ended),
        duration_s=_quantiles(stats.lengths),
        lateness_s=_quantiles(stats.late),
        by_operator=stats.by_operator,
        skipped=stats.skipped,
        missed=stats.missed,
        trend=stats.lengths[:_TREND][::-1],
    )


def _quantiles(values: list[float]) -> Quantiles:
    ordered = sorted(values)

    def rank(percent: int) -> float | None:
        return round(ordered[math.ceil(len(ordered) * percent / 100) - 1], 6) if ordered else None

    return Quantiles(rank(50), rank(95), rank(99))
