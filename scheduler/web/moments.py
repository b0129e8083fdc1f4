"""Moments as an address names them: ISO 8601 or seconds since the epoch; without a zone, in that of the server."""

from __future__ import annotations

import math
from datetime import datetime

from .problems import Problem

__all__ = ["local_time", "read_moment_s"]

# The years 1971 to 9998: in every zone the year has four digits, and the epoch is behind it.
_FIRST_S, _LAST_S = 31_536_000.0, 253_370_764_800.0


def local_time(at_s: float) -> datetime:
    """Return a moment, in seconds since the epoch, in the zone of the server; one that no log can mean is moved."""
    return datetime.fromtimestamp(min(max(at_s, 0.0), _LAST_S)).astimezone()


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
