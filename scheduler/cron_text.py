"""Cron fields in plain words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .cron_fields import KINDS, Term, read_terms

__all__ = ["explain_fields"]

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_NTH = ("first", "second", "third", "fourth", "fifth")
_MOST_TIMES = 6
_Terms = Sequence[Term]


def explain_fields(texts: Sequence[str], seed: str) -> str:
    """Say five valid fields in one lower-case phrase: the time of day, then the days."""
    minutes, hours, days, months, weekdays = (
        read_terms(kind, text, seed) for kind, text in zip(KINDS, texts, strict=True)
    )
    time = _explain_time(minutes, hours)
    date = _explain_date(days, months, weekdays, is_and=texts[2][0] in "*?" or texts[4][0] in "*?")
    if not date or date.startswith("in "):
        date = f"every day {date}" if time.startswith("at ") and not _is_any(hours) else date
    return f"{time} {date}".strip()


def _explain_time(minutes: _Terms, hours: _Terms) -> str:
    exact_minutes, exact_hours = _singles(minutes), _singles(hours)
    if exact_minutes and exact_hours and len(exact_minutes) * len(exact_hours) <= _MOST_TIMES:
        return f"at {_join([_clock(hour, minute) for hour in exact_hours for minute in exact_minutes])}"
    if _is_any(hours):
        return "every hour" if exact_minutes == [0] else _explain_minutes(minutes, " of every hour")
    hour = hours[0]
    if len(hours) == 1 and len(exact_minutes) == 1:
        return _explain_hourly(hour, exact_minutes[0])
    period = _period(minutes)
    if len(hours) == 1 and hour.step == 1 and period:
        return f"{period} from {_clock(hour.first, 0)} to {_clock(hour.last, 59)}"
    plural = "" if len(exact_hours) == 1 else "s"
    named = _list_terms(hours, "hour", str, 24)
    return _explain_minutes(minutes, f" of {named if named.startswith('every') else f'hour{plural} {named}'}")


def _explain_minutes(minutes: _Terms, rest: str) -> str:
    period = _period(minutes)
    if period:
        return period if rest == " of every hour" else f"{period}{rest}"
    exact = _singles(minutes)
    named = _list_terms(minutes, "minute", str, 60)
    if named.startswith("every"):
        return f"{named}{rest}"
    return f"at minute{'' if len(exact) == 1 else 's'} {named}{rest}"


def _explain_hourly(hour: Term, minute: int) -> str:
    period = "every hour" if hour.step == 1 else f"every {hour.step} hours"
    if hour.mark == "*" and minute == 0 and 24 % hour.step == 0:
        return period
    last = hour.last - (hour.last - hour.first) % hour.step
    return f"{period} from {_clock(hour.first, minute)} to {_clock(last, minute)}"


def _period(minutes: _Terms) -> str:
    """`every 5 minutes` when that is the whole truth: a step that divides the hour."""
    if _is_any(minutes):
        return "every minute"
    step = minutes[0].step
    return f"every {step} minutes" if len(minutes) == 1 and minutes[0].mark == "*" and 60 % step == 0 else ""


def _explain_date(days: _Terms, months: _Terms, weekdays: _Terms, *, is_and: bool) -> str:
    named_months = "" if _is_any(months) else _list_terms(months, "month", lambda number: _MONTHS[number - 1], 12)
    of_month = f" of {named_months or 'the month'}"
    in_month = f" in {named_months}" if named_months else ""
    if _is_any(days) and _is_any(weekdays):
        return in_month.strip()
    on_day = "" if _is_any(days) else f"on {_list_days(days)}{of_month}"
    if _is_any(weekdays):
        return on_day
    is_plain = not any(term.mark in ("L", "#") for term in weekdays)
    on_weekday = f"{_list_weekdays(weekdays)}{in_month if is_plain else of_month}"
    if not on_day:
        return f"on {on_weekday}"
    return f"{on_day} if it is {on_weekday}" if is_and else f"{on_day} or on {on_weekday}"


def _list_days(days: _Terms) -> str:
    words = {"L": "the last day", "LW": "the last weekday"}
    named = []
    for term in days:
        if term.mark == "W":
            named.append(f"the weekday nearest {_the(term.first)}")
        else:
            named.append(words.get(term.mark) or _say(term, "day", _the, 31))
    return _join(named)


def _list_weekdays(weekdays: _Terms) -> str:
    named = []
    for term in weekdays:
        day = _weekday(term.first)
        words = {"L": f"the last {day}", "#": f"the {_NTH[min(term.step, 5) - 1]} {day}"}
        named.append(words.get(term.mark) or _say(term, "day of the week", _weekday, 7))
    return _join(named)


def _list_terms(terms: _Terms, unit: str, label: Callable[[int], str], span: int) -> str:
    return _join([_say(term, unit, label, span) for term in terms])


def _say(term: Term, unit: str, label: Callable[[int], str], span: int) -> str:
    low = 1 if span in (31, 12) else 0

    def name(number: int) -> str:
        return label((number - low) % span + low)

    every = f"every {unit}" if term.step == 1 else f"every {_ordinal(term.step)} {unit}"
    if term.mark == "*":
        return every
    if term.first == term.last:
        return name(term.first)
    ends = f"{name(term.first)} to {name(term.last)}"
    return ends if term.step == 1 else f"{every} from {ends}"


def _is_any(terms: _Terms) -> bool:
    return any(term.mark == "*" and term.step == 1 for term in terms)


def _singles(terms: _Terms) -> list[int]:
    """The numbers of a list of single numbers, sorted; empty when anything else is among them."""
    if any(term.mark or term.first != term.last for term in terms):
        return []
    return sorted({term.first for term in terms})


def _clock(hour: int, minute: int) -> str:
    return f"{hour % 24:02}:{minute:02}"


def _weekday(number: int) -> str:
    return _WEEKDAYS[number % 7]


def _the(day: int) -> str:
    return f"the {_ordinal(day)}"


def _ordinal(number: int) -> str:
    if 10 < number % 100 < 14:
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"


def _join(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
