"""Holidays and business days: which days they are, and triggers that keep to them. Pure.

A holiday is a day that a calendar names. A business day is one that is neither a holiday nor of the weekend, or that
the calendar names as a workday whatever else it is. A fire time belongs to the day that its zone's wall clock shows.
"""

from __future__ import annotations

import functools
import json
from bisect import bisect_left, bisect_right
from calendar import monthrange
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import groupby
from typing import Any, NamedTuple, Protocol

from .cron_times import wall_time
from .triggers import AnyOf, Trigger, in_utc

__all__ = ["WEEKDAYS", "Days", "Moved", "NthDays", "Only", "Open", "days_id", "days_of_record", "moving", "record_of"]

WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_DAY = timedelta(days=1)
_INSTANT = timedelta(microseconds=1)
# So many days or months in a row without a business day are no calendar to go by: 30 years.
_MOST_IN_A_ROW = 11_000
_MOST_MONTHS = 360


class Days(NamedTuple):
    """What a calendar comes to. `weekend` has numbers as `date.weekday()`; a workday is no holiday."""

    holidays: frozenset[date] = frozenset()
    workdays: frozenset[date] = frozenset()
    weekend: frozenset[int] = frozenset({5, 6})

    def is_business_day(self, day: date) -> bool:
        """Say whether a day is one."""
        return day in self.workdays or (day.weekday() not in self.weekend and day not in self.holidays)

    def business_day(self, day: date, step: int) -> date:
        """Return the next one after `day`, with `step` 1, or the last one before it, with -1. Raises ValueError."""
        for number in range(1, _MOST_IN_A_ROW):
            other = day + number * step * _DAY
            if self.is_business_day(other):
                return other
        raise ValueError(f"no business day within 30 years of {day}")


def record_of(days: Days) -> dict[str, Any]:
    """Return the days as the log keeps them: of each year the months and days, as in `0101 1225`."""
    return {
        "weekend": [WEEKDAYS[number] for number in sorted(days.weekend)],
        "holidays": _by_year(days.holidays),
        "workdays": _by_year(days.workdays),
    }


def _by_year(days: Iterable[date]) -> dict[str, str]:
    years = groupby(sorted(days), key=lambda day: day.year)
    return {f"{year:04}": " ".join(f"{day:%m%d}" for day in group) for year, group in years}


def days_of_record(record: Mapping[str, Any]) -> Days:
    """Read such a record. Raises LookupError, TypeError, ValueError, AttributeError."""
    holidays, workdays = (
        frozenset(
            date(int(year), int(text[:2]), int(text[2:]))
            for year, texts in record[key].items()
            for text in texts.split()
        )
        for key in ("holidays", "workdays")
    )
    return Days(holidays, workdays, frozenset(map(WEEKDAYS.index, record["weekend"])))


@functools.lru_cache(256)
def days_id(days: Days) -> str:
    """Return the name by which the log keeps them, the same for the same days."""
    import hashlib  # 8 ms, for whoever has a calendar

    return hashlib.sha256(json.dumps(record_of(days)).encode()).hexdigest()[:16]


class DaySet(Protocol):
    """Some of all days; by it a trigger knows where to go on searching."""

    def has(self, day: date) -> bool:
        """Say whether it holds a day."""

    def nearest(self, day: date, step: int) -> date | None:
        """Return the first of its days after `day`, with `step` 1, or the last before it, with -1."""

    def __hash__(self) -> int: ...
    def __str__(self) -> str: ...


class Open(NamedTuple):
    """All days but the holidays."""

    days: Days

    def has(self, day: date) -> bool:
        """See DaySet."""
        return day not in self.days.holidays

    def nearest(self, day: date, step: int) -> date | None:
        """See DaySet."""
        day += step * _DAY
        while not self.has(day):
            day += step * _DAY
        return day

    def __str__(self) -> str:
        return "except on holidays"


class NthDays(NamedTuple):
    """The business days of each month that have one of these numbers; -1 is the last."""

    days: Days
    numbers: tuple[int, ...]

    def has(self, day: date) -> bool:
        """See DaySet."""
        return day in self._of_month(day.year, day.month)

    def nearest(self, day: date, step: int) -> date | None:
        """See DaySet."""
        year, month = day.year, day.month
        for _ in range(_MOST_MONTHS):
            if not 1 < year < 9999:
                break
            found = [each for each in self._of_month(year, month) if (each > day if step > 0 else each < day)]
            if found:
                return found[0] if step > 0 else found[-1]
            year, month = divmod(year * 12 + month - 1 + step, 12)
            month += 1
        return None

    def _of_month(self, year: int, month: int) -> list[date]:
        return _business_days(self.days, self.numbers, year, month)

    def __str__(self) -> str:
        return f"only on the {' and the '.join(map(_nth, self.numbers))} business day of the month"


@functools.lru_cache(4096)
def _business_days(days: Days, numbers: tuple[int, ...], year: int, month: int) -> list[date]:
    """Return the business days of a month that have one of the numbers, ascending."""
    every = [date(year, month, day) for day in range(1, monthrange(year, month)[1] + 1)]
    business = [day for day in every if days.is_business_day(day)]
    count = len(business)
    return [day for number, day in enumerate(business, 1) if number in numbers or number - count - 1 in numbers]


