"""What a clock that is set forward or back does to fire times: which zone, which day, which times of day."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from .cron_times import Calendar
from .expressions import Expression, clock_expressions
from .schedule_model import Schedule

__all__ = ["Turn", "remark_on", "touched", "turns"]

_MINUTE = timedelta(minutes=1)
_DAY = timedelta(days=1)
# No zone turns its clock twice within half a day; those that stop for Ramadan leave weeks between.
_STRIDE = _DAY / 2
_LONGEST_WAIT = timedelta(days=400)


class Turn(NamedTuple):
    """A clock is turned: the instant in UTC, and what it shows right before and right then, as times without a zone."""

    at: datetime
    before: datetime
    after: datetime

    @property
    def is_forward(self) -> bool:
        """Whether times of day are left out; else they come twice."""
        return self.after > self.before

    def span(self) -> tuple[datetime, datetime]:
        """Return the times of day that do not come, or come twice: from the first up to, not including, the second."""
        return min(self.before, self.after), max(self.before, self.after)

    def __str__(self) -> str:
        way = "forward" if self.is_forward else "back"
        return f"the clock goes {way} {self.hands()}"

    def hands(self) -> str:
        """Return what the clock shows before and after, with dates where a whole day is left out."""
        form = "%H:%M" if abs(self.after - self.before) < _DAY else "%Y-%m-%d %H:%M"
        return f"{self.before:{form}} -> {self.after:{form}}"


@lru_cache(1024)
def turns(zone: ZoneInfo, since: datetime, until: datetime) -> tuple[Turn, ...]:
    """Return the turns of a zone's clock after `since` up to and including `until`, in order."""
    found = []
    start, offset = since, _offset(zone, since)
    while start < until:
        end = min(start + _STRIDE, until)
        following = _offset(zone, end)
        if following != offset:
            at = _first_instant(zone, start, end)
            found.append(Turn(at, (at + offset).replace(tzinfo=None), (at + following).replace(tzinfo=None)))
        start, offset = end, following
    return tuple(found)


def touched(expression: Expression, turn: Turn) -> list[datetime]:
    """Return the times of day, with their date, that the expression has among those that a turn doubles or leaves out.

    Ascending, without a zone. With `fields.is_fixed`, those that are left out fire together at the end of the gap and
    those that come twice fire the first time; without it, they do not fire, or fire twice.
    """
    low, high = turn.span()
    hours = {(low + timedelta(hours=count)).hour for count in range(25) if low + timedelta(hours=count - 1) < high}
    if not hours & expression.fields.hours:
        return []
    walls = Calendar(expression.fields).ascending(low.replace(tzinfo=UTC) - _MINUTE)
    found = []
    for wall in walls:
        if (naive := wall.replace(tzinfo=None)) >= high:
            break
        found.append(naive)
    return found


def remark_on(schedule: Schedule, fire: datetime) -> str:
    """Say what the clock of the schedule's zone does to this fire time, and to those since the one before; "": nothing.

    `fire` is a fire time of the schedule.
    """
    now = fire.astimezone(UTC)
    previous = schedule.fires.prev(fire.astimezone(schedule.zone))
    since = max(now - _LONGEST_WAIT, previous.astimezone(UTC)) if previous else now - _LONGEST_WAIT
    told = [
        text
        for turn in turns(schedule.zone, min(since, now - _DAY), now + _DAY)
        if not turn.is_forward or since < turn.at <= now
        for _, expression in clock_expressions(schedule)
        for text in _remarks(expression, turn, now, fire.astimezone(schedule.zone))
    ]
    return "; ".join(dict.fromkeys(told))


def _remarks(expression: Expression, turn: Turn, now: datetime, fire: datetime) -> Iterator[str]:
    is_fixed = expression.fields.is_fixed
    wall = fire.replace(tzinfo=None, fold=0)
    if turn.is_forward:
        walls = touched(expression, turn)
        if walls and not is_fixed:
            day = "" if walls[0].date() == wall.date() else f"on {walls[0]:%Y-%m-%d} "
            yield f"{day}{turn}: {_range(walls)} {'does' if len(walls) == 1 else 'do'} not come"
        elif walls and turn.at == now:
            yield f"{turn}: {_range(walls)} fire{'s' if len(walls) == 1 else ''} at {_clock(wall)}"
    elif turn.span()[0] <= wall < turn.span()[1] and wall in touched(expression, turn):
        which = "fires the first time" if is_fixed else f"this is the {'second' if fire.fold else 'first'} time"
        yield f"{turn}: {_clock(wall)} comes twice; {which}"


def _range(walls: Sequence[datetime]) -> str:
    first, last = _clock(walls[0]), _clock(walls[-1])
    return {1: first, 2: f"{first} and {last}"}.get(len(walls), f"{first} to {last}")


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)


def _first_instant(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """Return the second, in UTC, from which on the offset is that of `after`; it changes once in between."""
    low, high = int(before.timestamp()), int(after.timestamp())
    wanted = _offset(zone, after)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, datetime.fromtimestamp(middle, UTC)) == wanted:
            high = middle
        else:
            low = middle
    return datetime.fromtimestamp(high, UTC)


def _clock(wall: datetime) -> str:
    return f"{wall:%H:%M}"
