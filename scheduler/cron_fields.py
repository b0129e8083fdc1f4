"""The notation of cron: five fields of text become sets of numbers, or an error that says what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, cast

from cronsim import CronSim

from workers.errors import TickpoolError, did_you_mean

__all__ = ["KINDS", "Fields", "InvalidCron", "Kind", "Term", "read_fields", "read_terms"]

_SpecItem = int | tuple[int, int]
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_PLAIN_WEEKDAYS = frozenset[_SpecItem](range(7))
_PLAIN = re.compile(r"(?:(\*)|([0-9]+|[A-Z]+)(?:-([0-9]+|[A-Z]+))?)(?:/([0-9]+))?")
_HASHED = re.compile(r"H(?:\(([0-9]+)-([0-9]+)\))?(?:/([0-9]+))?")
_USES_HASH = re.compile(r"(?:^|,)H(?![A-Z])")
_NEAREST = re.compile(r"([0-9]+)W")
_LAST = re.compile(r"([0-9]+|[A-Z]+?)L")
_NTH = re.compile(r"([0-9]+|[A-Z]+)#([0-9]+)")


class InvalidCron(TickpoolError):
    """A cron expression that cannot be used: `expr` as a whole, or `value` in its `field`, breaks `rule`."""

    def __init__(self, expr: str, field: str, value: str, rule: str) -> None:
        super().__init__(expr, field, value, rule)
        self.expr, self.field, self.value, self.rule = expr, field, value, rule

    def __str__(self) -> str:
        expr = f" `{_shown(self.expr)}`" if self.expr else ""
        place = f"{self.field} `{_shown(self.value)}` " if self.field else ""
        return f"cron{expr}: {place}{self.rule}"


class Kind(NamedTuple):
    """One of the five fields: its numbers run from `low` to `high` and repeat after `span` values."""

    name: str
    low: int
    high: int
    span: int
    names: tuple[str, ...] = ()


KINDS = (
    Kind("minute", 0, 59, 60),
    Kind("hour", 0, 23, 24),
    Kind("day-of-month", 1, 31, 31),
    Kind("month", 1, 12, 12, _MONTHS),
    Kind("day-of-week", 0, 7, 7, _WEEKDAYS),  # Sunday is 0 and 7
)
_DAY, _WEEKDAY = KINDS[2], KINDS[4]


class Term(NamedTuple):
    """One item of a field's list: every `step`th number from `first` to `last`, which is past the end when it wraps.

    `mark` is `*` for the whole field, `L`, `LW` or `W` for Quartz's days, `#` for the `step`th weekday of a month.
    """

    first: int
    last: int
    step: int = 1
    mark: str = ""


class Fields(NamedTuple):
    """An expression as cronsim's search reads it; the sets are shared, so nobody may change them.

    Among `days`, -15 is `15W`. `is_day_and` and `is_fixed` are Debian cron's readings of a leading star: both day
    fields must match, not either; and it is a time of day, no star leads minute or hour. `is_plain`: no `L`, `W`, `#`.
    """

    minutes: set[int]
    hours: set[int]
    days: set[int]
    months: set[int]
    weekdays: set[_SpecItem]
    is_day_and: bool
    is_fixed: bool
    is_plain: bool


class _RefusedError(Exception):
    """(value, rule) of an item that breaks a rule; `read_fields` knows the expression."""


def read_fields(expr: str, texts: list[str], seed: str) -> Fields:
    """Read the five `texts` of `expr`, in upper case, with `H` hashed from `seed`. Raises InvalidCron."""
    minutes, hours, days, months, weekdays = (
        _read_numbers(expr, index, text, seed) for index, text in enumerate(texts)
    )
    return Fields(
        cast("set[int]", minutes),
        cast("set[int]", hours),
        cast("set[int]", days),
        cast("set[int]", months),
        weekdays,
        is_day_and=texts[2][0] in "*?" or texts[4][0] in "*?",
        is_fixed=texts[0][0] != "*" and texts[1][0] != "*",
        is_plain=min(cast("set[int]", days)) > 0 and weekdays <= _PLAIN_WEEKDAYS,
    )


def _read_numbers(expr: str, index: int, text: str, seed: str) -> set[_SpecItem]:
    try:
        return _numbers(index, text, seed if _USES_HASH.search(text) else "")
    except _RefusedError as refused:
        value, rule = refused.args
        at = expr.upper().find(value)
        written = expr[at : at + len(value)]  # in the case it was written in
        raise InvalidCron(expr, KINDS[index].name, written, rule) from None


@lru_cache(maxsize=4096)
def _numbers(index: int, text: str, seed: str) -> set[_SpecItem]:
    # 100,000 schedules write few different fields; the cache makes them share one set (a `*` minute takes 4 KiB).
    kind = KINDS[index]
    return {number for term in read_terms(kind, text, seed) for number in _numbers_of(kind, term)}


def _numbers_of(kind: Kind, term: Term) -> Iterable[_SpecItem]:
    if term.mark == "L":
        # cronsim keeps the last and the nth weekday of a month as a pair among the numbers.
        return [CronSim.LAST if kind is _DAY else (term.first, CronSim.LAST)]
    if term.mark == "LW":
        return [CronSim.LAST_WEEKDAY]
    if term.mark == "W":
        return [-term.first]
    if term.mark == "#":
        return [(term.first, term.step)]
    numbers = range(term.first, term.last + 1, term.step)
    return [(number - kind.low) % kind.span + kind.low for number in numbers]


def read_terms(kind: Kind, text: str, seed: str) -> list[Term]:
    """Read one field's list into its items, with `H` resolved."""
    if text == "?" and kind in (_DAY, _WEEKDAY):
        text = "*"
    items = text.split(",")
    if "" in items:
        raise _RefusedError(text, "has an empty item in its list; write values between the commas")
    return [_read_term(kind, item, seed) for item in items]


