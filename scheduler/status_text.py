"""Status and runs as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from workers.terminal import clean

__all__ = ["render", "render_runs", "span", "table", "waits_text"]

_MARKS = {"well": "ok", "degraded": "DEGRADED", "down": "DOWN"}
_FOREVER_S = 1e12


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows under a head, each column as wide as its widest cell."""
    cells = [list(head), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def render(status: Mapping[str, Any]) -> str:
    """Return the status as a person reads it."""
    supervisor, queue = status["supervisor"], status["queue"]
    lines = [f"tickpool: {_MARKS[status['health']]}"]
    lines += [f"  ! {clean(problem)}" for problem in status["problems"]]
    if supervisor["pid"] is not None:
        usage = f"cpu {supervisor['cpu_percent']} %  rss {_size(supervisor['rss_bytes'])}"
        lines.append(f"supervisor  pid {supervisor['pid']}  up {span(supervisor['uptime_s'])}  {usage}")
    waits = f", the oldest for {span(queue['oldest_wait_s'])}" if queue["depth"] else ""
    lines.append(f"queue       {queue['depth']} waiting{waits}")
    log, corrupt = status["log"], status["corrupt_lines"]
    lines.append(f"log         {clean(log['path'])}  {_size(log['bytes'])}, {corrupt} corrupt line(s)")
    if status["workers"]:
        head = ("WORKER", "PID", "STATE", "RUN", "ELAPSED", "CPU", "RSS", "CHILDREN")
        rows = [
            (w["name"] or "-", w["pid"], w["state"], w["run_id"] or "-", span(w["elapsed_s"]), span(w["cpu_s"]),
             _size(w["rss_bytes"]), w["children"])
            for w in status["workers"]
        ]  # fmt: skip
        lines += ["", table(head, rows)]
    if status["parked"]:
        lines += ["", table(("PARKED", "WAITS FOR", "UNTIL"), map(_parked_row, status["parked"]))]
    if status["approvals"]:
        asked = [(each["run_id"], each["task_id"], each["message"] or "-") for each in status["approvals"]]
        lines += ["", table(("APPROVE", "TASK", "QUESTION"), asked)]
    if status["pools"]:
        lines += ["", table(("POOL", "SLOTS", "USED"), [tuple(pool.values()) for pool in status["pools"]])]
    if status["tenants"]:
        tenants = [[shown if shown is not None else "-" for shown in row.values()] for row in status["tenants"]]
        lines += ["", table(("TENANT", "MOST", "WEIGHT", "USED"), tenants)]
    if status["paused"]:
        heading = ("PAUSED", "SINCE", "UNTIL", "BY", "REASON")
        lines += ["", table(heading, map(_pause_row, status["paused"]))]
    if status["next"]:
        fires = [(row["schedule_id"], _local(row["minute"]), span(row["in_s"])) for row in status["next"]]
        lines += ["", table(("NEXT", "AT", "IN"), fires)]
    if status["last_runs"]:
        lines += ["", render_runs(status["last_runs"])]
    return "\n".join(lines)


def _parked_row(run: Mapping[str, Any]) -> tuple[str, ...]:
    waits = ", ".join(f"{each['task_id']} ({each['run'] or each['kind']})" for each in run["waits"][:3])
    more = f" and {len(run['waits']) - 3} more" if len(run["waits"]) > 3 else ""
    return (run["run_id"], f"{waits}{more}", _local(run["until"]) if run["until"] else "-")


def waits_text(waits: object, until: object) -> str:
    """Say for which runs, and until when, a parked run waits; empty where it waits for people only."""
    rows = [each for each in waits if isinstance(each, dict)] if isinstance(waits, list) else []
    runs = [f"for run {each['run']}" for each in rows if each.get("run")]
    more = [f"{len(runs) - 3} more"] if len(runs) > 3 else []
    return " and ".join([*runs[:3], *more, *([f"until {_local(until)}"] if until else [])])


def _pause_row(pause: Mapping[str, Any]) -> tuple[str, ...]:
    tenant = f"tenant {pause['tenant']}" if pause["tenant"] else "all schedules"
    until = _local(pause["until"]) if pause["until"] else "resumed"
    return (pause["schedule_id"] or tenant, _local(pause["since"]), until, pause["by"] or "-", pause["reason"] or "")


def render_runs(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return ended runs as a table, newest first."""
    if not runs:
        return "No runs yet"
    head = ("RUN", "STATUS", "ENDED", "TOOK", "REASON")
    return table(head, map(_run_row, runs))


def _run_row(run: Mapping[str, Any]) -> tuple[str, ...]:
    ended, took = _local(run.get("timestamp")), span(run.get("duration_s"))
    names = (str(run.get(key, "-")) for key in ("run_id", "status"))
    return (*names, ended, took, str(run.get("reason") or ""))


def _local(timestamp: object) -> str:
    """Write a time of the log in the zone of this machine; `-` for what another hand wrote and is none."""
    try:
        return f"{datetime.fromisoformat(str(timestamp)).astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError):
        return "-"


def span(seconds: object) -> str:
    """Write a length of time in two units at most: `1h 5m`, `12.3s`; `-` for what is none."""
    if not isinstance(seconds, int | float) or not abs(seconds) < _FOREVER_S:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s"


def _size(count: int | None) -> str:
    if count is None:
        return "-"
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError(count)
