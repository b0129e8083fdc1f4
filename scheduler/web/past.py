"""The state at a past moment: the log folded up to then, from where the oldest run begins that was open.

Which those are the index knows; what else was in force, the few events that are kept of it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import msgspec

from scheduler.history import History
from scheduler.open_runs import Run
from scheduler.status import Drain, Paused, drain_of, paused_of
from workers.events import decode_line, time_of
from workers.segments import LogReader, Position, Segment, list_segments

from .feed import Feed

__all__ = ["Past", "PastRun", "PastState"]

_SHOWN = 200
# More than the first line of a segment is never long.
_LINE = 64 * 1024


class PastRun(msgspec.Struct):
    """A run that was open then; `since_s` is when it was asked for or, running, when it had started."""

    run_id: str
    schedule_id: str
    status: str
    attempt: int
    since_s: float | None


class PastState(msgspec.Struct):
    """What there was at a moment. At most 200 runs of each kind are named; the counts are of all of them."""

    at_s: float
    first_s: float | None
    is_on_record: bool
    running: list[PastRun]
    running_count: int
    waiting: list[PastRun]
    waiting_count: int
    paused: list[Paused]
    drain: Drain | None
    schedules: int
    supervisor_pid: int | None
    max_parallel: int | None


class Past:
    """The past of the log that a feed has read. Safe between threads."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._path = Path(feed.settings.state_path)

    def first_s(self) -> float | None:
        """Return the moment with which the log begins; None of an empty one. Raises LogUnreadable."""
        segments = list_segments(self._path)
        return _first_s(segments[0]) if segments else None

    def state_at(self, at_s: float) -> PastState:
        """Return the state at a moment, in seconds since the epoch. Raises LogUnreadable."""
        segments = [(each, _first_s(each)) for each in list_segments(self._path)]
        first_s = next((begins_s for _, begins_s in segments if begins_s is not None), None)
        holds = [each.first_seq for each, begins_s in segments if begins_s is not None and begins_s <= at_s]
        if not holds:
            return PastState(at_s, first_s, False, [], 0, [], 0, [], None, 0, None, None)
        runs = self._runs(Position(holds[-1], 0), at_s)
        return _state(runs, *self._feed.standing.at(at_s), at_s, first_s)

    def _runs(self, segment: Position, at_s: float) -> list[Run]:
        """Return the runs that were open then; the segment that holds the moment begins with those that were so."""
        starts = [
            row.span.start
            for row in self._feed.index.rows
            if row.span is not None and (row.asked_s or 0.0) <= at_s and (row.ended_s is None or row.ended_s > at_s)
        ]
        return list(_folded(self._path, max(segment, min(starts)), at_s).runs.values()) if starts else []


def _first_s(segment: Segment) -> float | None:
    """Return when a segment was begun, by its first line."""
    try:
        with open(segment.path, "rb") as file:
            event = decode_line(file.readline(_LINE))
    except OSError:
        return None
    return None if event is None else time_of(event.get("timestamp"))


def _folded(path: Path, first: Position, at_s: float) -> History:
    """Return the fold of a log from a place in it up to a moment."""
    history = History()
    reader = LogReader(path, first)
    try:
        for batch in reader.batches():
            for event in batch:
                if (time_of(event.get("timestamp")) or 0.0) > at_s:
                    return history
                history.apply(event)
    finally:
        reader.close()
    return history


def _state(runs: list[Run], history: History, schedules: int, at_s: float, first_s: float | None) -> PastState:
    running = [_run(run) for run in runs if run.status == "running"]
    waiting = [_run(run) for run in runs if run.status != "running"]
    supervisor = history.supervisor or {}
    return PastState(
        at_s=at_s,
        first_s=first_s,
        is_on_record=True,
        running=running[:_SHOWN],
        running_count=len(running),
        waiting=waiting[:_SHOWN],
        waiting_count=len(waiting),
        paused=list(islice(paused_of(history, datetime.fromtimestamp(at_s, UTC)), _SHOWN)),
        drain=drain_of(history),
        schedules=schedules,
        supervisor_pid=supervisor.get("pid"),
        max_parallel=supervisor.get("max_parallel"),
    )


def _run(run: Run) -> PastRun:
    schedule_id = run.schedule_id or str(run.request.get("for_schedule") or "")
    since_s = time_of(run.started_at or run.request.get("timestamp"))
    return PastRun(run.run_id, schedule_id, run.status, run.attempt, since_s)
