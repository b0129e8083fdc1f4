"""Moments as operators write them: on the command line, and in the forms of the dashboard."""

from __future__ import annotations

from contextlib import suppress
from datetime import date, datetime
from zoneinfo import ZoneInfo

from workers.errors import TickpoolError
from workers.units import END_YEAR, Duration, InvalidDuration, read_instant

__all__ = ["InvalidMoment", "InvalidUntil", "read_day", "read_moment", "read_since", "read_until"]

_SUCH = f"such as 2026-11-23T09:00:00Z, before the year {END_YEAR}"


class InvalidMoment(TickpoolError):
    """A value that is no moment: (the option or field, the text)."""

    def __str__(self) -> str:
        return f"{self.args[0]} {self.args[1]!r}: write an ISO 8601 time with its zone, {_SUCH}"


def read_moment(option: str, text: str) -> datetime:
    """Read the value of an option as an aware datetime in UTC. Raises InvalidMoment."""
    moment = read_instant(text)
    if moment is None:
        raise InvalidMoment(option, text)
    return moment


class InvalidUntil(TickpoolError):
    """A value that is neither a moment nor a duration: (the option or field, the text)."""

    def __str__(self) -> str:
        forms = f"a duration such as 7d, or an ISO 8601 time with its zone, {_SUCH}"
        return f"{self.args[0]} {self.args[1]!r}: write {forms}"


def read_until(option: str, text: str, now: datetime) -> datetime:
    """Read a moment, or a duration from now, as an aware datetime in UTC. Raises InvalidUntil."""
    with suppress(InvalidDuration, OverflowError):
        if (moment := now + Duration.parse(text)).year < END_YEAR:
            return moment
    try:
        return read_moment(option, text)
    except InvalidMoment:
        raise InvalidUntil(option, text) from None


def read_since(option: str, text: str, now: datetime) -> datetime:
    """Read a moment, or a duration before now, as an aware datetime in UTC. Raises InvalidUntil."""
    try:
        return now - Duration.parse(text)
    except (InvalidDuration, OverflowError):
        return read_until(option, text, now)


def read_day(option: str, text: str, zone: ZoneInfo) -> datetime:
    """Read a moment; a mere date is its first moment in the zone. Raises InvalidMoment."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return read_moment(option, text)
    try:
        return read_moment(option, datetime(day.year, day.month, day.day, tzinfo=zone).isoformat())
    except OverflowError:
        raise InvalidMoment(option, text) from None
