"""The heat map: how busy the workers are in each hour, a row a day, for a terminal of 80 columns."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from scheduler.forecast_facts import WorstMinute

from .figures import ON_DEADLINE, Outcome

__all__ = ["Shades", "heat_map", "shades_for", "worst_minutes"]

_MOST_DAYS = 31
_APART_MINUTES = 30
_DAY_MINUTES = 1440
_MOST_NAMED = 8


class Shades(NamedTuple):
    """The cell of an hour by how busy the workers are: not at all, up to 25, 50, 75, 100 %, and never done waiting."""

    cells: tuple[str, str, str, str, str, str]

    def cell(self, load: float) -> str:
        """Return the cell for a load, 1.0 being all workers all the time."""
        return self.cells[0 if load < 0.005 else min(4, 1 + int(max(0.0, load - 1e-9) * 4))]


_BLOCKS = ("· ", "░░", "▒▒", "▓▓", "██", "!!")
_ASCII = (". ", "::", "++", "xx", "##", "!!")


def shades_for(encoding: str | None) -> Shades:
    """Return the cells that a terminal of this encoding can show."""
    try:
        "".join(_BLOCKS).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return Shades(_ASCII)
    return Shades(_BLOCKS)


def heat_map(outcome: Outcome, shades: Shades) -> list[str]:
    """Return the lines: a head, a row a day with its longest queue, and what the cells mean. At most 31 days."""
    idle, low, half, much, full, over = shades.cells
    lines = [" " * 11 + "".join(f"{hour:02d}".ljust(6) for hour in range(0, 24, 3)) + "  longest queue"]
    begin = outcome.begin.replace(hour=0, minute=0)
    days = -(-(outcome.until - begin) // timedelta(days=1))
    for number in range(min(days, _MOST_DAYS)):
        day = begin + timedelta(days=number)
        first = int((day - outcome.begin) / timedelta(minutes=1))
        cells = "".join(_hour(outcome, first + 60 * hour, shades) for hour in range(24))
        lines.append(f"{day:%a %d %b} {cells}  {_longest(outcome, max(0, first), first + _DAY_MINUTES)}".rstrip())
    if days > _MOST_DAYS:
        lines.append(f"           and {days - _MOST_DAYS} days more")
    scale = f"{idle}idle  {low} to 25 %  {half} to 50 %  {much} to 75 %  {full} to 100 %  {over} a queue all the hour"
    return [*lines, scale]


def _hour(outcome: Outcome, start: int, shades: Shades) -> str:
    first, last = max(0, start), min(start + 60, len(outcome.busy_s))
    if first >= last:
        return "  "
    if all(outcome.queued_s[first:last]):
        return shades.cells[5]
    return shades.cell(sum(outcome.busy_s[first:last]) / (outcome.workers * 60 * (last - first)))


def _longest(outcome: Outcome, first: int, last: int) -> str:
    span = outcome.deepest[first:last]
    deepest = max(span, default=0)
    return f"{deepest:,} at {outcome.minute(first + span.index(deepest)):%H:%M}" if deepest else "-"


def worst_minutes(outcome: Outcome, most: int = 5) -> list[WorstMinute]:
    """Return the times of day with the longest queues, half an hour apart at least, the longest first."""
    found: dict[int, tuple[WorstMinute, int]] = {}
    offset = outcome.begin.hour * 60 + outcome.begin.minute
    for index, depth in enumerate(outcome.deepest):
        if depth:
            at = (index + offset) % _DAY_MINUTES
            old, worst = found.get(at, (WorstMinute(f"{at // 60:02d}:{at % 60:02d}", 0, 0, 0), index))
            due = max(old.due, outcome.due[index])
            longest = WorstMinute(old.time, max(old.deepest, depth), due, old.days + 1)
            found[at] = longest, index if depth > outcome.deepest[worst] else worst
    chosen: list[int] = []
    for at in sorted(found, key=lambda each: (-found[each][0].deepest, each)):
        if len(chosen) < most and all(_apart(at, other) >= _APART_MINUTES for other in chosen):
            chosen.append(at)
    names = _due_in(outcome, {found[at][1] for at in chosen})
    for minute, index in (found[at] for at in chosen):
        minute.schedules, minute.more = names[index][:_MOST_NAMED], max(0, len(names[index]) - _MOST_NAMED)
    return [found[at][0] for at in chosen]


def _due_in(outcome: Outcome, minutes: set[int]) -> dict[int, list[str]]:
    """Return the schedules whose runs are asked for in each of these minutes, who waits longest first."""
    waits: dict[int, dict[str, float]] = {minute: {} for minute in minutes}
    for name, figures in outcome.schedules.items():
        if name != ON_DEADLINE and not minutes.isdisjoint(figures.asked):
            for minute, wait_s in zip(figures.asked, figures.first_waits_s, strict=True):
                if minute in minutes:
                    waits[minute][name] = waits[minute].get(name, 0.0) + wait_s
    return {minute: sorted(each, key=lambda name: (-each[name], name)) for minute, each in waits.items()}


def _apart(one: int, other: int) -> int:
    between = abs(one - other)
    return min(between, _DAY_MINUTES - between)
