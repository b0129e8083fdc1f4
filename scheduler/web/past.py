"""The state at a past moment: the log folded from the segment that holds it up to then."""

from __future__ import annotations

import threading
from collections import OrderedDict
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import msgspec

from scheduler.history import History
from scheduler.open_runs import Run
from scheduler.status import Drain, Paused, drain_of, paused_of
from workers.events import decode_line, decode_lines, time_of
from workers.segments import LogReader, Position, Segment, list_segments

__all__ = ["Past", "PastRun", "PastState"]

_KEPT = 64
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
    """The states of a log that were asked for last. Safe between threads; one fold at a time."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._kept: OrderedDict[tuple[int, float], PastState] = OrderedDict()
        self._lock = threading.Lock()

    def first_s(self) -> float | None:
        """Return the moment with which the log begins; None of an empty one. Raises LogUnreadable."""
        segments = list_segments(self._path)
        return _first_s(segments[0]) if segments else None

    def state_at(self, at_s: float) -> PastState:
        """Return the state at a moment, in seconds since the epoch. Raises LogUnreadable."""
        segments = [(each, _first_s(each)) for each in list_segments(self._path)]
        first_s = next((begins_s for _, begins_s in segments if begins_s is not None), None)
        holds = [each for each, begins_s in segments if begins_s is not None and begins_s <= at_s]
        if not holds:
            return PastState(at_s, first_s, False, [], 0, [], 0, [], None, 0, None, None)
        key = (holds[-1].first_seq, at_s)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = _state(_folded(self._path, holds[-1], at_s), at_s, first_s)
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]


def _first_s(segment: Segment) -> float | None:
    """Return when a segment was begun, by its first line."""
    try:
        with open(segment.path, "rb") as file:
            event = decode_line(file.readline(_LINE))
    except OSError:
        return None
    return None if event is None else time_of(event.get("timestamp"))


def _folded(path: Path, segment: Segment, at_s: float) -> History:
    """Return the fold of a segment up to a moment."""
    history = History()
    reader = LogReader(path, Position(segment.first_seq, 0))
    try:
        for chunk in reader.chunks():
            if chunk.at.segment != segment.first_seq:
                break  # its checkpoint says the same once more
            for event in decode_lines(chunk.lines)[0]:
                if (time_of(event.get("timestamp")) or 0.0) > at_s:
                    return history
                history.apply(event)
    finally:
        reader.close()
    return history


def _state(history: History, at_s: float, first_s: float | None) -> PastState:
    running = [_run(run) for run in history.runs.values() if run.status == "running"]
    waiting = [_run(run) for run in history.runs.values() if run.status != "running"]
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
        schedules=sum(bool(state.spec) for state in history.schedules.values()),
        supervisor_pid=supervisor.get("pid"),
        max_parallel=supervisor.get("max_parallel"),
    )


def _run(run: Run) -> PastRun:
    schedule_id = run.schedule_id or str(run.request.get("for_schedule") or "")
    since_s = time_of(run.started_at or run.request.get("timestamp"))
    return PastRun(run.run_id, schedule_id, run.status, run.attempt, since_s)
