"""How the tasks of some runs ended, read from the task log at the places that the index has of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import msgspec

from workers.errors import TickpoolError
from workers.ids import base_of
from workers.segments import LogReader

from .run_index import RunRow, Span

__all__ = ["GridRun", "TaskGrid"]

# A long run's lines stand among those of all others: of one run no more than this is read.
_MOST_BYTES = 4 * 1024 * 1024
_MOST_KNOWN = 4000
# Of the items of a task with `foreach`, the worst is the task's.
_WORST = (
    "failed",
    "timeout",
    "upstream_failed",
    "cancelled",
    "running",
    "waiting",
    "retrying",
    "skipped",
    "kept",
    "success",
)


class GridRun(msgspec.Struct):
    """A column: a run, and the status of each of its tasks that had a word in its newest attempt."""

    run_id: str
    status: str
    asked_s: float | None
    duration_s: float | None
    tasks: dict[str, str]


class _Line(msgspec.Struct):
    event: str = ""
    run_id: str = ""
    task_id: str = ""
    attempt: int = 1
    status: str | None = None


class TaskGrid:
    """A cache by run, attempt, status and the place of the last line. For threads: what it knows it only adds to."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._known: OrderedDict[tuple[object, ...], dict[str, str]] = OrderedDict()
        self._decoder = msgspec.json.Decoder(_Line)

    def of(self, rows: Sequence[RunRow]) -> list[GridRun]:
        """Return the columns of these runs."""
        return [GridRun(row.run_id, row.status, row.asked_s, row.duration_s, self._tasks(row)) for row in rows]

    def _tasks(self, row: RunRow) -> dict[str, str]:
        if row.tasks is None:
            return {}
        span = Span(row.tasks.start, row.tasks.end)
        key = (row.run_id, row.attempt, row.status, span.end)
        known = self._known.get(key)
        if known is None:
            try:
                known = self._read(row.run_id, span, is_over=row.ended_s is not None)
            except TickpoolError:
                known = {}
            self._known[key] = known
            while len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        return known

    def _read(self, run_id: str, span: Span, *, is_over: bool) -> dict[str, str]:
        mark, found, read = f'"{run_id}"'.encode(), dict[str, tuple[int, str]](), 0
        reader = LogReader(self._log, span.start)
        try:
            for chunk in reader.chunks():
                length = span.end.offset - chunk.at.offset if chunk.at.segment == span.end.segment else len(chunk.lines)
                for line in chunk.lines[: max(0, length)].splitlines():
                    if mark in line:
                        self._apply(line, run_id, found)
                read += len(chunk.lines)
                if (chunk.at.segment, chunk.at.offset + len(chunk.lines)) >= tuple(span.end) or read > _MOST_BYTES:
                    break
        finally:
            reader.close()
        newest = max((attempt for attempt, _ in found.values()), default=1)
        return _by_task(
            {name: status for name, (attempt, status) in found.items() if attempt == newest}, is_over=is_over
        )

    def _apply(self, text: bytes, run_id: str, found: dict[str, tuple[int, str]]) -> None:
        try:
            line = self._decoder.decode(text)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return
        if line.run_id != run_id or not line.task_id:
            return
        status = {
            "task_started": "running",
            "task_retried": "retrying",
            "task_kept": "kept",
            "task_finished": line.status or "failed",
            "task_skipped": line.status or "skipped",
        }.get(line.event)
        if status is not None:
            found[line.task_id] = (line.attempt, status)


def _by_task(found: dict[str, str], *, is_over: bool) -> dict[str, str]:
    """Return the status of each task; items become one, and what still ran when the run was over is unfinished."""
    tasks: dict[str, str] = {}
    for name, told in found.items():
        base, status = base_of(name), "unfinished" if is_over and told in ("running", "retrying") else told
        tasks[base] = min((tasks.get(base, status), status), key=_rank)
    return tasks


def _rank(status: str) -> int:
    return _WORST.index(status) if status in _WORST else 0
