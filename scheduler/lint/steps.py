"""The rule about steps: `*/7` in the minutes begins anew with every hour, and so its gaps differ."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from scheduler.cron_fields import KINDS
from scheduler.expressions import Expression

from .finding import Slip

__all__ = ["uneven_step"]

_MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY = range(5)
_UNITS = ("minute", "hour", "day", "month", "day")
_WHERE = ("minutes", "hours", "days of the month", "months", "days of the week")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip
_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_EVERY = {
    _MINUTE: ("m", "from 1970, not anew with each hour"),
    _HOUR: ("h", "from 1970 in UTC, not anew with each day"),
    _DAY: ("d", "from 1970, and fires at 00:00 UTC"),
}
# Days that lie as far apart in every week; then, in every month.
_WEEKLY = {2: "MON,WED,FRI", 3: "MON,THU", 4: "MON,FRI", 5: "MON,FRI", 6: "MON", 7: "MON"}
_MONTHLY = ((12, "1,11,21"), (20, "1,15"), (31, "1"))


def uneven_step(expression: Expression) -> Iterator[Slip]:
    """Yield a slip for each field whose step runs through it all and does not divide it, with the gap that differs."""
    for index in range(5):
        step = _covering_step(expression, index)
        if step is None or not _is_continued(expression, index):
            continue
        gap, last, first = _last_gap(expression, index)
        # Of weekdays one gap must differ by a day; two days in a row are what nobody means.
        if gap == step or (index == _WEEKDAY and 1 < gap == step - 1):
            continue
        unit = _UNITS[index] + "s" * (gap != 1)
        message = (
            f"`{expression.texts[index]}` in the {_WHERE[index]} is not every {step} {_UNITS[index]}s:"
            f" from {last} to {first} it is {gap} {unit}"
        )
        yield _mended(expression, index, step, message)


def _covering_step(expression: Expression, index: int) -> int | None:
    """Return the step of a field that begins in its first step and goes on to its end; None for any other field."""
    kind, text = KINDS[index], expression.texts[index]
    if "," in text or "/" not in text or text.startswith("H("):
        return None
    [term] = expression.terms(index)
    low, high = kind.low, kind.low + kind.span - 1
    if text.startswith("H") and index == _DAY:
        return None  # days that are hashed stop at 28 for the sake of every month
    is_whole = term.first - low < term.step and high - term.step < term.last <= high
    return term.step if term.step > 1 and is_whole and term.first + term.step <= high else None


def _is_continued(expression: Expression, index: int) -> bool:
    """Whether the end of the field is followed by its beginning: 10:56 by 11:00, and not by 10:00 of another day."""
    fields = expression.fields
    days_on = expression.is_any(_DAY) and _has_neighbours(fields.weekdays, 7, 0)
    days_on |= expression.is_any(_WEEKDAY) and _has_neighbours(fields.days, 31, 1)
    return {
        _MINUTE: _has_neighbours(fields.hours, 24, 0),
        _HOUR: days_on,
        _DAY: expression.is_any(_WEEKDAY) and _has_neighbours(fields.months, 12, 1),
        _MONTH: True,
        _WEEKDAY: expression.is_any(_DAY),
    }[index]


def _has_neighbours(values: Sequence[object] | set[int] | set[int | tuple[int, int]], span: int, low: int) -> bool:
    numbers = {value for value in values if isinstance(value, int)}
    return any((number - low + 1) % span + low in numbers for number in numbers)


def _last_gap(expression: Expression, index: int) -> tuple[int, str, str]:
    """Return the gap over the end of the field, in its unit, and its two ends as people write them."""
    [term] = expression.terms(index)
    values = range(term.first, term.last + 1, term.step)
    if index == _DAY:
        # The end of a month of 31 or 30 days, whichever makes the shorter gap.
        ends = [(length - max(day for day in values if day <= length) + values[0], length) for length in (31, 30)]
        gap, length = min(ends)
        last = max(day for day in values if day <= length)
        return gap, f"the {_ordinal(last)}", f"the {_ordinal(values[0])}"
    span = KINDS[index].span
    gap = span - values[-1] + values[0]
    names = {
        _MINUTE: [f":{minute:02}" for minute in range(60)],
        _HOUR: [f"{hour:02}:00" for hour in range(24)],
        _MONTH: ["", *_MONTHS],
        _WEEKDAY: [*_WEEKDAYS],
    }[index]
    return gap, names[values[-1]], names[values[0]]


def _mended(expression: Expression, index: int, step: int, message: str) -> Slip:
    texts = expression.texts
    is_plain = texts[:index] == ("0",) * index and expression.is_any(*range(index + 1, 5))
    if is_plain and index in _EVERY and texts[index].startswith("*"):
        unit, counts = _EVERY[index]
        return Slip("uneven-step", message, f"always as long; it counts {counts}", f"@every {step}{unit}")
    if index == _DAY:
        return _mended_days(expression, step, message)
    if index == _WEEKDAY:
        return Slip("uneven-step", message, "the same days of every week", expression.with_fields({4: _WEEKLY[step]}))
    span = KINDS[index].span
    nearest = min((each for each in range(2, span) if span % each == 0), key=lambda each: abs(each - step))
    write = expression.with_fields({index: _with_step(index, texts[index], nearest)})
    return Slip("uneven-step", message, f"{nearest} divides {span}", write)


def _mended_days(expression: Expression, step: int, message: str) -> Slip:
    if step in _WEEKLY:
        write = expression.with_fields({_DAY: "*", _WEEKDAY: _WEEKLY[step]})
        return Slip("uneven-step", message, "the same days of every week", write)
    days = next(days for most, days in _MONTHLY if step <= most)
    return Slip("uneven-step", message, "days that every month has", expression.with_fields({_DAY: days}))


def _with_step(index: int, text: str, step: int) -> str:
    """Return a field with another step; a first value is kept within it."""
    start = text.split("/")[0]
    if match := re.match(r"[0-9]+", start):
        low = KINDS[index].low
        start = str((int(match[0]) - low) % step + low)
    return f"{start}/{step}"


def _ordinal(number: int) -> str:
    if 10 < number % 100 < 14:
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"
