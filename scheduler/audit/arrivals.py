"""The book of arrivals: what schedules with `after` and `on_file` waited for, against the verdicts on record."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from scheduler.history import epoch
from workers.events import Event

from .report import Ledger, Place

__all__ = ["ArrivalBook"]


class _Owed(NamedTuple):
    """The runs, by schedule, after which a schedule is due; the second of the last end, and its place in the log."""

    ends: dict[str, str]
    second: int
    place: Place


class _Waits(msgspec.Struct):
    """What a schedule follows, which ends have come since it was due last, and what has no verdict yet."""

    wants: dict[str, list[str]]
    ends: dict[str, str]
    owed: list[_Owed]


class ArrivalBook:
    """Each complete set of ends has one verdict, in the order they came; a file with a verdict is another each time."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waits: dict[str, _Waits] = {}
        self._followers: dict[str, dict[str, None]] = {}
        self._files: dict[str, object] = {}
        self._dags: dict[str, object] = {}
        self._last: dict[str, int] = {}

    def load(self, event: Event) -> None:
        """Take in a `schedules_loaded`: what an old definition still owed must be on record by now."""
        for name, spec in [*event["specs"].items(), *((name, {}) for name in event.get("removed", ()))]:
            self._dags[name] = spec.get("dag")
            wants = dict(spec.get("after") or {}) if spec.get("enabled") else {}
            waits = self._waits.get(name)
            if waits is None or waits.wants != wants:
                self._drop(name)
                if wants:
                    self._take(name, _Waits(wants, {}, []))

    def end(self, schedule_id: str, event: Event, second: int) -> None:
        """Take in that a run of a schedule has come to its end."""
        for name in self._followers.get(schedule_id, ()):
            waits = self._waits[name]
            if event.get("status") in waits.wants[schedule_id] or "any" in waits.wants[schedule_id]:
                waits.ends[schedule_id] = event["run_id"]
                if waits.ends.keys() == waits.wants.keys():
                    # Where the clock is set back, the names of runs do not come again.
                    self._last[name] = max(second, self._last.get(name, 0))
                    waits.owed.append(_Owed(waits.ends, self._last[name], self._ledger.place))
                    waits.ends = {}

    def judge(self, event: Event) -> None:
        """Take in a verdict that names its trigger."""
        name, trigger, ledger = event["schedule_id"], event["trigger"], self._ledger
        is_asked = event["event"] == "schedule_enqueued"
        ledger.count("G3", "enqueued" if is_asked else "skipped")
        if is_asked and name in self._dags and event.get("dag") != self._dags[name]:
            ledger.violate("G3", f"schedule `{name}` asks for {event.get('dag')!r:.80}, which is not its DAG")
        if "file" in trigger:
            if self._files.get(name) == trigger["file"]:
                text = f"the file {trigger['file'].get('path')!r:.200} has its verdict already"
                ledger.violate("G1", f"schedule `{name}` is judged again: {text}")
            self._files[name] = trigger["file"]
            self._last[name] = max(epoch(event["minute"]), self._last.get(name, 0))
            return
        waits = self._waits.get(name)
        owed = waits.owed if waits is not None else []
        found = [each for each in owed if each.ends == trigger["after"]]
        if not found:
            text = f"due after {', '.join(map(str, trigger['after'].values())):.200}"
            ledger.violate("G1", f"schedule `{name}` is judged as {text}; it is not, or has its verdict already")
        elif found[0] is not owed[0]:
            ledger.violate("G3", f"schedule `{name}` has its verdicts in another order than what it waited for came")
        for each in found:
            owed.remove(each)
            if epoch(event["minute"]) != each.second:
                text = f"the last of what it waited for came at {datetime.fromtimestamp(each.second, UTC)}"
                ledger.violate("G3", f"schedule `{name}` has a verdict for {event['minute']}; {text}")

    def restore(self, row: list[Any]) -> None:
        """Take a schedule from the checkpoint with which a log begins whose older part is gone."""
        name, state = row
        self._last[name] = state["last"][0]
        owed = [_Owed(due["trigger"]["after"], due["second"], self._ledger.place) for due in state["due"]]
        if state["file"] is not None:
            self._files[name] = state["file"]
        if state["wants"]:
            self._take(name, _Waits(state["wants"], state["ends"], owed))

    def know(self, name: str, spec: dict[str, Any]) -> None:
        """Take the definition of a schedule from such a checkpoint."""
        self._dags[name] = spec.get("dag")

    def compare(self, rows: list[list[Any]]) -> None:
        """Compare with a checkpoint: nothing may get lost between two segments."""
        kept = dict(rows)
        for name in sorted(kept.keys() | self._waits.keys() | self._files.keys()):
            state, waits = kept.get(name, {}), self._waits.get(name, _Waits({}, {}, []))
            known = (waits.wants, waits.ends, [each.ends for each in waits.owed], self._files.get(name))
            due = [each["trigger"]["after"] for each in state.get("due", ())]
            if known != (state.get("wants", {}), state.get("ends", {}), due, state.get("file")):
                text = f"what schedule `{name}` waits for is another in the checkpoint than in the older segments"
                self._ledger.violate("G5", text)

    def conclude(self, until: int) -> None:
        """Demand the verdict on all that came up to `until`, seconds since the epoch."""
        for name, waits in self._waits.items():
            for each in waits.owed:
                if each.second <= until:
                    self._violate_owed(name, each)

    def _take(self, name: str, waits: _Waits) -> None:
        self._waits[name] = waits
        for other in waits.wants:
            self._followers.setdefault(other, {})[name] = None

    def _drop(self, name: str) -> None:
        waits = self._waits.pop(name, None)
        for other in waits.wants if waits else ():
            del self._followers[other][name]
        for each in waits.owed if waits else ():
            self._violate_owed(name, each)

    def _violate_owed(self, name: str, owed: _Owed) -> None:
        shown = ", ".join(owed.ends.values())
        self._ledger.violate("G3", f"schedule `{name}` is due after {shown:.200}, and that has no verdict", owed.place)
