"""The forecast as a person reads it, in 80 columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from textwrap import fill, indent

from msgspec.structs import astuple

from scheduler.forecast_facts import Difference, Measures, WorstMinute
from scheduler.text import table
from workers.units import Duration

from .against import Comparison
from .figures import quantile
from .heat_map import Shades, heat_map, worst_minutes
from .report import LONG_S, Forecast

__all__ = ["render", "render_comparison"]

_NAME = 24
_WIDTH = 80
_ROWS = 10
_NAMED = 3


def render(forecast: Forecast, shades: Shades) -> str:
    """Return a forecast: what it comes to in a sentence, then why."""
    outcome = forecast.outcome
    waits_s = outcome.waits_s()
    lines = [fill(_summary(forecast, waits_s), _WIDTH), "", *_facts(forecast, waits_s)]
    worst = forecast.worst(_ROWS)
    if worst:
        head = ("SCHEDULE", "RUNS", "WAIT P50", "P95", "MAX", "SKIPPED", "MISSED", "LATE")
        rows = [
            (_short(name), f"{each.runs:,}", *_spans(sorted(each.waits_s)), each.skipped.total(), each.missed.total(),
             each.deadline_misses)
            for name, each in worst
        ]  # fmt: skip
        lines += ["", table(head, rows)]
    lines += ["", f"Work of {_count(outcome.workers, 'worker')} by the hour (UTC)"]
    lines += heat_map(outcome, shades)
    minutes = worst_minutes(outcome)
    if minutes:
        columns = ("AT (UTC)", "LONGEST QUEUE", "DUE AT ONCE", "ON DAYS")
        lines += [
            "",
            table(columns, [(each.time, f"{each.deepest:,}", f"{each.due:,}", each.days) for each in minutes]),
        ]
    named = [_due_at_once(each) for each in minutes if each.schedules]
    lines += ["", *named] if named else []
    return "\n".join([*lines, *_advice(forecast)])


def _due_at_once(minute: WorstMinute) -> str:
    names = ", ".join(map(_short, minute.schedules)) + (f" and {minute.more:,} more" if minute.more else "")
    return fill(f"{minute.time}  {names}", _WIDTH, subsequent_indent=" " * 7)


def _summary(forecast: Forecast, waits_s: Sequence[float]) -> str:
    outcome = forecast.outcome
    what = ", ".join(
        [
            _count((outcome.until - outcome.begin).days, "day"),
            _count(forecast.schedules, "schedule"),
            _count(outcome.runs, "run"),
            _count(outcome.workers, "worker"),
        ]
    )
    long = sum(wait_s > LONG_S for wait_s in waits_s)
    found = [f"{_count(long, 'run')} {'waits' if long == 1 else 'wait'} more than a minute"] if long else []
    found += [f"{_count(count, 'fire time')} {how}" for how, count in _lost(forecast) if count]
    found += [f"{_count(count, 'run')} {how}" for how, count in _cancelled(forecast) if count]
    if outcome.deadline_misses:
        found.append(f"{_count(outcome.deadline_misses, 'deadline')} missed")
    if outcome.waiting_at_end > outcome.workers:
        found.append(f"{_count(outcome.waiting_at_end, 'run')} still waiting at the end")
    return f"{what}: {', '.join(found) or 'it fits'}."


def _lost(forecast: Forecast) -> list[tuple[str, int]]:
    return [("skipped", forecast.outcome.skipped.total()), ("missed", forecast.outcome.missed.total())]


def _cancelled(forecast: Forecast) -> list[tuple[str, int]]:
    cancelled = forecast.outcome.cancelled
    return [("too late to start", cancelled["start_deadline"]), ("cut off by the next", cancelled["replaced"])]


def _facts(forecast: Forecast, waits_s: Sequence[float]) -> list[str]:
    outcome = forecast.outcome
    p50, p95, longest = _spans(waits_s)
    deepest = max(outcome.deepest, default=0)
    lines = [f"waits       p50 {p50}   p95 {p95}   max {longest}"]
    queue = f"; at most {deepest:,} waiting" if deepest else "; nothing ever waits"
    if deepest:
        queue += f", {outcome.minute(outcome.deepest.index(deepest)):%a %d %b %H:%M} UTC"
    lines.append(f"workers     {outcome.utilisation:.0%} busy{queue}")
    for title, reasons in (("skipped", outcome.skipped), ("missed", outcome.missed), ("cancelled", outcome.cancelled)):
        if reasons:
            lines.append(f"{title:<11} {_reasons(reasons)}")
    timeouts = sum(each.timeouts for each in outcome.schedules.values())
    if timeouts:
        lines.append(f"timeouts    {_count(timeouts, 'attempt')}")
    lines.append(f"durations   {_known(forecast)}")
    return lines


def _known(forecast: Forecast) -> str:
    known = forecast.schedules - len(forecast.unknown)
    text = f"{known:,} of {_count(forecast.schedules, 'schedule')} from history"
    if not forecast.unknown:
        return text
    names = ", ".join(map(_short, forecast.unknown[:_NAMED]))
    rest = len(forecast.unknown) - _NAMED
    more = f" and {rest:,} more" if rest > 0 else ""
    return f"{text}; {_span(forecast.assumed_s)} assumed for\n" + indent(fill(f"{names}{more}", _WIDTH - 12), " " * 12)


def _advice(forecast: Forecast) -> list[str]:
    if not forecast.advice:
        return []
    head = ("SCHEDULE", "CRON", "BETTER", "MEAN WAIT", "THEN")
    rows = [
        (_short(each.schedule_id), each.cron, each.proposed, _span(each.wait_s), _span(each.proposed_wait_s))
        for each in forecast.advice
    ]
    return ["", "Better minutes, played together on the fullest day:", table(head, rows)]


def render_comparison(comparison: Comparison) -> str:
    """Return what a new configuration changes: per schedule, and whether that is worse."""
    lines = [_titled("old", comparison.old), _titled("new", comparison.new), ""]
    shown = sorted(comparison.differences, key=_weight)[: 2 * _ROWS]
    if shown:
        head = ("SCHEDULE", "RUNS", "SKIPPED", "LATE", "P95 WAIT")
        lines += [table(head, [(_short(each.schedule_id), *_changes(each)) for each in shown])]
        rest = len(comparison.differences) - len(shown)
        lines += [f"and {_count(rest, 'schedule')} more"] if rest > 0 else []
        lines.append("")
    else:
        lines += ["No schedule fares differently.", ""]
    if not comparison.worse:
        return "\n".join([*lines, "not worse"])
    return "\n".join([*lines, "WORSE", *(f"  {each}" for each in comparison.worse)])


def _titled(title: str, forecast: Forecast) -> str:
    summary = _summary(forecast, forecast.outcome.waits_s())
    return fill(summary, _WIDTH, initial_indent=f"{title}  ", subsequent_indent="     ")


def _weight(each: Difference) -> tuple[float, float, str]:
    """Put first what gets worse most."""
    old, new = each.old or Measures(0, 0, 0, 0.0), each.new or Measures(0, 0, 0, 0.0)
    lost = old.skipped + old.deadline_misses - new.skipped - new.deadline_misses
    return lost, old.wait_p95_s - new.wait_p95_s, each.schedule_id


def _changes(each: Difference) -> list[str]:
    if each.old is None or each.new is None:
        only = each.new or each.old
        assert only is not None
        mark = "+" if each.old is None else "-"
        return [f"{mark}{only.runs:,}", str(only.skipped), str(only.deadline_misses), _span(only.wait_p95_s)]
    numbers = list(zip(astuple(each.old), astuple(each.new), strict=True))[:3]
    counts = [f"{old:,}" if old == new else f"{old:,} -> {new:,}" for old, new in numbers]
    old_s, new_s = _span(each.old.wait_p95_s), _span(each.new.wait_p95_s)
    return [*counts, old_s if old_s == new_s else f"{old_s} -> {new_s}"]


def _reasons(reasons: Counter[str]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())


def _spans(waits_s: Sequence[float]) -> Iterable[str]:
    return _span(quantile(waits_s, 50)), _span(quantile(waits_s, 95)), _span(waits_s[-1] if waits_s else 0.0)


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f}s"
    # Of two units the second says enough.
    unit_s = 1 if seconds < 3600 else 60 if seconds < 86400 else 3600
    return str(Duration(seconds=seconds // unit_s * unit_s))


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 3]}..."


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
