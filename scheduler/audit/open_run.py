"""An open run, as the book of runs has it."""

from __future__ import annotations

import msgspec

from workers.events import Event

from .limits import Lane
from .report import Place
from .workers import Worker

__all__ = ["OpenRun", "lane_of"]


class OpenRun(msgspec.Struct):
    """An open run: waiting since `free_s` of the services' clock, or on a worker.

    `lane`, `schedule_id` and whether it goes one by one with others of it are what its request says. `full_s` is for
    how long its lane had been full when it began to wait.
    """

    request: Event
    lane: Lane
    schedule_id: str
    is_one_by_one: bool
    place: Place
    attempt: int
    waits_since_s: float
    retry_at_s: float = 0.0
    full_s: float = 0.0
    worker: Worker | None = None
    is_pooled: bool = False
    has_begun: bool = False


def lane_of(request: Event) -> Lane:
    """Return tenant and pool of a run; whoever names none is of the tenant `default`, in no pool."""
    tenant, pool = request.get("tenant"), request.get("pool")
    return tenant if isinstance(tenant, str) and tenant else "default", pool if isinstance(pool, str) else ""