def _read_term(kind: Kind, item: str, seed: str) -> Term:
    if match := _HASHED.fullmatch(item):
        return _hashed_term(kind, match, seed)
    special = _read_day(item) if kind is _DAY else _read_weekday(item) if kind is _WEEKDAY else None
    if special is not None:
        return special
    match = _PLAIN.fullmatch(item)
    if match is None:
        raise _RefusedError(item, f"cannot be read; allowed: {_allowed(kind)}")
    star, first_text, last_text, step_text = match.groups()
    step = _step(kind, item, step_text, kind.span)
    if star:
        return Term(kind.low, kind.low + kind.span - 1, step, "*")
    first = _number(kind, first_text)
    if last_text is None:
        return Term(first, kind.high if step_text else first, step)
    last = _number(kind, last_text)
    return Term(first, last if last >= first else last + kind.span, step)


def _read_day(item: str) -> Term | None:
    if item in ("L", "LW"):
        return Term(0, 0, mark=item)
    match = _NEAREST.fullmatch(item)
    return Term(_number(_DAY, match[1]), 0, mark="W") if match else None


def _read_weekday(item: str) -> Term | None:
    if item == "L":
        raise _RefusedError(item, "needs a day before it; write `FRIL` or `5L` for the last Friday of the month")
    if match := _LAST.fullmatch(item):
        return Term(_number(_WEEKDAY, match[1]) % 7, 0, mark="L")
    if match := _NTH.fullmatch(item):
        if match[2] not in ("1", "2", "3", "4", "5"):
            raise _RefusedError(item, f"asks for weekday number {match[2]} of the month; allowed: 1-5")
        return Term(_number(_WEEKDAY, match[1]) % 7, 0, int(match[2]), "#")
    return None


def _hashed_term(kind: Kind, match: re.Match[str], seed: str) -> Term:
    # Jenkins: `H` is one value of the field, `H/n` every nth from a hashed start; days stop at 28, as every month does.
    low, high = kind.low, 28 if kind is _DAY else kind.low + kind.span - 1
    if match[1] is not None:
        low, high = _number(kind, match[1]), _number(kind, match[2])
        if high < low:
            raise _RefusedError(match[0], f"has a range that ends before it starts; allowed: H({high}-{low})")
    step = _step(kind, match[0], match[3], high - low + 1)
    import hashlib  # OpenSSL takes 2 ms to load, and few expressions have an H

    # surrogatepass: an id that came from a file name may hold bytes that are no text.
    digest = hashlib.blake2b(f"{seed}\0{kind.name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    first = low + int.from_bytes(digest) % (step if match[3] else high - low + 1)
    return Term(first, high if match[3] else first, step)


def _number(kind: Kind, text: str) -> int:
    if text in kind.names:
        return kind.names.index(text) + kind.low
    if not text.isdigit():
        allowed = did_you_mean(text, kind.names) if kind.names else f"; allowed: {_allowed(kind)}"
        raise _RefusedError(text, f"is not a {kind.name}{allowed}")
    number = int(text)
    if not kind.low <= number <= kind.high:
        raise _RefusedError(text, f"is out of range; allowed: {_range(kind)}")
    return number


def _step(kind: Kind, item: str, text: str | None, most: int) -> int:
    step = 1 if text is None else int(text)
    if not 1 <= step <= most:
        is_time = step and kind.span in (60, 24)
        hint = "; a longer period is written `@every 90m`" if is_time else ""
        raise _RefusedError(item, f"has step {step}; allowed: 1-{most}{hint}")
    return step


def _range(kind: Kind) -> str:
    return f"{kind.low}-{kind.high}" + (f" or {kind.names[0]}-{kind.names[-1]}" if kind.names else "")


def _allowed(kind: Kind) -> str:
    days = {"day-of-month": ", `?`, `L`, `LW`, `15W`", "day-of-week": ", `?`, `FRIL`, `MON#1`"}.get(kind.name, "")
    return f"{_range(kind)}, `*`, lists `1,3`, ranges `1-5`, steps `*/2`, `H`{days}"


def _shown(text: str) -> str:
    # One line whatever was given: a NUL or a newline is written as an escape, a novel is cut.
    short = text if len(text) <= 80 else f"{text[:77]}..."
    return short if short.isprintable() else ascii(short)[1:-1]
