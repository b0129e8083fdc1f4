"""The rules of the keys that say when a schedule fires."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from zoneinfo import available_timezones

from workers.errors import did_you_mean

from .cron import InvalidCron
from .schedule_model import Schedule, compiled, zone_of

__all__ = ["wrong_timing"]


def wrong_timing(schedule: Schedule) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong)."""
    try:
        compiled(schedule.cron, schedule.id)
    except InvalidCron as error:
        yield "cron", str(error)
    try:
        zone_of(schedule.timezone)
    except (OSError, ValueError, KeyError):
        near = did_you_mean(schedule.timezone, _zones())
        hint = (
            near if near.endswith("?") else "; allowed: the names of the IANA database, such as `Europe/Paris` or `UTC`"
        )
        yield "timezone", f"unknown time zone {schedule.timezone[:80]!r}{hint}"


@functools.cache
def _zones() -> set[str]:
    return available_timezones()
