"""The book of runs of runs: asked for by an attempt that is at work, and cancelled when it has ended before them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from workers.events import Event

from .open_run import OpenRun
from .report import Ledger, Place
from .services import Services

__all__ = ["ChildBook"]


class _Child(msgspec.Struct):
    """An open run that another has asked for, in one of its attempts.

    `noticed_s` is when the leader was first heard of after that attempt had ended.
    """

    parent: tuple[str, int]
    place: Place
    is_orphan: bool = False
    is_cancelled: bool = False
    noticed_s: float | None = None


class ChildBook:
    """The open runs that `dag` tasks have asked for; those of runs by hand are their processes' own affair."""

    def __init__(self, ledger: Ledger, services: Services, lateness_s: float) -> None:
        self._ledger = ledger
        self._services = services
        self._lateness_s = lateness_s
        self._children: dict[str, _Child] = {}

    def ask(self, event: Event, runs: Mapping[str, OpenRun]) -> None:
        """Take in a request; `runs` are the open ones."""
        parent = event.get("parent")
        if parent is None or parent.get("by_hand"):
            return
        run_id, name, attempt = event["run_id"], str(parent["run_id"]), int(parent["attempt"])
        self._ledger.count("G2", "runs of runs")
        asking = runs.get(name)
        is_at_work = asking is not None and asking.worker is not None and asking.attempt == attempt
        if not is_at_work:
            text = f"run `{run_id}` is asked for by attempt {attempt} of run `{name}`, which is not at work"
            self._ledger.violate("G2", text)
        self._children[run_id] = _Child((name, attempt), self._ledger.place, is_orphan=not is_at_work)

    def restore(self, run: Event, runs: Mapping[str, Event]) -> None:
        """Take an open run from a checkpoint; `runs` are all that it has."""
        parent = run["request"].get("parent")
        if parent is not None and not parent.get("by_hand"):
            name, attempt = str(parent["run_id"]), int(parent["attempt"])
            is_orphan = name not in runs or runs[name]["attempt"] != attempt
            child = _Child((name, attempt), self._ledger.place, is_orphan, bool(run.get("cancel")))
            self._children[run["run_id"]] = child

    def cancel(self, run_id: str) -> None:
        """Take in a `cancel_requested`."""
        if run_id in self._children:
            self._children[run_id].is_cancelled = True

    def end(self, run_id: str, attempt: int, *, is_last: bool) -> None:
        """Take in the end of an attempt of any run."""
        for child in self._children.values():
            child.is_orphan |= child.parent == (run_id, attempt)
        if is_last:
            self._children.pop(run_id, None)

    def look(self, now: float) -> None:
        """Take in that the leader is heard of: between two signs of its life it has seen to the orphans."""
        for run_id, child in self._children.items():
            if not child.is_orphan or child.is_cancelled:
                continue
            if child.noticed_s is None:
                child.noticed_s = now
            elif now > child.noticed_s + self._lateness_s:
                self._violate(run_id, child)

    def lead(self) -> None:
        """Take in that another service begins to lead, or that the clock was set."""
        for child in self._children.values():
            child.noticed_s = None

    def conclude(self, now: float) -> None:
        """Judge what is left where the log ends, until when a leader that lives has looked."""
        if now:
            self.look(now)

    def _violate(self, run_id: str, child: _Child) -> None:
        text = f"run `{run_id}` goes on, and attempt {child.parent[1]} of run `{child.parent[0]}` has ended"
        self._ledger.violate("G2", text, child.place)
        child.is_cancelled = True  # told once
