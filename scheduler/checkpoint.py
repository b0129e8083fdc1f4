"""Checkpoints: the lines that open a segment and say what the older ones come to, written and read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from workers.events import Event, Second
from workers.process_id import recorded_identity

from .event_lines import LINE_BYTES, in_lines, size_of
from .open_runs import Run, number
from .verdicts import KEPT, Range, ScheduleState

__all__ = ["RUN_PARTS", "checkpoint_lines", "restore_part", "run_of", "states_of"]

# What of a run may stand in lines of its own.
RUN_PARTS = ("request", "parked", "questions")

_POINTS_A_LINE = 1000

_Row = tuple[str, Second, Second, set[Second], list[Range], list[Range], dict[str, Any]]


def checkpoint_lines(
    supervisor: Event | None, faults: Iterable[Event], runs: Iterable[Run], schedules: Mapping[str, ScheduleState]
) -> Iterator[Event]:
    """Yield the events from which a history is rebuilt that has these runs and schedules."""
    if supervisor:
        yield {"event": "checkpoint", "supervisor": supervisor}
    for fault in faults:
        yield {"event": "checkpoint", "fault": fault}
    for run in runs:
        yield from _run_lines(run)
    states = {name: state.settle() for name, state in schedules.items()}
    for rows in in_lines(map(_row, states.items())):
        yield {"event": "checkpoint", "schedules": rows}
    for name, state in states.items():
        for kind, times in (("judged", sorted(state.judged)[KEPT:]), ("others", sorted(state.others))):
            for start in range(0, len(times), _POINTS_A_LINE):
                yield {"event": "checkpoint", kind: [name, times[start : start + _POINTS_A_LINE]]}


def run_of(kept: Any) -> Run:
    """Read the run of a checkpoint. Raises what a history counts as unusable."""
    run = msgspec.convert(kept, Run)
    number(run.attempt)
    if (run.status == "running") is (run.start is None) or (run.status == "parked" and run.parked is None):
        raise ValueError(run.status)
    if run.start is not None:
        recorded_identity(run.start), msgspec.convert(run.start["timestamp"], str)
    return run


def restore_part(runs: Mapping[str, Run], part: str, row: Any) -> Run:
    """Take a part of one of these runs from a line of its own; return the run. Raises as `run_of`."""
    run_id, facts = row
    kind = dict[str, dict[str, Any]] if part == "questions" else dict[str, Any]
    getattr(runs[run_id], part).update(msgspec.convert(facts, kind))
    return runs[run_id]


def states_of(event: Event) -> Iterator[tuple[str, ScheduleState]]:
    """Yield the schedules that a line of a checkpoint holds, by id. Raises as `run_of`."""
    for row in event.get("schedules", ()):
        name, watermark, latest, judged, missed, settled, spec = msgspec.convert(row, _Row)
        yield name, ScheduleState(watermark, latest, judged, set(), missed, settled, spec)


def _run_lines(run: Run) -> Iterator[Event]:
    """Yield one event for a run, or more where its request, or what it asks, nearly fills a line already."""
    whole = {"event": "checkpoint", "run": msgspec.to_builtins(run)}
    if size_of(whole) <= LINE_BYTES:
        yield whole
        return
    request = {name: run.request.get(name) for name in ("run_id", "schedule_id")}
    parked: dict[str, Any] | None = None if run.parked is None else {}
    start = msgspec.structs.replace(run, request=request, parked=parked, questions={})
    yield {"event": "checkpoint", "run": msgspec.to_builtins(start)}
    for part in RUN_PARTS:
        for name, value in (getattr(run, part) or {}).items():
            yield {"event": "checkpoint", part: [run.run_id, {name: value}]}


def _row(item: tuple[str, ScheduleState]) -> list[Any]:
    name, state = item
    newest = sorted(state.judged)[:KEPT]
    return [name, state.watermark, state.latest, newest, state.missed, state.settled, state.spec]
