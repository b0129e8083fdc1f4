"""Fire times in order: cronsim's search over wall clocks, then Debian cron's rule for daylight saving."""

from __future__ import annotations

from bisect import bisect_left
from calendar import monthrange
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from itertools import dropwhile

from cronsim import CronSim

from .cron_fields import Fields

__all__ = ["EPOCH", "Calendar", "Period", "wall_time"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ZERO = timedelta(0)
_MINUTE = timedelta(minutes=1)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


class Period:
    """`@every`: the whole multiples of `period` since the Unix epoch, so that a restart never shifts them.

    With an `anchor` they are counted from that, in both directions.
    """

    __slots__ = ("anchor", "period")

    def __init__(self, period: timedelta, anchor: datetime = EPOCH) -> None:
        self.period, self.anchor = period, anchor

    def ascending(self, after: datetime) -> Iterator[datetime]:
        """The fire times after `after`, in its zone."""
        return self._fires((after - self.anchor) // self.period + 1, 1, after.tzinfo)

    def descending(self, before: datetime) -> Iterator[datetime]:
        """The fire times before `before`, the latest first, in its zone."""
        return self._fires(-((self.anchor - before) // self.period) - 1, -1, before.tzinfo)

    def _fires(self, count: int, step: int, zone: tzinfo | None) -> Iterator[datetime]:
        while True:
            try:
                fire = (self.anchor + count * self.period).astimezone(zone)
            except OverflowError:  # the ends of the calendar, year 1 and 9999
                return
            yield fire
            count += step


class Calendar:
    """Five cron fields, judged by the wall clock of a zone."""

    __slots__ = ("fields",)

    def __init__(self, fields: Fields) -> None:
        self.fields = fields

    def ever_fires(self) -> bool:
        """Whether any day matches; the search covers a cycle of leap years and weekdays."""
        fields = self.fields
        # Without that search where the answer is plain: any day up to the 28th is any weekday in some month.
        if not fields.is_day_and:
            return True
        if 0 < min(fields.days) <= 28 and any(isinstance(day, int) for day in fields.weekdays):
            return True
        return next(_Walk(fields, datetime(2000, 1, 1)), None) is not None  # noqa: DTZ001 wall clock

    def ascending(self, after: datetime) -> Iterator[datetime]:
        """The fire times after `after`, in its zone; ends where 50 years hold none."""
        wall, shift = _turning_at(after)
        if not shift:
            return self._in_order(_Walk(self.fields, wall), after.tzinfo)
        # Inside a gap or a fold: begin before it, and leave out what is not later.
        start = after - EPOCH
        fires = self._in_order(_Walk(self.fields, wall - shift - _MINUTE), after.tzinfo)
        return dropwhile(lambda fire: fire - EPOCH <= start, fires)

    def descending(self, before: datetime) -> Iterator[datetime]:
        """The fire times before `before`, the latest first, in its zone; ends where 50 years hold none."""
        wall, shift = _turning_at(before)
        start = before - EPOCH
        fires = self._in_order(_Walk(self.fields, wall + shift, is_reverse=True), before.tzinfo)
        # At the end of a gap the minutes in it lie before `before` and yet fire at it, not before.
        return dropwhile(lambda fire: fire - EPOCH >= start, fires)

    def _in_order(self, walls: _Walk, zone: tzinfo | None) -> Iterator[datetime]:
        if isinstance(zone, timezone):
            return (wall.replace(tzinfo=zone) for wall in walls)
        if self.fields.is_fixed:
            return _first_times(walls, zone)
        return _all_times(walls, zone, is_reverse=walls.tick_direction < 0)


class _Walk(CronSim):
    """cronsim's search over wall-clock minutes without a zone, from fields read once.

    It begins after `wall`; in reverse, at `wall`.

    cronsim's own constructor reads the text again for each start. Zones are kept from it, because cronsim 2.8
    answers a start in the second of two equal hours with a time before it, tells the end of a gap once for each
    matching minute in it, and after a shift of 30 minutes searches on from the middle of an hour.
    """

    def __init__(self, fields: Fields, wall: datetime, *, is_reverse: bool = False) -> None:
        self.dt = wall
        self.tick_direction = -1 if is_reverse else 1
        self.stride = -_MINUTE if is_reverse else _MINUTE
        self.skip_initial_tick = is_reverse
        self.fixup_tz = None
        self.seconds = {0}
        self.minutes, self.hours, self.days, self.months, self.weekdays, self.day_and, _, self.is_plain = fields

    def __next__(self) -> datetime:
        try:
            if not self.skip_initial_tick:
                self.dt += self.stride
            self.skip_initial_tick = False
            if self.tick_direction == 1:
                self.advance()
            else:
                self.reverse()
        except OverflowError:  # the ends of the calendar, year 1 and 9999
            raise StopIteration from None
        return self.dt

    def match_dom(self, d: date) -> bool:
        """Also the days written with `W`, which cronsim lacks."""
        return d.day in self.days or (
            not self.is_plain
            and (super().match_dom(d) or any(_is_nearest_weekday(d, day) for day in self.days if -31 <= day < 0))
        )

    def match_dow(self, d: date) -> bool:
        """The plain weekday first; cronsim builds a pair for `L` and `#` each time."""
        return d.isoweekday() % 7 in self.weekdays or (not self.is_plain and super().match_dow(d))

    def advance_minute(self) -> bool:
        """Jump where cronsim steps through the minutes."""
        minute = self.dt.minute
        if minute in self.minutes:
            return False
        later = [number for number in self.minutes if number > minute]
        self.dt = self.dt.replace(minute=min(later)) if later else self.dt.replace(minute=0) + _HOUR
        return True

    def advance_hour(self) -> bool:
        """Jump where cronsim steps through the hours."""
        hour = self.dt.hour
        if hour in self.hours:
            return False
        later = [number for number in self.hours if number > hour]
        midnight_or_hour = self.dt.replace(hour=min(later, default=0), minute=0)
        self.dt = midnight_or_hour if later else midnight_or_hour + _DAY
        return True


def _is_nearest_weekday(day: date, coded: int) -> bool:
    """Whether `day` stands for `coded`, which is -15 for `15W`: Quartz's rule, never out of the month."""
    last = monthrange(day.year, day.month)[1]
    if -coded > last:
        return False
    target = day.replace(day=-coded)
    weekday = target.isoweekday()
    if weekday == 6:
        return day.day == (target.day - 1 if target.day > 1 else 3)
    if weekday == 7:
        return day.day == (target.day + 1 if target.day < last else last - 2)
    return day == target


def _wall_minute(dt: datetime) -> datetime:
    return dt.replace(second=0, microsecond=0, tzinfo=None, fold=0)


def _turning_at(dt: datetime) -> tuple[datetime, timedelta]:
    """The wall-clock minute of `dt`, made real when a gap swallowed it, and by how much the clock is turned there."""
    wall = _wall_minute(dt)
    if isinstance(dt.tzinfo, timezone):  # a fixed offset, UTC above all
        return wall, _ZERO
    shift = _shift(wall, dt.tzinfo)
    return (_wall_minute(dt.astimezone(UTC).astimezone(dt.tzinfo)), abs(shift)) if shift else (wall, shift)


def _shift(wall: datetime, zone: tzinfo | None) -> timedelta:
    """How far the clock is turned around `wall`: positive inside a gap, negative inside a fold, else zero (PEP 495)."""
    first = wall.replace(tzinfo=zone)
    return (first.replace(fold=1).utcoffset() or _ZERO) - (first.utcoffset() or _ZERO)


def _first_times(walls: Iterable[datetime], zone: tzinfo | None) -> Iterator[datetime]:
    """Times of day: once each, the first of two equal ones, and at a gap's end for all that fall into it."""
    last = None
    for wall in walls:
        shift = _shift(wall, zone)
        fire = _end_of_gap(wall, zone, shift) if shift > _ZERO else wall
        if fire != last:
            yield fire.replace(tzinfo=zone)
        last = fire


def wall_time(wall: datetime, zone: tzinfo) -> datetime:
    """Return when a wall clock without a zone shows `wall`: the first time of two, the end of the gap for none."""
    shift = _shift(wall, zone)
    return (_end_of_gap(wall, zone, shift) if shift > _ZERO else wall).replace(tzinfo=zone)


def _end_of_gap(wall: datetime, zone: tzinfo | None, shift: timedelta) -> datetime:
    minutes = range(int(shift / _MINUTE) + 1)
    return wall + bisect_left(minutes, True, key=lambda count: _shift(wall + count * _MINUTE, zone) <= _ZERO) * _MINUTE


def _all_times(walls: Iterable[datetime], zone: tzinfo | None, *, is_reverse: bool) -> Iterator[datetime]:
    """Every minute whose wall clock matches: both of two equal ones, none from a gap; in the order of time."""
    fold: list[datetime] = []  # the wall clocks of the fold at hand, whose other time is still to be told
    for wall in walls:
        shift = _shift(wall, zone)
        if fold and (not shift or abs(wall - fold[0]) >= abs(shift)):
            yield from (each.replace(tzinfo=zone, fold=not is_reverse) for each in fold)
            fold = []
        if shift < _ZERO:
            fold.append(wall)
        if shift <= _ZERO:
            yield wall.replace(tzinfo=zone, fold=is_reverse and bool(shift))
    yield from (each.replace(tzinfo=zone, fold=not is_reverse) for each in fold)
