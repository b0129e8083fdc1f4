"""Advice: a better minute for the schedules that wait most, each of them played and found better."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate

import msgspec

from scheduler.cron import InvalidCron
from scheduler.forecast_facts import Advice
from scheduler.schedule_model import Schedule

from .figures import Outcome
from .simulation import Choose, Plan, play

__all__ = ["advise", "with_minute"]

_MOST = 8
_ROUNDS = 3
_DAY_MINUTES = 1440
# What counts as waiting, and as an improvement: less is the dice.
_LEAST_S = 1.0
_BETTER = 0.9
_FIXED = re.compile(r"(\s*)(\d{1,2})(\s+\S+\s+\S+\s+\S+\s+\S+\s*)")


def with_minute(schedule: Schedule, minute: int) -> Schedule | None:
    """Return the schedule at another minute of its hours; None unless its expression names one minute."""
    match = _FIXED.fullmatch(schedule.cron) if isinstance(schedule.cron, str) else None
    if match is None:
        return None
    moved = msgspec.structs.replace(schedule, cron=f"{match[1]}{minute}{match[3]}")
    try:
        return moved if moved.fires else None
    except InvalidCron:
        return None


def advise(plan: Plan, outcome: Outcome, choose: Choose) -> list[Advice]:
    """Return better minutes for those that wait most, best first, each within its own hours.

    All of them are played together, on the day with the most waiting and from an empty queue. A proposal stays while
    its own runs wait at most 90 % of what they did there, and all runs together no longer than before.
    """
    day = _fullest_day(plan, outcome)
    before = Outcome.of(day.begin, day.until, day.workers, play(day, choose))
    moved = _proposals(day, before)
    for _ in range(_ROUNDS):
        if not moved:
            return []
        changed = msgspec.structs.replace(day, schedules=[moved.get(each.id, each) for each in day.schedules])
        after = Outcome.of(day.begin, day.until, day.workers, play(changed, choose))
        good = {name: each for name, each in moved.items() if _is_better(name, before, after)}
        if len(good) == len(moved):
            return _told(day.schedules, good, before, after) if _total_s(after) <= _total_s(before) else []
        moved = good
    return []


def _fullest_day(plan: Plan, outcome: Outcome) -> Plan:
    """Return the part of the plan, of 24 hours, whose runs wait longest in all."""
    starts = range(0, len(outcome.queued_s), _DAY_MINUTES)
    start = max(starts, key=lambda at: sum(outcome.queued_s[at : at + _DAY_MINUTES]), default=0)
    begin = plan.begin + timedelta(minutes=start)
    return msgspec.structs.replace(plan, begin=begin, until=min(begin + timedelta(days=1), plan.until), downtimes=())


def _proposals(day: Plan, before: Outcome) -> dict[str, Schedule]:
    """Return those that wait most, each at the minute that is emptiest once those before it have moved."""
    load = [busy + queued for busy, queued in zip(before.busy_s, before.queued_s, strict=True)]
    known = {name: sum(each.waits_s) for name, each in before.schedules.items() if _mean(each.waits_s) >= _LEAST_S}
    movable = [each for each in day.schedules if each.id in known and with_minute(each, 0) is not None]
    moved: dict[str, Schedule] = {}
    for schedule in sorted(movable, key=lambda each: (-known[each.id], each.id))[:_MOST]:
        figures = before.schedules[schedule.id]
        length = max(1, math.ceil(figures.busy_s / max(1, figures.runs) / 60))
        sums = [0.0, *accumulate(load)]
        choices = [each for each in (with_minute(schedule, minute) for minute in range(60)) if each is not None]
        best = min(choices, key=lambda each: _cost(_minutes_of(each, day), length, sums))
        if best.fires != schedule.fires:
            moved[schedule.id] = best
            for minute in _minutes_of(best, day):
                for index in range(minute, min(minute + length, len(load))):
                    load[index] += 60.0
    return moved


def _minutes_of(schedule: Schedule, day: Plan) -> list[int]:
    since = (day.begin - timedelta(seconds=1)).astimezone(schedule.zone)
    fires = schedule.fires.between(since, day.until - timedelta(seconds=1))
    return [_index(fire, day.begin) for fire in fires]


def _index(fire: datetime, begin: datetime) -> int:
    return int((fire.astimezone(UTC) - begin).total_seconds()) // 60


def _cost(minutes: Sequence[int], length: int, sums: Sequence[float]) -> float:
    """Return the load that runs of this length meet when they start at these minutes; infinity when there is none."""
    last = len(sums) - 1
    return sum(sums[min(at + length, last)] - sums[at] for at in minutes) if minutes else math.inf


def _is_better(name: str, before: Outcome, after: Outcome) -> bool:
    if name not in after.schedules:
        return False
    old, new = before.schedules[name], after.schedules[name]
    fell = _mean(new.waits_s) <= _BETTER * _mean(old.waits_s)
    return fell and new.skipped.total() + new.deadline_misses <= old.skipped.total() + old.deadline_misses


def _told(schedules: Sequence[Schedule], good: dict[str, Schedule], before: Outcome, after: Outcome) -> list[Advice]:
    found = []
    for each in schedules:
        if each.id in good:
            waits = (_mean(outcome.schedules[each.id].waits_s) for outcome in (before, after))
            found.append(Advice(each.id, str(each.cron), str(good[each.id].cron), *waits))
    return sorted(found, key=lambda each: each.proposed_wait_s - each.wait_s)


def _mean(waits_s: Sequence[float]) -> float:
    return sum(waits_s) / len(waits_s) if waits_s else 0.0


def _total_s(outcome: Outcome) -> float:
    return sum(outcome.queued_s)
