"""Rules that hold what a schedule says against how long its runs took."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from datetime import datetime

from scheduler.durations import Durations
from scheduler.expressions import clock_expressions
from scheduler.schedule_model import Schedule
from workers.units import Duration

from .finding import Finding, Slip, about, about_expression
from .policies import intervals

__all__ = ["certain_overlap", "limit_too_short", "short_limits"]

# Of fewer runs the 95th percentile is the longest one.
_ENOUGH = 20
_LIMITS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_DAY_S = 86400


def short_limits(schedule: Schedule, durations: Durations) -> Iterator[Finding]:
    """Yield a finding for each limit that more than one of twenty runs would meet."""
    for key, limit in _limits(schedule).items():
        if limit is not None and (longer := limit_too_short(limit.total_seconds(), durations)):
            message = (
                f"`{key}: {limit}` is shorter than the runs take:"
                f" 5 % of {durations.count} took {_text(durations.p95_s)} or longer"
            )
            yield about(schedule, (key,), f"short-{key}", message, "room for the longest", {key: _text(longer)})


def _limits(schedule: Schedule) -> dict[str, Duration | None]:
    return {"timeout": schedule.timeout, "deadline": schedule.deadline}


def limit_too_short(limit_s: float, durations: Durations) -> float | None:
    """Return a limit in seconds that leaves room, when `limit_s` is less than what 95 % of the runs took; else None.

    Tells nothing from fewer than 20 runs. A run that met its timeout counts with the time until it had ended.
    """
    if durations.count < _ENOUGH or limit_s >= durations.p95_s:
        return None
    wanted = durations.max_s * 1.5
    return next((float(each) for each in _LIMITS_S if each >= wanted), math.ceil(wanted / _DAY_S) * float(_DAY_S))


def certain_overlap(schedule: Schedule, durations: Durations, now: datetime) -> Iterator[Finding]:
    """Yield a finding where a run of usual length is still open at the next fire time."""
    if durations.count < _ENOUGH or schedule.overlap not in _CONSEQUENCES:
        return
    lengths = [interval.total_seconds() for interval in intervals(schedule, now)]
    if not lengths:
        return
    usual = statistics.median(lengths)
    if durations.p50_s <= usual:
        return
    times = math.ceil(durations.p50_s / usual)
    bound = "" if schedule.max_queued is None else "-bounded"
    consequence = _CONSEQUENCES[f"{schedule.overlap}{bound}"].format(
        skipped="every second fire time is" if times == 2 else f"{times - 1} of {times} fire times are",
        growth=_growth(usual, durations.p50_s),
        waiting=schedule.max_queued,
    )
    message = (
        f"it fires every {_text(usual)} and half of {durations.count} runs took {_text(durations.p50_s)} or longer:"
        f" {consequence}"
    )
    read = clock_expressions(schedule)
    wanted = durations.p50_s * 1.2
    if len(read) == 1 and (write := _rarer(read[0][1].texts, wanted)):
        index, expression = read[0]
        slip = Slip("certain-overlap", message, "as often as the runs can follow", expression.with_fields(write))
        yield about_expression(schedule, index, slip)
    else:
        mend = f"let it fire every {_text(next((s for s in _LIMITS_S if s >= wanted), wanted))} or more seldom"
        yield about(schedule, ("cron", 0), "certain-overlap", message, mend)


_CONSEQUENCES = {
    "skip": "{skipped} skipped",
    "queue": "the queue grows without bound, by {growth}",
    "queue-bounded": "{waiting} runs wait at all times, and {skipped} skipped",
    "replace": "each run is ended by the next, and none succeeds",
}


def _growth(interval_s: float, length_s: float) -> str:
    per_hour = 3600 / interval_s - 3600 / length_s
    return f"{per_hour:.0f} runs an hour" if per_hour >= 1 else f"{per_hour * 24:.1f} runs a day"


def _rarer(texts: tuple[str, ...], wanted_s: float) -> dict[int, str] | None:
    """Return the fields to change in `*/n * ...` for a step that holds so many seconds and divides the hour or day."""
    if texts[1:] != ("*", "*", "*", "*") or not (texts[0] == "*" or texts[0].startswith("*/")):
        return None
    for minutes in (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30):
        if minutes * 60 >= wanted_s:
            return {0: f"*/{minutes}"}
    for hours in (1, 2, 3, 4, 6, 8, 12):
        if hours * 3600 >= wanted_s:
            return {0: "0", 1: f"*/{hours}" if hours > 1 else "*"}
    return None


def _text(seconds: float) -> str:
    # Tenths matter below ten seconds, nobody reads the milliseconds of a minute.
    return str(Duration(seconds=round(seconds, 1) if seconds < 10 else round(seconds)))
