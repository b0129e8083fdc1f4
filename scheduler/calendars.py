"""Calendars: the days that one comes to, and the calendars of one's own in `calendars.yaml`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path

from workers.errors import Fault, did_you_mean
from workers.ids import ID_RULE, is_id
from workers.yamlfile import Document, load_trusted

from .business_days import WEEKDAYS, Days
from .calendar_model import CalendarRule, OwnCalendar, Range, wrong_source
from .public_holidays import YEARS, InvalidCalendar, public_holidays

__all__ = [
    "CALENDARS_FILE",
    "Calendars",
    "days_for",
    "read_calendars",
]

CALENDARS_FILE = "calendars.yaml"
# They are one line of the log, at five bytes each.
_MOST_DAYS = 2000
_DAY = timedelta(days=1)
_MOST_IN_A_RANGE = 366
_DATE = re.compile(r"(?:([0-9]{4})-)?([0-9]{2})-([0-9]{2})")
_DATE_RULE = "write a date such as `2026-12-24`, or `12-24` for one of every year"

# The calendars of the file by name.
Calendars = Mapping[str, Days]


def days_for(rule: str | CalendarRule, calendars: Calendars | None) -> Days:
    """Return the days of a schedule's calendar; `calendars` are None where their file cannot be read.

    Raises InvalidCalendar.
    """
    rule = CalendarRule(name=rule) if isinstance(rule, str) else rule
    if rule.name is None:
        return public_holidays(rule.country, rule.subdivision, rule.market, tuple(rule.kinds))
    if calendars is None:
        raise InvalidCalendar(f"`{rule.name[:128]}` is not known while {CALENDARS_FILE} has faults; mend them first")
    if rule.name not in calendars:
        near = did_you_mean(rule.name, calendars)
        way_out = "for public holidays write `{country: FR}` or `{market: XNYS}`"
        hint = near if near.endswith("?") else f"{near}; {way_out}"
        raise InvalidCalendar(f"no calendar `{rule.name[:128]}` in {CALENDARS_FILE}{hint}")
    return calendars[rule.name]


def read_calendars(file: Path) -> tuple[dict[str, Days], list[Fault]]:
    """Read a `calendars.yaml`, a mapping from names to calendars; one with a fault is left out."""
    document, unread = load_trusted(file)
    if document is None:
        return {}, unread
    if not isinstance(document.data, dict):
        return {}, [document.fault((), "calendars are a mapping: `name:`, then the keys of the calendar below")]
    calendars: dict[str, Days] = {}
    faults: list[Fault] = []
    for name in document.data:
        if not is_id(name):
            faults.append(document.fault((name,), f"{name[:128]!r} is no id; {ID_RULE}", key=True))
            continue
        days, wrong = _read(document, name)
        faults += wrong
        if days is not None and not wrong:
            calendars[name] = days
    return calendars, faults


def _read(document: Document, name: str) -> tuple[Days | None, list[Fault]]:
    if not isinstance(document.data[name], dict):
        message = f"calendar `{name}` is a mapping with `dates`, `ranges`, `country` or `market`"
        return None, [document.fault((name,), message)]
    own, faults = document.model((name,), OwnCalendar, f"calendar `{name}`")
    if own is None:
        return None, faults
    reader = _Reader(document, name)
    holidays = {day for index, text in enumerate(own.dates) for day in reader.dates(text, "dates", index)}
    for index, each in enumerate(own.ranges):
        holidays.update(reader.range(each, index))
    workdays = {day for index, text in enumerate(own.workdays) for day in reader.dates(text, "workdays", index)}
    weekend = reader.weekend(own.weekend)
    for message in wrong_source(own):
        reader.fault((), message)
    if own.country is None and own.market is None and not (own.dates or own.ranges):
        reader.fault((), "it has no holidays; write `dates`, `ranges`, `country` or `market`")
    taken = Days()
    if not reader.faults and (own.country is not None or own.market is not None):
        try:
            taken = public_holidays(own.country, own.subdivision, own.market, tuple(own.kinds))
        except InvalidCalendar as error:
            reader.fault((), str(error))
    days = Days(
        frozenset((taken.holidays | holidays) - workdays),
        frozenset((taken.workdays - holidays) | workdays),
        taken.weekend if weekend is None else weekend,
    )
    if (count := len(days.holidays) + len(days.workdays)) > _MOST_DAYS:
        reader.fault((), f"it has {count} days; at most {_MOST_DAYS} are allowed")
    return days, reader.faults


class _Reader:
    """Reads the values of one calendar and notes what is wrong, each at its place."""

    def __init__(self, document: Document, name: str) -> None:
        self._document = document
        self._name = name
        self.faults: list[Fault] = []

    def fault(self, at: tuple[str | int, ...], message: str) -> None:
        """Note one."""
        self.faults.append(self._document.fault((self._name, *at), f"calendar `{self._name}`: {message}"))

    def dates(self, text: str, key: str, index: int) -> list[date]:
        """Return the days for which one text stands."""
        try:
            return _days_of(text, YEARS)
        except ValueError:
            self.fault((key, index), f"`{key}` {text[:40]!r} is no date; {_DATE_RULE}")
            return []

    def range(self, each: Range, index: int) -> Iterator[date]:
        """Yield the days of a range; one of every year may reach into the next."""
        texts = (each.from_, each.to)
        days = [self.dates(text, "ranges", index) for text in texts]  # both, for what is wrong with each
        if not all(days):
            return
        shown = f"`ranges` from {each.from_!r} to {each.to!r}"
        is_yearly = [len(text) == len("12-24") for text in texts]
        if any(is_yearly) and "02-29" in texts:
            self.fault(("ranges", index), f"{shown} has a day that most years lack; write `02-28` or `03-01`")
        elif any(is_yearly) and not all(is_yearly):
            self.fault(("ranges", index), f"{shown} is of one year and of every year; write both with a year, or none")
        else:
            ends = _days_of(each.to, range(YEARS.start, YEARS.stop + 1))
            for start in _days_of(each.from_, YEARS):
                end = next((end for end in ends if 0 <= (end - start).days < _MOST_IN_A_RANGE), None)
                if end is None:
                    self.fault(("ranges", index), f"{shown} is no range of 1 to {_MOST_IN_A_RANGE} days")
                    return
                yield from (start + number * _DAY for number in range((end - start).days + 1))

    def weekend(self, names: list[str] | None) -> frozenset[int] | None:
        """Return the days of the week that are no business days; None where nothing is said."""
        if names is None:
            return None
        for index, text in enumerate(names):
            if text.upper() not in WEEKDAYS:
                self.fault(("weekend", index), f"`weekend` {text[:40]!r} is no day; allowed: {', '.join(WEEKDAYS)}")
        numbers = frozenset(WEEKDAYS.index(text.upper()) for text in names if text.upper() in WEEKDAYS)
        if len(numbers) == len(WEEKDAYS):
            self.fault(("weekend",), "`weekend` leaves no business day; leave a day out")
        return numbers


def _days_of(text: str, years: range) -> list[date]:
    """Return the day of a date, or those of all `years` for one without a year. Raises ValueError."""
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    month, day = int(match[2]), int(match[3])
    if match[1] is None:
        has_leap_day = [year for year in years if year % 4 == 0]
        return [date(year, month, day) for year in (has_leap_day if (month, day) == (2, 29) else years)]
    if not 1970 <= int(match[1]) < 9999:
        raise ValueError(text)
    return [date(int(match[1]), month, day)]
