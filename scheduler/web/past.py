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
from workers.events import decode_line, decode_lines, time_of
from workers.segments import Position, Segment, list_segments

from .feed import Feed
from .fold_lines import lines_between
from .places import line_s
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
        """Return the state at a moment, in seconds since the epoch; Places says where that is. Raises LogUnreadable."""
        segments = list_segments(self._path)
        first_s = next(filter(lambda each: each is not None, map(_first_s, segments)), None)
        place = self._place(at_s)
        if place is None or not segments or place.segment < segments[0].first_seq:
            return PastState(at_s, first_s, False, [], 0, [], 0, [], None, 0, None, None)
        return _state(self._runs(place), *self._feed.standing.at(place), at_s, first_s)

    def _place(self, at_s: float) -> Position | None:
        """Return the place behind the last line that is not later than a moment; None before the first one."""
        piece = self._feed.places.piece(at_s)
        if piece is None:
            return None
        lines, begins_s = b"".join(lines_between(self._path, piece.start, piece.end)), self._feed.places.first_s or 0.0
        while lines:
            begin = lines.rfind(b"\n", 0, -1) + 1
            moment_s = line_s(lines[begin:])
            if moment_s is not None and begins_s <= moment_s <= at_s:
                break
            lines = lines[:begin]
        return Position(piece.start.segment, piece.start.offset + len(lines))

    def _runs(self, place: Position) -> list[Run]:
        """Return the runs that were open there; the segment that holds the place begins with those that were so."""
        oldest = self._open.oldest(place)
        if oldest is None or oldest.span is None:
            return []
        begin, history = max(Position(place.segment, 0), oldest.span.start), History()
        for lines in lines_between(self._path, begin, place):
            for event in decode_lines(lines)[0]:
                history.apply(event)
        return list(history.runs.values())


class _OpenThen:
    """Finds in an index what was open at a place of the log. Safe between threads."""

    def __init__(self, index: RunIndex) -> None:
        self._index = index
        # Of blocks whose runs have all ended: where the last one ends. Of no use any more when a run is open again.
        self._lives: tuple[int, dict[int, Position]] = (0, {})

    def oldest(self, place: Position) -> RunRow | None:
        """Return the run whose lines begin first of those that were open."""
        rows, reopened = self._index.rows, self._index.reopened
        if self._lives[0] != reopened:
            self._lives = (reopened, {})
        lives = self._lives[1]
        for begin in range(0, len(rows), _BLOCK):
            life = lives.get(begin)
            if life is not None and life <= place:
                continue
            ends = []
            for row in rows[begin : begin + _BLOCK]:
                # They stand in the order of their first lines.
                if row.span is None or row.span.start >= place:
                    return None
                if row.ended_s is None or row.span.end > place:
                    return row
                ends.append(row.span.end)
            if len(ends) == _BLOCK:
                lives[begin] = max(ends)
        return None


def _first_s(segment: Segment) -> float | None:
    """Return when a segment was begun, by its first line."""
    try:
        with open(segment.path, "rb") as file:
            event = decode_line(file.readline(_LINE))
    except OSError:
        return None
    return None if event is None else time_of(event.get("timestamp"))


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
