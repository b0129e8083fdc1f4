"""What was in force besides runs: pauses, a drain, the service, the schedules. The few events that say so, kept."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from scheduler.history import History
from workers.events import Event, decode_line
from workers.segments import Chunk, Position

from .fold_lines import UNUSABLE, wanted_lines

__all__ = ["Standing"]

_WANTED = (
    b'"schedule_paused"', b'"schedule_resumed"', b'"drain_started"', b'"drain_ended"', b'"supervisor_started"',
    b'"supervisor_stopped"', b'"schedules_loaded"', b'"checkpoint"',
)  # fmt: skip
# The checkpoints of later segments say once more what is known.
_WANTED_LATER = _WANTED[:-1]
_KEPT_OF_CHECKPOINT = ("pauses", "drain", "supervisor")


class Standing:
    """A fold of the state log: `at` folds again what it has kept, up to a place in the log."""

    def __init__(self) -> None:
        self._first_segment: int | None = None
        # Each with the schedules that it brings (true) or takes away.
        self._events: list[tuple[Position, Event, dict[str, bool]]] = []

    def take(self, chunk: Chunk) -> None:
        """Take in lines of the state log, from its beginning on; what cannot be read is passed over."""
        if self._first_segment is None:
            self._first_segment = chunk.at.segment
        lines = chunk.lines
        if not any(mark in lines for mark in _WANTED):
            return
        is_first = chunk.at.segment == self._first_segment
        for offset, line in wanted_lines(lines, _WANTED if is_first else _WANTED_LATER):
            with suppress(*UNUSABLE):
                self._keep(Position(chunk.at.segment, chunk.at.offset + offset), decode_line(line) or {})

    def at(self, place: Position) -> tuple[History, int]:
        """Return the fold of these events up to a place in the log, and how many schedules there were.

        The history has no runs.
        """
        history, names = History(), dict[str, bool]()
        for begin, event, schedules in self._events:
            if begin >= place:
                break
            history.apply(event)
            names |= schedules
        return history, sum(names.values())

    def _keep(self, place: Position, event: Event) -> None:
        if event.get("event") == "checkpoint":
            kept = {name: event[name] for name in ("event", *_KEPT_OF_CHECKPOINT) if name in event}
            self._events.append((place, kept, _restored(event.get("schedules"))))
        elif event.get("event") == "schedules_loaded":
            specs, removed = event.get("specs"), event.get("removed")
            brought = {name: bool(spec) for name, spec in specs.items()} if isinstance(specs, dict) else {}
            gone = dict.fromkeys(removed, False) if isinstance(removed, list) else {}
            self._events.append((place, {"event": "schedules_loaded", "specs": {}}, {**brought, **gone}))
        else:
            self._events.append((place, event, {}))


def _restored(rows: Any) -> dict[str, bool]:
    """Return the schedules of a line of a checkpoint: a row begins with the name, and ends with the spec."""
    rows = rows if isinstance(rows, list) else []
    return {str(row[0]): bool(row[-1]) for row in rows if isinstance(row, list) and row}
