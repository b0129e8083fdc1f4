"""The state at a past moment: the log folded up to then, from where the oldest run begins that was open.

Which those are the index knows; what else was in force, the few events that are kept of it.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import msgspec

from scheduler.history import History
from scheduler.open_runs import Run
from scheduler.status import Drain, Paused, drain_of, paused_of
from workers.events import decode_line, decode_lines, time_of
from workers.segments import LogReader, Position, Segment, list_segments

from .feed import Feed
from .run_index import RunIndex, RunRow

__all__ = ["Past", "PastRun", "PastState"]

_SHOWN = 200
# More than the first line of a segment is never long.
_LINE = 64 * 1024
# So many rows of the index are passed over at once, all of whose runs had ended.
_BLOCK = 256


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
        self._open = _OpenThen(feed.index)

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
        oldest, later = self._open.oldest(at_s), self._open.first_later(at_s)
        if oldest is None or oldest.span is None:
            return []
        last = later.span.start if later is not None and later.span is not None else None
        return list(_folded(self._path, max(segment, oldest.span.start), last, at_s).runs.values())


class _OpenThen:
    """Finds in an index what was open at a moment. Safe between threads."""

    def __init__(self, index: RunIndex) -> None:
        self._index = index
        # Of blocks whose runs have all ended: when the first was asked for and the last one ended. Of no use any more
        # when a run is open again.
        self._lives: tuple[int, dict[int, tuple[float, float]]] = (0, {})

    def oldest(self, at_s: float) -> RunRow | None:
        """Return the run that was asked for first of those that were open."""
        rows, reopened = self._index.rows, self._index.reopened
        if self._lives[0] != reopened:
            self._lives = (reopened, {})
        lives = self._lives[1]
        for begin in range(0, len(rows), _BLOCK):
            life = lives.get(begin)
            if life is not None and not life[0] <= at_s < life[1]:
                continue
            block = rows[begin : begin + _BLOCK]
            for row in block:
                if (row.asked_s or 0.0) <= at_s and (row.ended_s is None or row.ended_s > at_s):
                    return row
            ends_s = [row.ended_s for row in block if row.ended_s is not None]
            if life is None and len(ends_s) == _BLOCK:
                lives[begin] = (min(row.asked_s or 0.0 for row in block), max(ends_s))
        return None

    def first_later(self, at_s: float) -> RunRow | None:
        """Return a run that was asked for after it; the first one, where no clock was set back."""
        rows = self._index.rows
        place = bisect_right(rows, at_s, key=lambda row: row.asked_s or 0.0)
        return rows[place] if place < len(rows) else None


def _first_s(segment: Segment) -> float | None:
    """Return when a segment was begun, by its first line."""
    try:
        with open(segment.path, "rb") as file:
            event = decode_line(file.readline(_LINE))
    except OSError:
        return None
    return None if event is None else time_of(event.get("timestamp"))


def _folded(path: Path, first: Position, last: Position | None, at_s: float) -> History:
    """Return the fold of a log from a place in it up to a moment, of which it is known that it comes before `last`."""
    history = History()
    reader = LogReader(path, first)
    try:
        for chunk in reader.chunks():
            lines, is_last = chunk.lines, False
            if last is not None and last.segment == chunk.at.segment and last >= first:
                lines = lines[: max(0, last.offset - chunk.at.offset)]
                is_last = len(lines) < len(chunk.lines)
            for event in decode_lines(lines)[0]:
                if (time_of(event.get("timestamp")) or 0.0) > at_s:
                    return history
                history.apply(event)
            if is_last:
                break
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
