"""The model of a schedule: its keys, and what follows from them."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from workers.dag import Retries
from workers.units import Duration

from .cron import Cron, parse_cron

__all__ = ["ON_TIME", "Schedule", "compiled", "zone_of"]

# A fire time is on time through its minute, as cron judges the current minute; after that it is late.
ON_TIME = timedelta(seconds=60)


class Schedule(msgspec.Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """When to run which DAG, and what to do when that cannot be.

    `file` and `line` say where it was read, `project` is the directory its paths start from.
    """

    id: str
    cron: str
    dag: str
    timezone: str = "UTC"
    tenant: str = "default"
    enabled: bool = True
    description: str = ""
    params: dict[str, Any] = {}
    overlap: Literal["skip", "queue", "replace", "allow"] = "skip"
    max_queued: int | None = None
    catchup: Literal["none", "latest", "all"] = "none"
    catchup_window: Duration | None = None
    catchup_max: int | None = None
    jitter: Duration | None = None
    start_deadline: Duration | None = None
    deadline: Duration | None = None
    on_deadline: str | None = None
    timeout: Duration | None = None
    retries: Retries = Retries()
    retry_on_crash: bool = False
    project: str = "."
    file: str = ""
    line: int = 0

    @functools.cached_property
    def fires(self) -> Cron:
        """The compiled expression; it judges datetimes in their own zone."""
        return compiled(self.cron, self.id)

    @functools.cached_property
    def zone(self) -> ZoneInfo:
        """The zone that the expression is written in."""
        return zone_of(self.timezone)

    @functools.cached_property
    def spec(self) -> dict[str, Any]:
        """What decides the fire times: the part of a schedule that the log keeps, to account for them later."""
        return {"cron": self.cron, "timezone": self.timezone, "enabled": self.enabled, "dag": self.dag}


# Schedules share what they write alike: 100,000 of them have few different expressions and zones.
def compiled(expr: str, schedule_id: str) -> Cron:
    return _seeded(expr, schedule_id if "H" in expr or "h" in expr else "")


@functools.lru_cache(4096)
def _seeded(expr: str, seed: str) -> Cron:
    return parse_cron(expr, seed=seed)


@functools.lru_cache(1024)
def zone_of(name: str) -> ZoneInfo:
    return ZoneInfo(name)
