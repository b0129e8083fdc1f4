"""Moments as an address names them, ISO 8601 or seconds since the epoch, and the zone that they are of without one."""

from __future__ import annotations

import math
import os
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from .problems import Problem

__all__ = ["local", "read_moment_s", "server_zone"]

# As ECMA-402 has them: nothing of what else lies beside the zones, such as `posix/Europe/Berlin`.
_ZONE = re.compile(r"[A-Z][A-Za-z0-9_+-]*(/[A-Z][A-Za-z0-9_+-]*)*")

# The years 1971 to 9998: in every zone the year has four digits, and the epoch is behind it.
_FIRST_S, _LAST_S = 31_536_000.0, 253_370_764_800.0


def read_moment_s(name: str, text: str) -> float | None:
    """Return a moment in seconds since the epoch; None for an empty text. Raises Problem."""
    if not text:
        return None
    try:
        at_s = float(text)
    except ValueError:
        try:
            at_s = datetime.fromisoformat(text).astimezone().timestamp()
        except (ValueError, OverflowError, OSError):
            at_s = math.nan
    if not _FIRST_S <= at_s <= _LAST_S:
        raise Problem(400, "No such moment", f"`{name}` is an ISO 8601 time, such as 2026-11-23T09:00")
    return at_s


def local(at_s: float) -> datetime:
    """Return a moment of the log by the server's clock; by that of UTC where only that has such a year."""
    try:
        return datetime.fromtimestamp(at_s).astimezone()
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(at_s, UTC)


def server_zone(now: datetime) -> str:
    """Return the zone of this server by its IANA name; where none is known, by its offset now, such as `+01:00`."""
    name = os.environ.get("TZ") or os.path.realpath("/etc/localtime").partition("/zoneinfo/")[2]
    name = name.removeprefix(":")
    offset = now.astimezone().strftime("%z")
    if _ZONE.fullmatch(name) and name != "Etc/UTC" and _is_here(name, now):
        return name
    return "UTC" if offset == "+0000" else f"{offset[:3]}:{offset[3:5]}"


def _is_here(name: str, now: datetime) -> bool:
    """Say whether the clocks of a zone are those of this server, in summer and in winter."""
    try:
        zone = ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    moments = (now, now + timedelta(days=182))
    return all(each.astimezone().utcoffset() == each.astimezone(zone).utcoffset() for each in moments)
