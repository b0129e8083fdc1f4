"""The rule about times of day that the clock of a zone leaves out or doubles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from scheduler.daylight import Turn, touched, turns
from scheduler.expressions import Expression, clock_expressions, read_expression
from scheduler.schedule_model import Schedule

from .finding import Finding, Slip, about, about_expression

__all__ = ["clock_change"]

_AHEAD = timedelta(days=2 * 365)
_HOUR = 1
_NAMED_DAYS = 3


def clock_change(schedule: Schedule, now: datetime) -> Iterator[Finding]:
    """Yield a finding for each expression with times of day in a gap or a fold of its zone within two years.

    Hours that begin with a star are left out: that they follow the clock is what they say.
    """
    if schedule.timezone == "UTC":
        return
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    ahead = turns(schedule.zone, midnight, midnight + _AHEAD)
    for index, expression in clock_expressions(schedule) if ahead else ():
        told = [text for is_gap in (True, False) if (text := _told(expression, _hit(expression, ahead, is_gap=is_gap)))]
        if not told:
            continue
        message = "; ".join(told)
        write = _another_hour(expression, ahead)
        if write is not None:
            slip = Slip("clock-change", message, "an hour that comes once every day; or `timezone: UTC`", write)
            yield about_expression(schedule, index, slip)
        else:
            mend = "no time of day is left out or doubled there"
            change = {"timezone": "UTC"} if len(schedule.expressions) == 1 else {}
            words = mend if change else f"put it in a schedule of its own with `timezone: UTC`: {mend}"
            yield about(schedule, ("cron", index), "clock-change", message, words, change)


_Hits = list[tuple[Turn, list[datetime]]]


def _hit(expression: Expression, ahead: Sequence[Turn], *, is_gap: bool) -> _Hits:
    if expression.texts[_HOUR].startswith("*"):
        return []
    return [(turn, walls) for turn in ahead if turn.is_forward is is_gap and (walls := touched(expression, turn))]


def _told(expression: Expression, hits: _Hits) -> str:
    """Say when times of day do not come, or come twice, and what becomes of them; "" without any."""
    if not hits:
        return ""
    turn, walls = hits[0]
    first, last = f"{walls[0]:%H:%M}", f"{walls[-1]:%H:%M}"
    which = first if len(walls) == 1 else f"{first} {'and' if len(walls) == 2 else 'to'} {last}"
    days = list(dict.fromkeys(f"{each[0]:%Y-%m-%d}" for _, each in hits))
    more = f" and {len(days) - _NAMED_DAYS} more" if len(days) > _NAMED_DAYS else ""
    when = f"on {', '.join(days[:_NAMED_DAYS])}{more}"
    s = "s" if len(walls) == 1 else ""
    is_fixed = expression.fields.is_fixed
    if turn.is_forward:
        comes = f"{which} do{'es' if s else ''} not come {when} (clock {turn.hands()})"
        return f"{comes}: fire{s} at {turn.after:%H:%M}" if is_fixed else f"{comes}: do{'es' if s else ''} not fire"
    comes = f"{which} come{s} twice {when} (clock {turn.hands()})"
    return f"{comes}: fire{s} the first time" if is_fixed else f"{comes}: fire{s} both times"


def _another_hour(expression: Expression, ahead: Sequence[Turn]) -> str | None:
    """Return the expression with each hour that is hit moved to the nearest that is not, later before earlier."""
    texts = expression.texts[_HOUR].split(",")
    if not all(text.isdigit() for text in texts):
        return None
    hours = sorted(expression.fields.hours)
    free = [hour for hour in range(24) if not _is_hit(expression, hour, ahead)]
    moved: list[int] = []
    for hour in hours:
        near = [each for each in free if each == hour or each not in (*hours, *moved)]
        if not near:
            return None
        moved.append(min(near, key=lambda each: (abs(each - hour), each < hour)))
    write = expression.with_fields({_HOUR: ",".join(map(str, sorted(moved)))})
    return write if write != expression.text else None


def _is_hit(expression: Expression, hour: int, ahead: Sequence[Turn]) -> bool:
    other = read_expression(expression.with_fields({_HOUR: str(hour)}), expression.seed)
    return other is not None and any(touched(other, turn) for turn in ahead)
