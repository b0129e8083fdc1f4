"""The book of what operators hold back: pauses, under which no fire time is run, drains, under which no run starts."""

from __future__ import annotations

from typing import Any

from scheduler.history import epoch
from scheduler.pauses import Pause, scope_of
from workers.events import Event

from .report import Ledger

__all__ = ["HoldBook"]

# The moment of a verdict is worked out before its line is written, and a clock may be slewed.
_SLACK_S = 2.0
_SCHEDULE, _TENANT = "schedule", "tenant"


class HoldBook:
    """Every pause that the log tells of, and whether a drain is on."""

    def __init__(self, ledger: Ledger) -> None:
        self.is_draining = False
        self._ledger = ledger
        self._tenants: dict[str, str] = {}
        self._pauses: dict[tuple[str, str], list[Pause]] = {}

    def load(self, event: Event) -> None:
        """Take in a `schedules_loaded`: whose the schedules are."""
        self._tenants.update((name, str(spec.get("tenant") or "default")) for name, spec in event["specs"].items())

    def know(self, schedule_id: str, spec: dict[str, Any]) -> None:
        """Take a schedule from a checkpoint with which a log begins."""
        self._tenants[schedule_id] = str(spec.get("tenant") or "default")

    def restore(self, rows: list[Any]) -> None:
        """Take the pauses of such a checkpoint."""
        for kind, name, pauses in rows:
            self._pauses[kind, name] = [Pause(*each) for each in pauses]

    def pause(self, event: Event, now: float) -> None:
        """Take in a `schedule_paused`."""
        until = None if event.get("until") is None else epoch(event["until"])
        self._ledger.count("G3", "pauses")
        self._end(scope_of(event), int(now))
        self._pauses.setdefault(scope_of(event), []).append(Pause(int(now), until))

    def resume(self, event: Event, now: float) -> None:
        """Take in a `schedule_resumed`."""
        scope = scope_of(event)
        for each in [*self._pauses] if scope[0] == "all" else [scope]:
            self._end(each, int(now))

    def start_drain(self) -> None:
        """Take in a `drain_started`."""
        self.is_draining = True

    def end_drain(self) -> None:
        """Take in a `drain_ended`."""
        self.is_draining = False

    def judge(self, event: Event, now: float) -> None:
        """A fire time is enqueued under no pause, and skipped for one only where there is one."""
        reason, name = event.get("reason"), event["schedule_id"]
        if not self._pauses and reason != "paused":
            return
        fire = float(epoch(event["minute"]))
        if event["event"] == "schedule_enqueued":
            pause = self._in_force(name, now)
            if pause is not None and pause.holds(now - _SLACK_S) and pause.holds(now + _SLACK_S):
                self._ledger.violate("G3", f"schedule `{name}` is enqueued for {event['minute']}, and it is paused")
        elif reason == "paused" and not any(self._held(name, at) for at in (fire, now, now - _SLACK_S)):
            self._ledger.violate("G3", f"schedule `{name}` is skipped at {event['minute']} as paused, and it was not")

    def miss(self, event: Event, now: float) -> None:
        """Take in a `schedule_missed`."""
        if event.get("reason") == "paused":
            for moment in (event["from"], event["to"]):
                self.judge({**event, "minute": moment}, now)

    def start(self, run_id: str, *, is_pooled: bool) -> None:
        """Take in a `run_started`."""
        if self.is_draining and is_pooled:
            self._ledger.violate("G2", f"run `{run_id}` starts, and nothing was to start (drain)")

    def _held(self, name: str, moment: float) -> bool:
        return any(each.holds(moment) for each in self._of(name))

    def _in_force(self, name: str, now: float) -> Pause | None:
        return next((each for each in self._of(name) if each.holds(now)), None)

    def _of(self, name: str) -> list[Pause]:
        scopes = ((_SCHEDULE, name), (_TENANT, self._tenants.get(name, "default")), ("all", ""))
        return [each for scope in scopes for each in self._pauses.get(scope, ())]

    def _end(self, scope: tuple[str, str], until: int) -> None:
        for each in self._pauses.get(scope, ()):
            if each.until is None or each.until > until:
                each.until = max(each.since, until)
