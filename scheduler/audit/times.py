"""Times of the log as numbers."""

from __future__ import annotations

from datetime import datetime

__all__ = ["moment_of", "seconds"]


def moment_of(text: str) -> datetime:
    """Read an ISO 8601 time with its zone. Raises ValueError, TypeError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment


def seconds(text: str) -> float:
    """Read an ISO 8601 time with its zone as seconds since the epoch. Raises ValueError, TypeError."""
    # Without `Z` at its end it may be any zone's, or none's.
    return datetime.fromisoformat(text).timestamp() if text[-1] == "Z" else moment_of(text).timestamp()
