"""The rules of the keys that say when a schedule fires."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import available_timezones

from workers.errors import did_you_mean
from workers.run_request import ANY_END, STATUSES
from workers.units import InvalidDuration

from .blackout import Blackout, end_of
from .calendar_model import wrong_source
from .cron import InvalidCron, read_texts
from .schedule_model import Schedule, compiled, zone_of

__all__ = ["FIRES_BY", "wrong_timing"]

# The keys of which one, at least, says when a schedule fires.
FIRES_BY = ("cron", "every", "at", "after", "on_file")

_MOST_EXPRESSIONS = 100
_MOST_TIMES = 10_000
_SHORTEST = timedelta(seconds=1)
_MOST_WINDOWS = 100
_MOST_BUSINESS_DAYS = 23
_LONGEST_WINDOW = timedelta(days=366)
_ENDS = (*STATUSES, ANY_END)
_TIME_RULE = "write ISO 8601 in whole seconds, such as `2026-11-23T09:00:00`, with an offset or in the schedule's zone"


def wrong_timing(schedule: Schedule) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong)."""
    expressions = schedule.expressions
    given = [key for key in FIRES_BY if getattr(schedule, key) is not None and (key != "at" or schedule.at)]
    if not expressions and "cron" in given:
        given.remove("cron")
    if not given:
        yield "cron", "nothing says when it fires; write `cron`, `every`, `at`, `after` or `on_file`"
    # A hundred thousand schedules are read at once; what is not said is not looked at.
    if schedule.after is not None or schedule.on_file is not None:
        yield from _wrong_waits(schedule, given)
    if schedule.calendar is not None:
        yield from (("calendar", f"`calendar`: {what}") for what in _wrong_calendar(schedule))
    if len(expressions) > _MOST_EXPRESSIONS:
        yield "cron", f"`cron` has {len(expressions)} expressions; at most {_MOST_EXPRESSIONS} are allowed"
    for expr in dict.fromkeys(expressions[:_MOST_EXPRESSIONS]):
        try:
            compiled(expr, schedule.seed)
        except InvalidCron as error:
            yield "cron", str(error)
    try:
        zone_of(schedule.timezone)
    except (OSError, ValueError, KeyError):
        near = did_you_mean(schedule.timezone, _zones())
        hint = (
            near if near.endswith("?") else "; allowed: the names of the IANA database, such as `Europe/Paris` or `UTC`"
        )
        yield "timezone", f"unknown time zone {schedule.timezone[:80]!r}{hint}"
        return
    if schedule.every is not None:
        yield from _wrong_every(schedule)
    if schedule.at:
        yield from _wrong_at(schedule)
    if schedule.blackout:
        yield from _wrong_blackout(schedule)


