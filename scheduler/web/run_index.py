"""Every run that the logs tell of, a row each, with the places of its lines: a fold in memory, made when it starts.

Only what a list of runs shows is kept, so that a million events are some tens of megabytes; the rest is read from the
log by a row's places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from sys import intern
from typing import Any

import msgspec

from scheduler.open_runs import number
from workers.events import is_intact, time_of
from workers.segments import Chunk, Position

from .fold_lines import UNUSABLE, wanted_lines

__all__ = ["BAD", "OPEN", "RunIndex", "RunRow", "Span"]

# How a run is that has not ended, and how it has ended badly.
OPEN = ("queued", "running", "parked")
BAD = ("failed", "timeout", "crashed")

_WANTED = (b'"run_', b'"schedule_enqueued"', b'"checkpoint"')
_OF_RUN = ("schedule_enqueued", "run_requested", "run_started", "run_parked", "run_resumed", "run_finished")
_RUN_ID = re.compile(rb'"run_id": ?"([A-Za-z0-9_.-]{1,200})"')
_REASON_CHARS = 300


# Without the collector's mark: they are most of what there is, hold no cycle, and a look at all of them halts the loop.
class Span(msgspec.Struct, gc=False):
    """The places of a run's first line in a log and behind its last one."""

    start: Position
    end: Position


class RunRow(msgspec.Struct, gc=False):
    """A run. Moments are seconds since the epoch; `number` counts the runs in the order in which they were asked for.

    `status` is `queued`, `running`, `parked`, or how its last attempt ended; `kind` says what asked for it: `schedule`,
    `manual`, `backfill`, `rerun`, `deadline`, `dag` (a task of another run) or `hand`. `started_s` is when its first
    attempt started, `attempt_s` when the present one did.
    """

    run_id: str
    number: int
    kind: str
    schedule_id: str
    tenant: str
    dag: str
    fire_s: float | None
    asked_s: float | None
    status: str = "queued"
    attempt: int = 1
    started_s: float | None = None
    attempt_s: float | None = None
    ended_s: float | None = None
    duration_s: float | None = None
    late_s: float | None = None
    waited_s: float | None = None
    reason: str | None = None
    span: Span | None = None
    tasks: Span | None = None


class _Line(msgspec.Struct):
    """What of a line is looked at. Whatever else it says, and of whatever type, is passed over."""

    event: str = ""
    timestamp: str = ""
    run_id: str = ""
    schedule_id: str | None = None
    for_schedule: str | None = None
    minute: str | None = None
    attempt: int | None = None
    status: str | None = None
    reason: str | None = None
    duration_s: float | None = None
    next_attempt: int | None = None
    retry_of: int | None = None
    tenant: str | None = None
    dag: str | None = None
    backfill: str | None = None
    rerun_of: str | None = None
    for_run: str | None = None
    not_before: str | None = None
    parent: Any = None
    by: str | None = None
    run: Any = None


class _TaskLine(msgspec.Struct):
    event: str = ""
    timestamp: str = ""
    task_id: str = ""
    waits: Any = None


