"""Rules about the days of one expression: days that do not exist, months that are skipped, either of two days."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice

from scheduler.expressions import ANY, Expression, clock_expressions, read_expression
from scheduler.schedule_model import Schedule
from scheduler.triggers import Never

from .finding import Finding, Slip, about, about_expression

__all__ = ["always_closed", "either_day", "never_fires", "never_fires_again", "short_month", "stale_calendar"]

_FAR = timedelta(days=5 * 366)
_LOOKED_AT = 10_000
_DAY, _MONTH, _WEEKDAY = 2, 3, 4
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_NAMES = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip
_NTH = {"#1": "first", "#2": "second", "#3": "third", "#4": "fourth", "#5": "fifth", "L": "last"}
_WEEKS = {"1-7": "#1", "8-14": "#2", "15-21": "#3", "22-28": "#4", "29-31": "#5", "25-31": "L"}


def never_fires(expression: Expression) -> Iterator[Slip]:
    """Yield a slip for an expression that no day of the calendar matches, such as the 31st of February."""
    if not expression.ever_fires():
        message = f"`{expression.text}` ({expression.explain()}) never fires: no month it allows has such a day"
        yield _with_last_day("never-fires", expression, message)


def never_fires_again(schedule: Schedule, now: datetime) -> Iterator[Finding]:
    """Yield a finding for a schedule that has no fire time ahead, or none for five years."""
    if isinstance(schedule.fires, Never):
        return
    following = schedule.fires.next(now.astimezone(schedule.zone))
    if following is None:
        mend = "remove it, say `enabled: false`, or give it times that are to come"
        at = ("cron", 0) if schedule.expressions else ("at",)
        yield about(schedule, at, "never-fires", "it never fires again: all its fire times are past", mend)
    elif following - now > _FAR:
        years = (following - now).days / 365.25
        message = f"it fires next on {following:%Y-%m-%d}, in {years:.0f} years"
        for index, expression in clock_expressions(schedule):
            yield about_expression(schedule, index, _with_last_day("never-fires", expression, message))


def always_closed(schedule: Schedule, now: datetime) -> Iterator[Finding]:
    """Yield a finding for a schedule that runs at none of the fire times of the next five years."""
    if not schedule.can_close:
        return
    reasons: set[str] = set()
    fires = schedule.fires.between(now.astimezone(schedule.zone), now + _FAR)
    for fire in islice(fires, _LOOKED_AT):
        reason = schedule.closed(fire)
        if reason is None:
            return
        reasons.add(reason)
    # Of what lies beyond those looked at, nothing is known.
    if reasons and next(fires, None) is None:
        key = "calendar" if "holiday" in reasons else "blackout"
        texts = " and ".join(sorted(reasons))
        message = f"it would never run: all its fire times of five years are closed ({texts})"
        mend = (
            "`on_holiday: next_business_day`, or other days" if key == "calendar" else "other times, or `then: defer`"
        )
        yield about(schedule, (key,), "always-closed", message, mend)


def stale_calendar(schedule: Schedule, now: datetime) -> Iterator[Finding]:
    """Yield a finding for a schedule whose calendar names no holiday to come."""
    last = max(schedule.days.holidays, default=None) if schedule.days is not None else None
    if last is None or last >= now.astimezone(schedule.zone).date():
        return
    is_own = schedule.calendar_rule.name is not None
    mend = "add those to come to calendars.yaml" if is_own else "install a newer version of the package `holidays`"
    message = f"its calendar has no holiday after {last}: from there on every day is open"
    yield about(schedule, ("calendar",), "stale-calendar", message, mend)


def _with_last_day(rule: str, expression: Expression, message: str) -> Slip:
    """Propose the last day of the month, or the last of that weekday, in place of one that is never there."""
    if any(term.mark == "#" for term in expression.terms(_WEEKDAY)):
        days = {_WEEKDAY: re.sub(r"#[0-9]+", "L", expression.texts[_WEEKDAY])}
        words = "the last one of the month"
    else:
        is_weekday = all(term.mark == "W" for term in expression.terms(_DAY))
        days = {_DAY: "LW" if is_weekday else "L"}
        words = "the last weekday of the month" if is_weekday else "the last day of the month"
    write = expression.with_fields(days)
    mended = read_expression(write, expression.seed)
    if mended is None or not mended.ever_fires():
        return Slip(rule, message, "name a day that these months have")
    return Slip(rule, message, words, write)


def short_month(expression: Expression) -> Iterator[Slip]:
    """Yield a slip for a single day from 29 to 31 that some of the months lack."""
    if not expression.is_any(_WEEKDAY):
        return
    items = expression.texts[_DAY].split(",")
    late = [(item, int(match[1])) for item in items if (match := re.fullmatch(r"(29|30|31)W?", item))]
    months = expression.fields.months
    lacking = {item: [month for month in sorted(months) if _least(month) < day] for item, day in late}
    skipped = sorted({month for short in lacking.values() for month in short})
    # Without any day in these months it never fires at all, which is another rule's.
    if not skipped or not expression.ever_fires():
        return
    first = next(item for item, short in lacking.items() if short)
    leap = " outside leap years" if all(day == 29 for _, day in late) else ""
    message = f"day `{first}` of the month is skipped in {_join([_NAMES[month - 1] for month in skipped])}{leap}"
    if len(late) > 1:
        yield Slip("short-month", message, "`L` is the last day of every month")
        return
    last = "LW" if first.endswith("W") else "L"
    write = expression.with_fields({_DAY: ",".join(last if item == first else item for item in items)})
    words = "the last weekday of every month" if last == "LW" else "the last day of every month"
    yield Slip("short-month", message, words, write)


def _least(month: int) -> int:
    return 28 if month == 2 else _LONGEST[month - 1]


def either_day(expression: Expression) -> Iterator[Slip]:
    """Yield a slip for two restricted day fields, of which cron takes either."""
    days, weekdays = expression.texts[_DAY], expression.texts[_WEEKDAY]
    if expression.fields.is_day_and:
        return
    message = f"either day is enough: `{expression.text}` fires {expression.explain()}"
    week = _WEEKS.get(days)
    if week and re.fullmatch(r"[0-7]|[A-Z]{3}", weekdays):
        words = f"the {_NTH[week]} one of the month"
        yield Slip("either-day", message, words, expression.with_fields({_DAY: ANY, _WEEKDAY: weekdays + week}))
        return
    both = [expression.with_fields({_WEEKDAY: ANY}), expression.with_fields({_DAY: ANY})]
    alive = [text for text in both if (half := read_expression(text, expression.seed)) and half.ever_fires()]
    if len(alive) == 1:
        yield Slip("either-day", message, "the other half never fires", alive[0])
    else:
        yield Slip("either-day", message, "if that is meant; else only one of the two", both)


def _join(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
