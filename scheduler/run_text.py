"""One run, two runs compared, and the statistics of schedules, as lines for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from msgspec.structs import astuple

from workers.terminal import clean

from .text import BLOCKS, age, ago, bar, local, size, span, sparkline, table

if TYPE_CHECKING:
    from .run_stats import ScheduleStats
    from .run_view import RunFacts
    from .task_view import TaskFacts

__all__ = ["render_differences", "render_run", "render_stats"]

# How wide a bar is, and how many values a trend shows, on terminals of up to so many columns, and wider ones.
_BARS = ((90, 12), (110, 20), (140, 30))
_TRENDS = ((100, 10), (130, 20))
_WIDEST_BAR, _LONGEST_TREND = 40, 30
_OUTPUT_CHARS = 60


def render_run(run: RunFacts, now: datetime, width: int | None = None) -> str:
    """Return a run as a person reads it: its head, its attempts, its tasks as a tree with their times."""
    lines = [f"{run.run_id}  {run.status}"]
    took, worked = span(run.duration_s), span(run.worked_s)
    facts: list[tuple[str, object]] = [
        ("why", run.why),
        ("fire time", f"{local(run.fire_time)} ({ago(run.fire_time, now)})" if run.fire_time else None),
        ("dag", run.dag and run.dag + (f" (version {run.dag_version})" if run.dag_version else "")),
        ("tenant", run.tenant),
        ("params", _pairs(run.params)),
        ("reason", run.reason),
        ("at work", f"{worked} of {took}" if worked != took else None),
    ]
    lines += [f"  {name:<10} {clean(text)}" for name, text in facts if text]
    head = ("ATTEMPT", "STATUS", "STARTED", "AGE", "WAITED", "TOOK", "WORKER", "REASON")
    rows = [
        (each.attempt, each.status, local(each.started_at), age(each.started_at, now),
         span(each.waited_s), span(each.duration_s), each.worker_pid or "-", each.reason or "")
        for each in run.attempts
    ]  # fmt: skip
    lines += ["", table(head, rows, width=width, cut=(7,), drop=(3, 6))]
    if run.tasks:
        lines += ["", _tasks(run.tasks, width)]
    outputs = [(task.task_id, _pairs(task.outputs)) for task in run.tasks if task.outputs]
    if outputs:
        lines += ["", table(("TASK", "OUTPUTS"), outputs, width=width, cut=(1,))]
    return "\n".join(lines)


def _tasks(tasks: Sequence[TaskFacts], width: int | None) -> str:
    whole_s = max((task.end_s or 0.0 for task in tasks), default=0.0) or 1.0
    chart = _at(_BARS, _WIDEST_BAR, 110 if width is None else width)
    head = (
        *("TASK", "STATUS", "TRIES", "EXIT", "AT", "TOOK", "CPU", "MEMORY"),
        f"0s{span(whole_s):>{chart - 2}}",
        "REASON",
    )
    rows = [
        (
            "  " * task.depth + task.task_id + (" (hook)" if task.is_hook else ""),
            task.status,
            task.tries or "-",
            _exit(task),
            span(task.after_s),
            span(task.duration_s),
            span(task.cpu_s),
            size(task.max_rss_bytes),
            _bar(task, whole_s, chart),
            task.reason or "",
        )
        for task in tasks
    ]
    return table(head, rows, width=width, cut=(9,), drop=(4, 6, 7, 2), right=(2, 3, 4, 5, 6, 7))


def _at(steps: Sequence[tuple[int, int]], most: int, width: int) -> int:
    return next((value for columns, value in steps if width <= columns), most)


def _bar(task: TaskFacts, whole_s: float, width: int) -> str:
    if task.after_s is None or task.end_s is None:
        return ""
    return bar(task.after_s / whole_s, task.end_s / whole_s, width)


def _exit(task: TaskFacts) -> object:
    if task.signal is not None:
        return f"sig {task.signal}"
    return "-" if task.exit_code is None else task.exit_code


def _pairs(values: Mapping[str, Any]) -> str:
    return "  ".join(f"{name}={_short(value)}" for name, value in values.items())


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _OUTPUT_CHARS else f"{text[:_OUTPUT_CHARS]}.."


def render_differences(
    names: Sequence[str], found: Iterable[tuple[str, Any, Any]], dag_diff: Sequence[str], width: int | None = None
) -> str:
    """Return what differs between two runs, and between the files of their DAGs."""
    rows = [(what, *(_value(what, value) for value in values)) for what, *values in found]
    # A length differs by a thousandth every time.
    rows = [row for row in rows if not row[0].endswith("_s") or row[1] != row[2]]
    parts = [table(("", *names), rows, width=width, cut=(1, 2))] if rows else ["Nothing differs"]
    return "\n\n".join([*parts, *(["\n".join(dag_diff)] if dag_diff else [])])


def _value(what: str, value: object) -> str:
    if value is None:
        return "-"
    if what == "fire_time":
        return local(value)
    return span(value) if what.endswith("_s") and not what.startswith("params.") else _short(value)


def render_stats(rows: Sequence[ScheduleStats], width: int | None = None, levels: str = BLOCKS) -> str:
    """Return the statistics of schedules as a table; the trend is that of the last lengths, the newest at the right."""
    if not rows:
        return "No runs yet"
    trend = _at(_TRENDS, _LONGEST_TREND, 120 if width is None else width)
    head = (
        *("SCHEDULE", "RUNS", "GOOD", "P50", "P95", "P99", "LATE P50", "P95", "P99"),
        *("LEFT OUT", "ASKED FOR", "TREND"),
    )
    cells = [
        (row.schedule_id, row.runs, "-" if row.success_rate is None else f"{row.success_rate:.1%}",
         *map(span, astuple(row.duration_s)),
         *map(span, astuple(row.lateness_s)),
         row.skipped + row.missed, row.by_operator, sparkline(row.trend[-trend:], levels))
        for row in rows
    ]  # fmt: skip
    return table(head, cells, width=width, drop=(10, 9, 7, 4, 11), right=range(1, 11))