class RunIndex:
    """The rows by run id and by schedule, oldest first."""

    def __init__(self) -> None:
        self.rows: list[RunRow] = []
        self.by_id: dict[str, RunRow] = {}
        self.of_schedule: dict[str, list[RunRow]] = {}
        self.tenants: set[str] = set()
        # Those that have started, or ended, in the order in which they did.
        self.started: list[RunRow] = []
        self.ended: list[RunRow] = []
        # How often one was taken out of `ended` again: who counts on from there begins anew.
        self.reopened = 0
        # Of runs that are open: the tasks at work, and since when.
        self.at_work: dict[str, dict[str, float]] = {}
        self._decoder = msgspec.json.Decoder(_Line)
        self._task_decoder = msgspec.json.Decoder(_TaskLine)

    def take(self, chunk: Chunk) -> list[RunRow]:
        """Take in lines of the state log; return the rows that have changed."""
        changed: dict[str, RunRow] = {}
        segment, offset = chunk.at
        for place, line in wanted_lines(chunk.lines, _WANTED):
            with suppress(*UNUSABLE):
                told = self._decoder.decode(line)
                start = Position(segment, offset + place)
                end = Position(segment, start.offset + len(line) + 1)
                row = self.by_id.get(told.run_id)
                # Before what it tells is known: of a run that has ended, another thread takes the place for its end.
                if row is not None and told.event in _OF_RUN:
                    row.span = _grown(row.span, start, end)
                row = self._apply(told, row)
                if row is not None:
                    changed[row.run_id] = row
                    row.span = row.span or Span(start, end)
        return list(changed.values())

    def take_tasks(self, chunk: Chunk) -> set[str]:
        """Take in lines of the task log; return the runs that they belong to."""
        segment, base = chunk.at
        lines, seen = chunk.lines, set()
        for found in _RUN_ID.finditer(lines):
            row = self.by_id.get(found[1].decode())
            if row is None:
                continue
            start = lines.rfind(b"\n", 0, found.start()) + 1
            end = lines.find(b"\n", found.end()) + 1
            row.tasks = _grown(row.tasks, Position(segment, base + start), Position(segment, base + end))
            seen.add(row.run_id)
            if row.status == "running":
                self._note_task(row.run_id, lines[start:end])
        return seen

    def _note_task(self, run_id: str, line: bytes) -> None:
        if is_intact(line) is False:
            return
        with suppress(*UNUSABLE):
            task = self._task_decoder.decode(line)
            at_work = self.at_work.setdefault(run_id, {})
            if task.event == "task_started" and task.waits is None:
                at_work[task.task_id] = time_of(task.timestamp) or 0.0
            elif task.event in ("task_finished", "task_skipped"):
                at_work.pop(task.task_id, None)

    def newest(self, schedule_id: str | None = None) -> Iterator[RunRow]:
        """Yield the rows of a schedule, or all, newest first."""
        return reversed(self.rows if schedule_id is None else self.of_schedule.get(schedule_id, []))

    def _apply(self, line: _Line, row: RunRow | None) -> RunRow | None:
        if line.event in ("schedule_enqueued", "run_requested"):
            return self._ask(line, row)
        if line.event == "checkpoint":
            return self._restore(line.run)
        if row is None and line.event == "run_started" and line.run_id:
            row = self._add(line, "hand")
        if row is None:
            return None
        if line.event == "run_started":
            self._start(row, line)
        elif line.event == "run_parked":
            row.status = "parked"
            self.at_work.pop(row.run_id, None)
        elif line.event == "run_resumed":
            row.status = "queued"
        elif line.event == "run_finished":
            self._finish(row, line)
        else:
            return None
        return row

    def _ask(self, line: _Line, row: RunRow | None) -> RunRow | None:
        if not line.run_id:
            return None
        if row is None:
            return self._add(line, _kind(line))
        if line.retry_of is not None:
            self._reopen(row)
            row.status, row.attempt = "queued", line.attempt or row.attempt
            row.reason = row.duration_s = row.attempt_s = None
        return row

    def _add(self, line: _Line, kind: str) -> RunRow:
        name = intern(line.schedule_id or line.for_schedule or "")
        row = RunRow(
            run_id=line.run_id,
            number=len(self.rows) + 1,
            kind=kind,
            schedule_id=name,
            # Few of them, many times.
            tenant=intern(line.tenant or "default"),
            dag=intern(line.dag or ""),
            fire_s=time_of(line.minute),
            asked_s=time_of(line.timestamp),
            attempt=line.attempt or 1,
        )
        self.rows.append(row)
        self.tenants.add(row.tenant)
        self.by_id[row.run_id] = row
        if name:
            self.of_schedule.setdefault(name, []).append(row)
        return row

    def _restore(self, run: Any) -> RunRow | None:
        """Take a run of a checkpoint whose own lines are gone. Raises what UNUSABLE has."""
        if not isinstance(run, dict) or not isinstance(run.get("request"), dict) or run.get("run_id") in self.by_id:
            return None
        request, attempt = msgspec.convert(run["request"], _Line, strict=False), number(run.get("attempt") or 1)
        row = self._add(request, _kind(request))
        row.status, row.attempt = str(run.get("status")), attempt
        start = run.get("start")
        row.started_s = row.attempt_s = time_of(start.get("timestamp")) if isinstance(start, dict) else None
        return row

    def _start(self, row: RunRow, line: _Line) -> None:
        at_s = time_of(line.timestamp)
        row.status, row.attempt = "running", line.attempt or row.attempt
        if row.started_s is None and at_s is not None:
            due_s = max(filter(None, (row.asked_s, time_of(line.not_before))), default=at_s)
            row.waited_s = round(max(0.0, at_s - due_s), 3)
            if row.kind == "schedule" and row.fire_s is not None:
                row.late_s = round(max(0.0, at_s - row.fire_s), 3)
            self.started.append(row)
        row.started_s = row.started_s or at_s
        # One that was parked in between goes on with the same attempt.
        row.attempt_s = row.attempt_s or at_s

    def _finish(self, row: RunRow, line: _Line) -> None:
        self.at_work.pop(row.run_id, None)
        if line.next_attempt is not None:
            row.status, row.attempt, row.attempt_s = "queued", line.next_attempt, None
            return
        self._reopen(row)
        row.status = intern(line.status or "failed")
        row.ended_s, row.duration_s = time_of(line.timestamp), line.duration_s
        row.reason = line.reason[:_REASON_CHARS] if line.reason else None
        if row.ended_s is not None:
            self.ended.append(row)

    def _reopen(self, row: RunRow) -> None:
        """Take a run out of those that have ended, if it is among them."""
        if row.ended_s is None:
            return
        # Most are taken up again soon; and it is this very row, not one that looks like it.
        for place in range(len(self.ended) - 1, -1, -1):
            if self.ended[place] is row:
                del self.ended[place]
                break
        # Before it is counted: another thread that has seen the count must not see the old end.
        row.ended_s = None
        self.reopened += 1


def _kind(line: _Line) -> str:
    if line.event == "schedule_enqueued":
        return "schedule"
    for kind, mark in (("backfill", line.backfill), ("rerun", line.rerun_of), ("deadline", line.for_run)):
        if mark:
            return kind
    if line.parent is not None:
        return "dag"
    return "manual" if line.by else "hand"


def _grown(span: Span | None, start: Position, end: Position) -> Span:
    if span is None:
        return Span(start, end)
    span.end = end
    return span