def _nth(number: int) -> str:
    if number == -1:
        return "last"
    place = abs(number)
    ending = "th" if 10 < place < 14 else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}" + (" to last" if number < 0 else "")


class Only(NamedTuple):
    """A trigger without its fire times on other days. See Trigger."""

    trigger: Trigger
    days: DaySet

    def next(self, after: datetime) -> datetime | None:
        """See Trigger."""
        fire = self.trigger.next(after)
        while fire is not None and not self.days.has(fire.date()):
            day = self.days.nearest(fire.date(), 1)
            fire = None if day is None else self.trigger.next(_before(day, fire.tzinfo))
        return fire

    def prev(self, before: datetime) -> datetime | None:
        """See Trigger."""
        fire = self.trigger.prev(before)
        while fire is not None and not self.days.has(fire.date()):
            day = self.days.nearest(fire.date(), -1)
            fire = None if day is None else self.trigger.prev(_start(day + _DAY, fire.tzinfo))
        return fire

    def between(self, since: datetime, until: datetime) -> Iterator[datetime]:
        """See Trigger."""
        end, fire = until.astimezone(UTC), self.next(since)
        while fire is not None and fire.astimezone(UTC) <= end:
            # To the end of its day the fire times are as good as it is; one by one they would be slow to find.
            last = _before(fire.date() + _DAY, fire.tzinfo)
            yield fire
            yield from self.trigger.between(fire, min(last, until, key=in_utc))
            # A clock set back across midnight has more of the day after the next one's beginning.
            fire = self.next(max(last, fire, key=in_utc))

    def explain(self) -> str:
        """See Trigger."""
        return f"{self.trigger.explain()} {self.days}"


class Moved(NamedTuple):
    """A trigger's fire times on holidays, at the same time of the business day after (`step` 1) or before (-1).

    Several that come to one time are one. See Trigger.
    """

    trigger: Trigger
    days: Days
    step: int

    def next(self, after: datetime) -> datetime | None:
        """See Trigger."""
        return next(self._fires(after, None), None)

    def prev(self, before: datetime) -> datetime | None:
        """See Trigger."""
        moves, end = _moves(self.days, self.step), before.astimezone(UTC)
        place = bisect_right(moves, before.date(), key=_target)
        for target, group in groupby(reversed(moves[:place]), key=_target):
            fires = [fire for fire in self._moved(target, group, before.tzinfo) if in_utc(fire) < end]
            if fires:
                return fires[-1]
        return None

    def between(self, since: datetime, until: datetime) -> Iterator[datetime]:
        """See Trigger."""
        return self._fires(since, until)

    def explain(self) -> str:
        """See Trigger."""
        return f"in their place on the {'next' if self.step > 0 else 'last'} business day"

    def sources(self, fire: datetime) -> list[date]:
        """Return the holidays whose fire times come to `fire`."""
        moves = _moves(self.days, self.step)
        first, last = (find(moves, fire.date(), key=_target) for find in (bisect_left, bisect_right))
        return [
            move[0]
            for move in moves[first:last]
            if in_utc(fire) in map(in_utc, self._moved(move[1], [move], fire.tzinfo))
        ]

    def _fires(self, since: datetime, until: datetime | None) -> Iterator[datetime]:
        moves = _moves(self.days, self.step)
        end = None if until is None else until.astimezone(UTC)
        place = bisect_left(moves, since.date(), key=_target)
        for target, group in groupby(moves[place:], key=_target):
            if end is not None and in_utc(_start(target, since.tzinfo)) > end:
                return
            for fire in self._moved(target, group, since.tzinfo):
                if in_utc(fire) > in_utc(since) and (end is None or in_utc(fire) <= end):
                    yield fire

    def _moved(self, target: date, moves: Iterable[tuple[date, date]], zone: tzinfo | None) -> list[datetime]:
        """Return the fire times of some holidays on their `target`, ascending."""
        found: dict[datetime, datetime] = {}
        for holiday, _ in moves:
            for fire in self.trigger.between(_before(holiday, zone), _before(holiday + _DAY, zone)):
                moved = _at(datetime.combine(target, fire.time()), zone)
                found[in_utc(moved)] = moved
        return [found[moment] for moment in sorted(found)]


def moving(trigger: Trigger, days: Days, step: int) -> Trigger:
    """Return a trigger whose fire times on holidays are moved to the business day after (1) or before (-1)."""
    return AnyOf((Only(trigger, Open(days)), Moved(trigger, days, step)))


@functools.lru_cache(256)
def _moves(days: Days, step: int) -> Sequence[tuple[date, date]]:
    """Return (holiday, business day) in order of both."""
    return [(day, days.business_day(day, step)) for day in sorted(days.holidays)]


def _target(move: tuple[date, date]) -> date:
    return move[1]


def _start(day: date, zone: tzinfo | None) -> datetime:
    """Return when a day begins; in a zone whose clock skips midnight, where it goes on."""
    return _at(datetime.combine(day, datetime.min.time()), zone)


def _before(day: date, zone: tzinfo | None) -> datetime:
    """Return the last instant before a day; by the clock's own reckoning it could be an hour off."""
    return (in_utc(_start(day, zone)) - _INSTANT).astimezone(zone)


def _at(wall: datetime, zone: tzinfo | None) -> datetime:
    return wall_time(wall, zone or UTC)
