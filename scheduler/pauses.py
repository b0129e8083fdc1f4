"""Pauses: the times at which schedules do not run because an operator said so. A fold of the log."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from workers.events import Event, Second

__all__ = ["Pause", "Pauses", "Scope", "scope_of"]

# Of one scope so many pauses that are over are kept: fire times that came in them may yet be judged.
_KEPT = 8
# What is paused: ("schedule", its id), ("tenant", its name) or ("all", "").
Scope = tuple[str, str]


class Pause(msgspec.Struct, array_like=True):
    """One pause: from `since` up to `until`, both whole seconds since the epoch; None where nobody has said until when.

    `by` is who asked for it, `reason` why.
    """

    since: Second
    until: Second | None = None
    by: str = ""
    reason: str = ""

    def holds(self, moment: float) -> bool:
        """Say whether the moment lies in it."""
        return self.since <= moment and (self.until is None or moment < self.until)


_Row = tuple[str, str, list[Pause]]


class Pauses:
    """All pauses that may still be of interest; false when there is none."""

    def __init__(self) -> None:
        self._of: dict[Scope, list[Pause]] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def pause(self, event: Event, since: int, until: int | None) -> None:
        """Take in a `schedule_paused`; it takes the place of one that is in force."""
        scope = scope_of(event)
        self._end(scope, since)
        pauses = self._of.setdefault(scope, [])
        pauses.append(Pause(since, until, str(event.get("by") or ""), str(event.get("reason") or "")))
        del pauses[:-_KEPT]

    def resume(self, event: Event, since: int) -> None:
        """Take in a `schedule_resumed`; of `all` it ends the pauses of schedules and tenants too."""
        scope = scope_of(event)
        for each in [*self._of] if scope[0] == "all" else [scope]:
            self._end(each, since)

    def is_paused(self, schedule_id: str, tenant: str, fire: datetime, now: datetime) -> bool:
        """Say whether a fire time without a verdict is not to run: a pause is in force now, or was when it came."""
        fire_s, now_s = fire.timestamp(), now.timestamp()
        return any(
            each.holds(fire_s) or each.holds(now_s)
            for scope in (("schedule", schedule_id), ("tenant", tenant), ("all", ""))
            for each in self._of.get(scope, ())
        )

    def in_force(self, now: datetime) -> Iterator[tuple[Scope, Pause]]:
        """Yield the pauses that are in force."""
        for scope, pauses in self._of.items():
            yield from ((scope, each) for each in pauses if each.holds(now.timestamp()))

    def rows(self) -> list[_Row]:
        """Return all of them as a checkpoint keeps them."""
        return [(*scope, pauses) for scope, pauses in self._of.items()]

    def restore(self, row: Any) -> None:
        """Take one row of a checkpoint. Raises what a history counts as unusable."""
        kind, name, pauses = msgspec.convert(row, _Row)
        self._of[kind, name] = pauses

    def _end(self, scope: Scope, until: int) -> None:
        for each in self._of.get(scope, ()):
            if each.until is None or each.until > until:
                each.until = max(each.since, until)


def scope_of(event: Event) -> Scope:
    """Return what an event pauses or resumes."""
    for kind, key in (("schedule", "schedule_id"), ("tenant", "tenant")):
        if event.get(key):
            return kind, str(event[key])
    return "all", ""
