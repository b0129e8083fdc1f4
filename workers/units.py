"""Durations, sizes and moments as people write them: `90s`, `1h30m`, `10MiB`, `2026-11-23T09:00:00Z`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from .errors import TickpoolError

__all__ = ["END_YEAR", "Duration", "InvalidDuration", "InvalidSize", "parse_size", "read_instant"]

# East of UTC the year 9999 ends in one that no calendar here has.
END_YEAR = 9999

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB)?")
_BYTES = {None: 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_LONGEST_S = 10 * 366 * 86400.0


class InvalidDuration(TickpoolError):
    """A text that is no duration."""

    def __str__(self) -> str:
        form = "write a number with ms, s, m, h, d or w (`90s`, `1h30m`), at most 10 years"
        return f"{self.args[0]!r} is not a duration; {form}"


class InvalidSize(TickpoolError):
    """A text that is no size."""

    def __str__(self) -> str:
        return f"{self.args[0]!r} is not a size; write a whole number with B, KiB, MiB or GiB (`16MiB`)"


class Duration(timedelta):
    """A length of time, written as `90s`, `1h30m` or a bare number of seconds; at most ten years."""

    @classmethod
    def parse(cls, value: object) -> Duration:
        """Read a duration. Raises InvalidDuration."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = float(value)
        elif isinstance(value, str) and _DURATION.fullmatch(value):
            seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(value))
        else:
            raise InvalidDuration(value)
        if not 0 <= seconds <= _LONGEST_S:
            raise InvalidDuration(value)
        return cls(seconds=seconds)

    def __str__(self) -> str:
        """Write it back the way people write it: `1h30m`."""
        rest_ms = round(self.total_seconds() * 1000)
        text = ""
        for unit, width_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
            count, rest_ms = divmod(rest_ms, width_ms)
            text += f"{count}{unit}" if count else ""
        return text or "0s"


def parse_size(text: str) -> int:
    """Read a size in bytes. Raises InvalidSize."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidSize(text)
    return int(match[1]) * _BYTES[match[2]]


def read_instant(text: str) -> datetime | None:
    """Read an ISO 8601 time with its zone, before the year 9999, as one in UTC; None for what is none."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None and (utc := moment.astimezone(UTC)).year < END_YEAR:
            return utc
    except (ValueError, OverflowError):
        pass
    return None
