"""Limits: how many runs of a pool or a tenant may be at work at once, and the tenants' shares."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from workers.events import Event
from workers.run_request import RunRequest

__all__ = [
    "PRIORITIES",
    "AtWork",
    "Limits",
    "Tenant",
    "is_by_hand",
    "place_of",
]

PRIORITIES = range(-100, 101)
# As many as there can be workers; none would keep a run waiting for ever.
_Count = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class Tenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a tenant may have: runs at work at once (None: as many as there are workers), and its share's weight."""

    max_parallel: _Count | None = None
    weight: _Count = 1


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The slots of each pool, and what each tenant may have; who is not named in it has no limit and the weight 1."""

    pools: dict[str, _Count] = {}
    tenants: dict[str, Tenant] = {}

    def max_parallel(self, tenant: str) -> int | None:
        """Return how many runs of the tenant may be at work at once; None: any number."""
        found = self.tenants.get(tenant)
        return None if found is None else found.max_parallel

    def weight(self, tenant: str) -> int:
        """Return the tenant's weight."""
        found = self.tenants.get(tenant)
        return 1 if found is None else found.weight

    def as_event(self) -> dict[str, Any]:
        """Return the fields by which the log keeps them."""
        return {"pools": self.pools, "tenants": msgspec.to_builtins(self.tenants)}

    @classmethod
    def of_event(cls, event: dict[str, Any]) -> Limits:
        """Read those fields again, without what a newer version may have added. Raises ValueError, TypeError."""
        tenants = msgspec.convert(event.get("tenants", {}), dict[str, dict[str, Any]])
        known = {
            name: {key: facts[key] for key in Tenant.__struct_fields__ if key in facts}
            for name, facts in tenants.items()
        }
        return msgspec.convert({"pools": event.get("pools", {}), "tenants": known}, cls)


class AtWork:
    """The runs that take a slot of their pool and their tenant, by name: a count of its own could drift from them."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[str, str]] = {}
        self._runs: dict[tuple[str, str], dict[str, None]] = {}

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._places

    def add(self, run_id: str, tenant: str, pool: str) -> None:
        """Let the run take its slots, once; `pool` is empty where it has none."""
        self.remove(run_id)
        self._places[run_id] = (tenant, pool)
        self._runs.setdefault(("tenant", tenant), {})[run_id] = None
        if pool:
            self._runs.setdefault(("pool", pool), {})[run_id] = None

    def remove(self, run_id: str) -> None:
        """Let the run give back what it took."""
        tenant, pool = self._places.pop(run_id, ("", ""))
        for place in (("tenant", tenant), ("pool", pool)):
            if place in self._runs:
                self._runs[place].pop(run_id, None)
                if not self._runs[place]:
                    del self._runs[place]

    def tenant_of(self, run_id: str) -> str:
        """Return whose run it is. Raises KeyError when it takes no slot."""
        return self._places[run_id][0]

    def of_pool(self, pool: str) -> list[str]:
        """Return the runs of a pool, in the order in which they took their slots."""
        return list(self._runs.get(("pool", pool), ()))

    def of_tenant(self, tenant: str) -> list[str]:
        """Return the runs of a tenant."""
        return list(self._runs.get(("tenant", tenant), ()))

    def is_pool_full(self, limits: Limits, pool: str) -> bool:
        """Say whether no run of the pool may start."""
        slots = limits.pools.get(pool)
        return slots is not None and len(self._runs.get(("pool", pool), ())) >= slots

    def is_tenant_full(self, limits: Limits, tenant: str) -> bool:
        """Say whether no run of the tenant may start."""
        most = limits.max_parallel(tenant)
        return most is not None and len(self._runs.get(("tenant", tenant), ())) >= most


def place_of(request: RunRequest) -> tuple[str, str]:
    """Return tenant and pool of a request; what another hand wrote and is no name counts as none."""
    tenant, pool = request.get("tenant"), request.get("pool")
    return tenant if isinstance(tenant, str) and tenant else "default", pool if isinstance(pool, str) else ""


def is_by_hand(request: RunRequest, start: Event) -> bool:
    """Say whether a run is executed by the process that asked for it: that takes no worker and no slot.

    A worker may come to execute a run that it has asked for itself, for a `dag` task of another.
    """
    is_by_same = request.get("event") == "run_requested" and request.get("pid") == start.get("pid")
    parent = request.get("parent")
    return is_by_same and (not isinstance(parent, dict) or bool(parent.get("by_hand")))