def _wrong_waits(schedule: Schedule, given: list[str]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with what a schedule waits for instead of a time."""
    for key in {"after", "on_file"}.intersection(given):
        if others := [f"`{other}`" for other in given if other != key]:
            yield key, f"`{key}` stands alone, and {' and '.join(others)} beside it; write two schedules of one DAG"
        if schedule.catchup != "none":
            yield "catchup", f"`catchup` is for fire times, which `{key}` has none of; leave it out"
        if schedule.calendar is not None:
            yield "calendar", f"`calendar` is for fire times, which `{key}` has none of; leave it out"
        if schedule.blackout:
            yield "blackout", f"`blackout` is for fire times, which `{key}` has none of; leave it out"
    if schedule.after is not None and not schedule.upstream:
        yield "after", "`after` names no schedule; write `after: other_schedule`"
    named = [schedule.after] if not isinstance(schedule.after, list) else schedule.after
    if len(named) > len(schedule.upstream) > 0:
        yield "after", "`after` names a schedule twice; write it once, with all its ends: `status: [failed, timeout]`"
    for name, statuses in schedule.upstream.items():
        if name in (schedule.id, schedule.seed):
            yield "after", f"`after` names the schedule itself; name another than `{name[:128]}`"
        for status in [each for each in statuses if each not in _ENDS] or ([] if statuses else [""]):
            near = did_you_mean(status, _ENDS)
            yield "after", f"`after.status` {status[:40]!r} is no end of a run{near}"
    path = schedule.on_file.path if schedule.on_file is not None else "x"
    if not path or not path.isprintable():
        yield "on_file", f"`on_file.path` {path[:80]!r} is no path; name a file, such as `incoming/orders.csv`"


def _wrong_calendar(schedule: Schedule) -> Iterator[str]:
    rule, numbers = schedule.calendar_rule, schedule.calendar_rule.numbers
    yield from wrong_source(rule)
    if rule.name is None and rule.country is None and rule.market is None:
        yield "it names no holidays; write `country`, `market`, or the `name` of one in calendars.yaml"
    if rule.business_day is not None and rule.on_holiday is not None:
        yield "`on_holiday` has no meaning with `business_day`, which is no holiday; leave it out"
    if rule.business_day is not None and not numbers:
        yield "`business_day` names no day; write `1` for the first of the month, `-1` for the last"
    for number in numbers:
        if not 1 <= abs(number) <= _MOST_BUSINESS_DAYS:
            yield f"`business_day` {number} is no number; allowed: 1 to {_MOST_BUSINESS_DAYS}, -1 (the last) and below"
    if len(set(numbers)) < len(numbers):
        yield "`business_day` has a number twice; write it once"
    others = [key for key, value in (("every", schedule.every), ("at", schedule.at)) if value]
    if numbers and others:
        yield f"`business_day` picks days for `cron`, and `{others[0]}` names its own; write two schedules"
    for expr in schedule.expressions if numbers else ():
        if _names_days(expr):
            yield f"`business_day` picks the day, and `{expr[:80]}` does, too; write `*` for its days"


def _names_days(expr: str) -> bool:
    """Say whether an expression restricts the days of the month or of the week; a wrong one does not."""
    try:
        texts = read_texts(expr)
    except InvalidCron:
        return False
    return texts[0] == "@EVERY" or any(texts[place] not in ("*", "?") for place in (2, 4))


def _wrong_every(schedule: Schedule) -> Iterator[tuple[str, str]]:
    try:
        repeat = schedule.repeat
    except InvalidDuration as error:
        yield "every", f"`every`: {error}"
        return
    if repeat is not None and repeat.period < _SHORTEST:
        yield "every", f"`every: {repeat.period}` is too short; allowed: 1s and longer"
    if repeat is not None and repeat.anchor is not None and not _is_time(schedule, repeat.anchor):
        yield "every", f"`every.anchor` {repeat.anchor[:80]!r} is no time; {_TIME_RULE}"


def _wrong_at(schedule: Schedule) -> Iterator[tuple[str, str]]:
    if len(schedule.at) > _MOST_TIMES:
        yield "at", f"`at` has {len(schedule.at)} times; at most {_MOST_TIMES} are allowed"
        return
    wrong = [text for text in schedule.at if not _is_time(schedule, text)]
    for text in wrong[:3]:
        yield "at", f"`at` {text[:80]!r} is no time; {_TIME_RULE}"
    if wrong:
        return
    seen: dict[datetime, str] = {}
    for text in schedule.at:
        other = seen.setdefault(schedule.moment(text), text)
        if other is not text:
            yield "at", f"`at` has {text!r} and {other!r}, which are one moment; write it once"


def _wrong_blackout(schedule: Schedule) -> Iterator[tuple[str, str]]:
    rules = schedule.blackouts
    if len(rules) > _MOST_WINDOWS:
        yield "blackout", f"`blackout` has {len(rules)} rules; at most {_MOST_WINDOWS} are allowed"
        return
    wrong = list(dict.fromkeys(what for rule in rules for what in _wrong_window(schedule, rule)))
    yield from (("blackout", what) for what in wrong)
    defers = [] if wrong else [schedule.window(rule) for rule in rules if rule.then == "defer"]
    for window in defers:
        start = window.first()
        if start is not None and end_of(defers, start) is None:
            yield "blackout", "`blackout` with `then: defer` leaves no gap to run in; make it shorter, or write `skip`"
            return


def _wrong_window(schedule: Schedule, rule: Blackout) -> Iterator[str]:
    if rule.keys not in (("cron", "duration"), ("from", "to")):
        given = " and ".join(f"`{key}`" for key in rule.keys) or "none"
        yield f"`blackout` takes `cron` and `duration`, or `from` and `to`; given: {given}"
    elif rule.cron is not None and rule.duration is not None:
        try:
            compiled(rule.cron, schedule.seed)
        except InvalidCron as error:
            yield f"`blackout`: {error}"
        if not _SHORTEST <= rule.duration <= _LONGEST_WINDOW:
            yield f"`blackout.duration: {rule.duration}` is out of range; allowed: 1s to {_LONGEST_WINDOW.days}d"
    else:
        texts = [rule.from_ or "", rule.to or ""]
        no_times = [text for text in texts if not _is_time(schedule, text)]
        yield from (f"`blackout` {text[:80]!r} is no time; {_TIME_RULE}" for text in no_times)
        if not no_times and schedule.moment(texts[0]) >= schedule.moment(texts[1]):
            yield f"`blackout` ends at {texts[1]!r}, which is not after its start {texts[0]!r}"


def _is_time(schedule: Schedule, text: str) -> bool:
    try:
        moment = schedule.moment(text)
    except (ValueError, OverflowError):
        return False
    return moment.microsecond == 0 and 1970 <= moment.year < 9999


@functools.cache
def _zones() -> set[str]:
    return available_timezones()
