"""The book of limits: how many runs of each pool and tenant were at work, against the limits on record at the time."""

from __future__ import annotations

from typing import Any

from workers.events import Event

from .report import Ledger
from .services import Services

__all__ = ["Lane", "LimitBook"]

# A run that was handed out under wider limits may start after narrower ones are on record: so long a worker may wait
# for the log's lock (the default of STATE_LOCK_TIMEOUT_S).
_HANDED_S = 10.0
# Tenant and pool of a run; the pool is empty where it has none.
Lane = tuple[str, str]
_Place = tuple[str, str]


class LimitBook:
    """Who takes a slot, and for how long a worker was free and a lane was not.

    What waits while its lane is full has its reason. Such time is `pending` until the leader is heard of again, as the
    time in which a worker was free is; see `Services.free_s`.
    """

    def __init__(self, ledger: Ledger, services: Services) -> None:
        self._ledger = ledger
        self._services = services
        self._most: dict[_Place, int] = {}
        self._before: dict[_Place, tuple[int, float]] = {}
        self._runs: dict[_Place, set[str]] = {}
        self._full: set[_Place] = set()
        self._full_s: dict[Lane, float] = {}
        self._pending_s: dict[Lane, float] = {}
        self._seen_s = (0.0, 0.0)

    def load(self, event: Event, now: float) -> None:
        """Take in a `limits_loaded`, or what a checkpoint says of one."""
        most = _most(event)
        for place, slots in self._most.items():
            if most.get(place, slots) < slots:
                self._before[place] = (slots, now + _HANDED_S)
        self._most = most
        self._full = {place for place in most if self._is_full(place)}

    def compare(self, event: Event) -> None:
        """Compare with what a checkpoint says."""
        if _most(event) != self._most:
            self._ledger.violate("limits", "the limits are others in the checkpoint than in the older segments")

    def take(self, run_id: str, lane: Lane) -> None:
        """Let a run take the slots of its lane."""
        self.full_s(lane)
        for place in _places(lane):
            self._runs.setdefault(place, set()).add(run_id)
            if self._is_full(place):
                self._full.add(place)

    def give_back(self, run_id: str, lane: Lane) -> None:
        """Let a run give back its slots."""
        for place in _places(lane):
            self._runs.setdefault(place, set()).discard(run_id)
            if not self._is_full(place):
                self._full.discard(place)

    def check_start(self, run_id: str, lane: Lane, now: float) -> None:
        """A run that has just taken its slots must have found them free."""
        for place in _places(lane):
            most = self._most.get(place)
            if most is None:
                continue
            self._ledger.count("limits", "starts")
            before, until = self._before.get(place, (0, 0.0))
            others = sorted(self._runs[place] - {run_id})
            if len(others) >= (max(before, most) if now <= until else most):
                text = f"run `{run_id}` starts while {place[0]} `{place[1]}`, which may have {most}, has {len(others)}"
                self._ledger.violate("limits", f"{text}: {', '.join(others[:3])}")

    def full_s(self, lane: Lane) -> float:
        """Return for how long a worker was free, and no run of the lane could start."""
        return self._full_s.setdefault(lane, 0.0)

    def pass_time(self) -> None:
        """Let time pass, with that of the services and before anything else changes."""
        services, (free_s, uncredited_s) = self._services, self._seen_s
        passed_s = services.free_s + services.uncredited_s - free_s - uncredited_s
        if passed_s > 0 and self._full:
            for lane in self._full_s:
                if not self._full.isdisjoint(_places(lane)):
                    self._pending_s[lane] = self._pending_s.get(lane, 0.0) + passed_s
        if services.free_s > free_s and self._pending_s:
            for lane, full_s in self._pending_s.items():
                self._full_s[lane] += full_s
            self._pending_s.clear()
        self._seen_s = (services.free_s, services.uncredited_s)

    def lead(self) -> None:
        """Take in that another service leads: what was not credited to the one before never is."""
        self._pending_s.clear()
        self._seen_s = (self._services.free_s, self._services.uncredited_s)

    def _is_full(self, place: _Place) -> bool:
        most = self._most.get(place)
        return most is not None and len(self._runs.get(place, ())) >= most


def _places(lane: Lane) -> tuple[_Place, ...]:
    tenant, pool = lane
    return (("tenant", tenant), ("pool", pool)) if pool else (("tenant", tenant),)


def _most(event: dict[str, Any]) -> dict[_Place, int]:
    """Return the most runs that each pool and tenant may have, where there is one. Raises ValueError, TypeError."""
    most = {("pool", str(name)): int(slots) for name, slots in event["pools"].items()}
    for name, facts in event["tenants"].items():
        if facts.get("max_parallel") is not None:
            most["tenant", str(name)] = int(facts["max_parallel"])
    return most
