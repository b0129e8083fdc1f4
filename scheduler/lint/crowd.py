"""Rules about many schedules at once: a herd at one minute, and two that do the same."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from scheduler.cron import Cron
from scheduler.expressions import Expression, clock_expressions
from scheduler.schedule_model import Schedule, timing_of

from .finding import Finding, Slip, about, about_expression

__all__ = ["duplicate", "herd"]

_LEAST = 10
_AHEAD = timedelta(days=7)
_MINUTE = timedelta(minutes=1)


class _Alike(NamedTuple):
    """Schedules that fire at the same times; `is_movable` where `H` can take the place of their minute."""

    members: list[Schedule]
    is_movable: bool


def herd(schedules: Sequence[Schedule], now: datetime, max_parallel: int) -> Iterator[Finding]:
    """Yield a finding for each minute of the coming week with more fire times than workers, and more than ten.

    A schedule is told once, with the fullest minute it is part of, if its minute can be spread by `H`. What is left
    that cannot be spread is told once, with its fullest minute. A `jitter` of a minute or more has spread it already.
    """
    limit = max(_LEAST, max_parallel)
    groups = _alike([each for each in schedules if each.jitter is None or each.jitter < _MINUTE])
    at_minute = _minutes(groups, now)
    counts = {minute: sum(len(groups[each].members) for each in inside) for minute, inside in at_minute.items()}
    crowded = sorted((minute for minute in counts if counts[minute] > limit), key=lambda each: (-counts[each], each))
    told: set[int] = set()
    for minute in crowded:
        movable = [each for each in at_minute[minute] if groups[each].is_movable and each not in told]
        if movable:
            told.update(movable)
            members = [schedule for each in movable for schedule in groups[each].members]
            yield _spread(members, minute, counts[minute], max_parallel)
    yield from _left(groups, at_minute, limit, max_parallel)


def _alike(schedules: Sequence[Schedule]) -> list[_Alike]:
    groups: dict[Hashable, _Alike] = {}
    for schedule in schedules:
        key = _fire_key(schedule)
        if key in groups:
            groups[key].members.append(schedule)
        else:
            groups[key] = _Alike([schedule], _spread_text(schedule) is not None)
    return list(groups.values())


def _fire_key(schedule: Schedule) -> Hashable:
    """Return what is equal for schedules that fire at the same times: an `H` that hashes alike is no difference."""
    read = clock_expressions(schedule)
    if isinstance(schedule.fires, Cron) and len(read) == 1:
        [(_, expression)] = read
        return _days_and_times(expression), schedule.timezone, _spread_text(schedule) is not None
    return _times(schedule), schedule.seed if any("H" in text.upper() for text in schedule.expressions) else ""


def _times(schedule: Schedule) -> str:
    """Return what the schedule says about its fire times, as text."""
    return json.dumps({**timing_of(schedule.spec), "matrix_of": ""}, sort_keys=True, default=str)


def _days_and_times(expression: Expression) -> Hashable:
    minutes, hours, days, months, weekdays, *manners = expression.fields
    numbers = (frozenset(minutes), frozenset(hours), frozenset(days), frozenset(months))
    return (*numbers, frozenset(weekdays), *manners)


def _minutes(groups: Sequence[_Alike], now: datetime) -> Mapping[int, list[int]]:
    """Return which groups fire at each minute (since the epoch) of the coming week."""
    at_minute: defaultdict[int, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        first = group.members[0]
        # Periods are the same in every zone, and a zone costs as much as they do.
        zone = first.zone if clock_expressions(first) or not isinstance(first.fires, Cron) else UTC
        fires = first.fires.between(now.astimezone(zone), now + _AHEAD)
        for minute in dict.fromkeys(int(fire.timestamp()) // 60 for fire in fires):
            at_minute[minute].append(number)
    return at_minute


def _spread(members: Sequence[Schedule], minute: int, count: int, max_parallel: int) -> Finding:
    schedule = members[0]
    message = f"{_crowd(count, minute, max_parallel)}: {_named(members)} can be spread"
    mend = "`H` is a minute made from the id, another for each"
    index, _ = clock_expressions(schedule)[0]
    finding = about_expression(schedule, index, Slip("herd", message, mend, _spread_text(schedule)))
    return _of_all(finding, members)


def _left(
    groups: Sequence[_Alike], at_minute: Mapping[int, list[int]], limit: int, max_parallel: int
) -> Iterator[Finding]:
    fixed = {
        minute: sum(len(groups[each].members) for each in inside if not groups[each].is_movable)
        for minute, inside in at_minute.items()
    }
    minute = max(fixed, key=lambda each: (fixed[each], -each), default=None)
    if minute is None or fixed[minute] <= limit:
        return
    members = [
        schedule for each in at_minute[minute] if not groups[each].is_movable for schedule in groups[each].members
    ]
    message = f"{_crowd(fixed[minute], minute, max_parallel)}: {_named(members)}"
    mend = "spread them by `jitter`, let some of them fire less often, or raise SCHED_MAX_PARALLEL"
    yield _of_all(about(members[0], ("cron", 0), "herd", message, mend), members)


def _of_all(finding: Finding, members: Sequence[Schedule]) -> Finding:
    return msgspec.structs.replace(finding, schedules=tuple(schedule.id for schedule in members))


def _crowd(count: int, minute: int, max_parallel: int) -> str:
    when = datetime.fromtimestamp(minute * 60, UTC)
    return f"{count} schedules fire at {when:%Y-%m-%d %H:%M} UTC, and {max_parallel} run at a time"


def _named(members: Sequence[Schedule]) -> str:
    names = [f"`{schedule.id}`" for schedule in members[:3]]
    more = f" and {len(members) - 3} more" if len(members) > 3 else ""
    return f"{', '.join(names)}{more}"


def _spread_text(schedule: Schedule) -> str | None:
    """Return the schedule's only expression with `H` for its minute; None where that cannot be.

    The combinations of a matrix hash alike, so it would not spread them.
    """
    read = clock_expressions(schedule)
    if schedule.matrix_of or len(schedule.expressions) != 1 or not read:
        return None
    [(_, expression)] = read
    minute = _hashed(expression)
    return None if minute is None else expression.with_fields({0: minute})


def _hashed(expression: Expression) -> str | None:
    minute = expression.texts[0]
    if minute.isdigit():
        return "H"
    step = minute.removeprefix("*/")
    return f"H/{step}" if step != minute and int(step) > 1 and 60 % int(step) == 0 else None


def duplicate(schedules: Sequence[Schedule]) -> Iterator[Finding]:
    """Yield a finding for each schedule that runs what another does, at the same times, for the same tenant."""
    first: dict[Hashable, Schedule] = {}
    for schedule in schedules:
        params = json.dumps(schedule.params, sort_keys=True)
        key = (schedule.project, schedule.dag, params, schedule.tenant, _times(schedule))
        other = first.setdefault(key, schedule)
        if other is not schedule:
            message = f"it runs the same DAG with the same params at the same times as `{other.id}`"
            mend = f"remove one of the two; the other is {other.file}:{other.line}"
            yield about(schedule, (), "duplicate", message, mend, schedules=(schedule.id, other.id))
