"""Backfills: the fire times of the past that an operator wants run, and which of them are asked for next. A fold.

A backfill has all its slots on record from the beginning. The service asks for a slot's run as soon as fewer than
`max_parallel` are open, so a restart goes on where the log ends, and no slot is asked for twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from workers.events import Event, Second, iso

from .event_lines import in_lines

__all__ = ["Backfill", "Backfills", "backfill_requests", "next_events", "run_id_of"]


class Backfill(msgspec.Struct):
    """One backfill that is not done. `slots` are the fire times to come, seconds since the epoch; `open` its open runs.

    `terms` are what each run's request says; `ended` counts the runs that are over, by status.
    """

    backfill_id: str
    schedule_id: str
    by: str
    max_parallel: int
    total: int
    terms: dict[str, Any]
    slots: list[Second] = []
    open: dict[str, int] = {}
    ended: dict[str, int] = {}
    is_cancelled: bool = False

    @property
    def is_done(self) -> bool:
        """Say whether nothing of it is left, neither to ask for nor to wait for."""
        return not self.open and (self.is_cancelled or not self.slots)


class Backfills:
    """The fold: the backfills that are not done, by id."""

    def __init__(self) -> None:
        self.open: dict[str, Backfill] = {}

    def is_due(self) -> bool:
        """Say whether there is something to ask for, or to close."""
        return any(next(next_events(each), None) is not None for each in self.open.values())

    def request(self, event: Event) -> None:
        """Take in a `backfill_requested`; several in a row, with other slots, make one. Raises what is unusable."""
        name = event["backfill_id"]
        slots = msgspec.convert(event["slots"], list[Second])
        if name in self.open:
            self.open[name].slots.extend(slots)
            return
        fields = {key: event[key] for key in ("backfill_id", "schedule_id", "by", "max_parallel", "total", "terms")}
        self.open[name] = msgspec.convert({**fields, "slots": slots}, Backfill)

    def ask(self, run_id: str, event: Event, slot: int) -> None:
        """Take in the `run_requested` of a slot."""
        backfill = self.open.get(event["backfill"])
        if backfill is not None and slot in backfill.slots:
            backfill.slots.remove(slot)
            backfill.open[run_id] = slot

    def end(self, name: str, run_id: str, status: str) -> None:
        """Take in the end of a run of a backfill."""
        backfill = self.open.get(name)
        if backfill is not None and backfill.open.pop(run_id, None) is not None:
            backfill.ended[status] = backfill.ended.get(status, 0) + 1

    def cancel(self, event: Event) -> None:
        """Take in a `backfill_cancelled`: what was not asked for never is."""
        if event["backfill_id"] in self.open:
            self.open[event["backfill_id"]].is_cancelled = True

    def finish(self, event: Event) -> None:
        """Take in a `backfill_finished`."""
        self.open.pop(event["backfill_id"], None)

    def slots_of(self, schedule_id: str) -> set[int]:
        """Return the fire times of a schedule that backfills have yet to run, or are running."""
        return {
            slot
            for each in self.open.values()
            if each.schedule_id == schedule_id
            for slot in [*(() if each.is_cancelled else each.slots), *each.open.values()]
        }

    def rows(self) -> Iterator[Event]:
        """Yield what a checkpoint keeps of them, one line each."""
        for backfill in self.open.values():
            row = msgspec.to_builtins(backfill)
            parts = list(in_lines(row.pop("slots")))
            yield {"event": "checkpoint", "backfill": {**row, "slots": parts[0] if parts else []}}
            for part in parts[1:]:
                yield {"event": "checkpoint", "slots": [backfill.backfill_id, part]}

    def restore(self, row: Any) -> None:
        """Take one row. Raises what a history counts as unusable."""
        backfill = msgspec.convert(row, Backfill)
        self.open[backfill.backfill_id] = backfill

    def restore_slots(self, row: Any) -> None:
        """Take further slots of one."""
        name, slots = msgspec.convert(row, tuple[str, list[Second]])
        self.open[name].slots.extend(slots)


def next_events(backfill: Backfill) -> Iterator[Event]:
    """Yield the requests that a backfill makes now or, when it is done, its end."""
    if backfill.is_done:
        told = {"backfill_id": backfill.backfill_id, "schedule_id": backfill.schedule_id, "ended": backfill.ended}
        yield {"event": "backfill_finished", **told, "is_cancelled": backfill.is_cancelled}
    elif not backfill.is_cancelled:
        free = max(0, backfill.max_parallel - len(backfill.open))
        for slot, _ in zip(backfill.slots, range(free), strict=False):
            yield _request(backfill, slot)


def _request(backfill: Backfill, slot: int) -> Event:
    names = {"run_id": run_id_of(backfill.backfill_id, slot), "attempt": 1, "minute": _minute(slot)}
    whose = {"for_schedule": backfill.schedule_id, "backfill": backfill.backfill_id, "by": backfill.by}
    return {"event": "run_requested", **backfill.terms, **names, **whose}


def run_id_of(backfill_id: str, slot: int) -> str:
    """Return the id of the run for a slot of a backfill."""
    return f"{backfill_id}.{_minute(slot).replace('-', '').replace(':', '').replace('00Z', 'Z')}"


def _minute(slot: int) -> str:
    return iso(datetime.fromtimestamp(slot, UTC))


def backfill_requests(
    backfill_id: str, schedule_id: str, terms: Event, slots: Sequence[int], max_parallel: int, by: str
) -> Iterator[Event]:
    """Yield the events that ask for a backfill of these slots, in the order in which they are to run."""
    about = {"backfill_id": backfill_id, "schedule_id": schedule_id, "by": by, "max_parallel": max_parallel}
    for part in in_lines(slots):
        yield {"event": "backfill_requested", **about, "total": len(slots), "terms": terms, "slots": part}
