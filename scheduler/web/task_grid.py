"""How the tasks of some runs ended, read from the task log at the places that the index has of them."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from workers.errors import TickpoolError
from workers.events import is_intact
from workers.ids import base_of
from workers.lines import lines_backward
from workers.segments import LogUnreadable, list_segments, open_segment

from .fold_lines import UNUSABLE
from .run_index import RunRow, Span

__all__ = ["GridRun", "TaskGrid"]

# A long run's lines stand among those of all others: of one run no more than this is read, from its last line back, so
# that what is told of a task is its last word.
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
                return {}  # the next look may be luckier
            self._known[key] = known
            while len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        return known

    def _read(self, run_id: str, span: Span, *, is_over: bool) -> dict[str, str]:
        mark, found, left = f'"{run_id}"'.encode(), dict[str, tuple[int, str]](), _MOST_BYTES
        for line in self._backward(span):
            if mark in line and is_intact(line) is not False:
                self._apply(line, run_id, found)
            left -= len(line) + 1
            if left <= 0:
                break
        newest = max((attempt for attempt, _ in found.values()), default=1)
        return _by_task(
            {name: status for name, (attempt, status) in found.items() if attempt == newest}, is_over=is_over
        )

    def _backward(self, span: Span) -> Iterator[bytes]:
        """Yield the lines of a span, the last one first. Raises LogUnreadable."""
        try:
            for segment in reversed(list_segments(self._log)):
                if not span.start.segment <= segment.first_seq <= span.end.segment:
                    continue
                fd = open_segment(segment.path)
                try:
                    if fd is None or os.fstat(fd).st_ino != segment.inode:
                        raise LogUnreadable(str(segment.path), "it was rotated or pruned in this moment")
                    is_last = segment.first_seq == span.end.segment
                    end = span.end.offset if is_last else os.fstat(fd).st_size
                    for line in lines_backward(fd, end):
                        yield line
                        end -= len(line) + 1
                        if segment.first_seq == span.start.segment and end <= span.start.offset:
                            return
                finally:
                    if fd is not None:
                        os.close(fd)
        except OSError as error:
            raise LogUnreadable(str(self._log), error.strerror) from None

    def _apply(self, text: bytes, run_id: str, found: dict[str, tuple[int, str]]) -> None:
        """Take in a line: of a task the first that comes is its last word."""
        try:
            line = self._decoder.decode(text)
        except UNUSABLE:
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
            found.setdefault(line.task_id, (line.attempt, status))


def _by_task(found: dict[str, str], *, is_over: bool) -> dict[str, str]:
    """Return the status of each task; items become one, and what still ran when the run was over is unfinished."""
    tasks: dict[str, str] = {}
    for name, told in found.items():
        base, status = base_of(name), "unfinished" if is_over and told in ("running", "retrying") else told
        tasks[base] = min((tasks.get(base, status), status), key=_rank)
    return tasks


def _rank(status: str) -> int:
    return _WORST.index(status) if status in _WORST else 0
