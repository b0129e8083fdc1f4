"""The rules of the keys that say when a schedule fires."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import available_timezones

from workers.errors import did_you_mean
from workers.run_request import STATUSES
from workers.units import InvalidDuration

from .cron import InvalidCron
from .schedule_model import ANY_END, Schedule, compiled, zone_of

__all__ = ["wrong_timing"]

_MOST_EXPRESSIONS = 100
_MOST_TIMES = 10_000
_SHORTEST = timedelta(seconds=1)
_ENDS = (*STATUSES, ANY_END)
_TIME_RULE = "write ISO 8601 in whole seconds, such as `2026-11-23T09:00:00`, with an offset or in the schedule's zone"


def wrong_timing(schedule: Schedule) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong)."""
    given = {
        "cron": bool(schedule.expressions),
        "every": schedule.every is not None,
        "at": bool(schedule.at),
        "after": schedule.after is not None,
        "on_file": schedule.on_file is not None,
    }
    if not any(given.values()):
        yield "cron", "nothing says when it fires; write `cron`, `every`, `at`, `after` or `on_file`"
    yield from _wrong_waits(schedule, [key for key, is_given in given.items() if is_given])
    if len(schedule.expressions) > _MOST_EXPRESSIONS:
        yield "cron", f"`cron` has {len(schedule.expressions)} expressions; at most {_MOST_EXPRESSIONS} are allowed"
    for expr in dict.fromkeys(schedule.expressions[:_MOST_EXPRESSIONS]):
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
    yield from _wrong_every(schedule)
    yield from _wrong_at(schedule)


def _wrong_waits(schedule: Schedule, given: list[str]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with what a schedule waits for instead of a time."""
    for key in {"after", "on_file"}.intersection(given):
        if others := [f"`{other}`" for other in given if other != key]:
            yield key, f"`{key}` stands alone, and {' and '.join(others)} beside it; write two schedules of one DAG"
        if schedule.catchup != "none":
            yield "catchup", f"`catchup` is for fire times, which `{key}` has none of; leave it out"
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


def _is_time(schedule: Schedule, text: str) -> bool:
    try:
        moment = schedule.moment(text)
    except (ValueError, OverflowError):
        return False
    return moment.microsecond == 0 and 1970 <= moment.year < 9999


@functools.cache
def _zones() -> set[str]:
    return available_timezones()
