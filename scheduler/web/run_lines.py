"""The record of a run, read by the places of its lines: an old run among a million events is milliseconds away."""

from __future__ import annotations

from collections.abc import Iterator

from scheduler.run_record import RunRecord, read_record, record_of
from workers.events import Event, decode_line
from workers.segments import Position
from workers.settings import Settings

from .fold_lines import lines_between
from .run_index import RunRow, Span

__all__ = ["read_row"]


# Behind everything that a log can hold.
_END = Position(1 << 62, 0)


def read_row(settings: Settings, row: RunRow, *, with_tasks: bool = True, is_to_end: bool = False) -> RunRecord | None:
    """Return what is on record of a run, as `read_record` does; None when nothing is any more. Raises LogUnreadable.

    `is_to_end` reads on behind the last place that the row knows: what came just now is not to be missed.
    """
    span = Span(row.span.start, _END) if is_to_end and row.span is not None else row.span
    events = list(_events(settings.state_path, span, row.run_id))
    record = record_of(row.run_id, reversed(events))
    if not record.request:  # its line is gone with an old segment: a checkpoint may know
        return read_record(settings, row.run_id, with_tasks=with_tasks)
    if with_tasks:
        record.tasks = list(_events(settings.events_path, row.tasks, row.run_id))
    return record


def _events(path: str, span: Span | None, run_id: str) -> Iterator[Event]:
    """Yield the events of a run between two places of a log, oldest first."""
    if span is None:
        return
    for lines in lines_between(path, span.start, span.end):
        for line in _with(run_id.encode(), lines):
            event = decode_line(line)
            if event is not None and event.get("run_id") == run_id:
                yield event


def _with(mark: bytes, lines: bytes) -> Iterator[bytes]:
    """Yield the lines that hold a mark."""
    at = lines.find(mark)
    while at >= 0:
        end = lines.find(b"\n", at) + 1 or len(lines)
        yield lines[lines.rfind(b"\n", 0, at) + 1 : end]
        at = lines.find(mark, end)
