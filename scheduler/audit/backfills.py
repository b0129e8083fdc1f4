"""The book of backfills: every slot is asked for once, no more at a time than was said, and none is forgotten."""

from __future__ import annotations

from typing import Any

import msgspec

from scheduler.history import epoch
from scheduler.text import counted
from workers.events import Event

from .report import Ledger, Place

__all__ = ["BackfillBook"]


class _Backfill(msgspec.Struct):
    place: Place
    max_parallel: int
    slots: set[int]
    open: set[str] = set()
    is_cancelled: bool = False


class BackfillBook:
    """The backfills that are not done."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._open: dict[str, _Backfill] = {}

    def request(self, event: Event) -> None:
        """Take in a `backfill_requested`."""
        name, slots = event["backfill_id"], [int(slot) for slot in event["slots"]]
        known = self._open.setdefault(name, _Backfill(self._ledger.place, int(event["max_parallel"]), set()))
        if len(set(slots) - known.slots) < len(slots):
            self._ledger.violate("G1", f"backfill `{name}` has a slot twice")
        known.slots.update(slots)
        self._ledger.count("G1", "slots of backfills", len(slots))

    def restore(self, event: Event) -> None:
        """Take what a checkpoint says, with which a log begins."""
        row: Any = event.get("backfill")
        if row is not None:
            about = (self._ledger.place, int(row["max_parallel"]), set(row["slots"]), set(row["open"]))
            self._open[row["backfill_id"]] = _Backfill(*about, bool(row["is_cancelled"]))
        elif "slots" in event:
            name, slots = event["slots"]
            self._open[name].slots.update(slots)

    def ask(self, event: Event) -> None:
        """Take in a `run_requested`."""
        name = event.get("backfill")
        if name is None or event.get("retry_of"):
            return
        run_id, backfill = event["run_id"], self._open.get(str(name))
        if backfill is None or epoch(event["minute"]) not in backfill.slots:
            what = f"run `{run_id}` is asked for by backfill `{name}`, and that has no such slot left"
            self._ledger.violate("G1", what)
            return
        backfill.slots.remove(epoch(event["minute"]))
        backfill.open.add(run_id)
        if len(backfill.open) > backfill.max_parallel:
            text = f"backfill `{name}` has {len(backfill.open)} open runs, and may have {backfill.max_parallel}"
            self._ledger.violate("limits", text)
        if backfill.is_cancelled:
            self._ledger.violate("G1", f"run `{run_id}` is asked for by backfill `{name}`, which is cancelled")

    def end(self, request: Event) -> None:
        """Take in the end of the run of a request."""
        backfill = self._open.get(str(request.get("backfill")))
        if backfill is not None:
            backfill.open.discard(request["run_id"])

    def cancel(self, event: Event) -> None:
        """Take in a `backfill_cancelled`."""
        if event["backfill_id"] in self._open:
            self._open[event["backfill_id"]].is_cancelled = True

    def finish(self, event: Event) -> None:
        """Take in a `backfill_finished`."""
        name = event["backfill_id"]
        backfill = self._open.pop(name, None)
        if backfill is None or backfill.open or (backfill.slots and not backfill.is_cancelled):
            self._ledger.violate("G2", f"backfill `{name}` is finished, and it was not")

    def conclude(self, *, final: bool) -> None:
        """Judge what is left where the log ends; `final` says that nothing may be."""
        for name, backfill in self._open.items() if final else ():
            text = f"backfill `{name}` is not finished: {counted(len(backfill.slots), 'slot')} left"
            self._ledger.violate("G5", text, backfill.place)
