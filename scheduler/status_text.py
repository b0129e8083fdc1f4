"""Status and runs as lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from msgspec.structs import astuple

from workers.terminal import clean

from .service_processes import Service
from .text import age, local, size, span, table

if TYPE_CHECKING:
    from .status import ParkedRun, Paused, Status

__all__ = ["render", "render_runs", "waits_text"]

_MARKS = {"well": "ok", "degraded": "DEGRADED", "down": "DOWN"}


def render(status: Status, now: datetime, width: int | None = None) -> str:
    """Return the status as a person reads it, on a terminal of this width."""
    supervisor, queue = status.supervisor, status.queue
    lines = [f"tickpool: {_MARKS[status.health]}"]
    lines += [f"  ! {clean(problem)}" for problem in status.problems]
    if isinstance(supervisor, Service):
        usage = f"cpu {supervisor.cpu_percent} %  rss {size(supervisor.rss_bytes)}"
        lines.append(f"supervisor  pid {supervisor.pid}  up {span(supervisor.uptime_s)}  {usage}")
    waits = f", the oldest for {span(queue.oldest_wait_s)}" if queue.depth else ""
    lines.append(f"queue       {queue.depth} waiting{waits}")
    log, corrupt = status.log, status.corrupt_lines
    lines.append(f"log         {clean(log.path)}  {size(log.bytes)}, {corrupt} corrupt line(s)")
    if status.workers:
        head = ("WORKER", "PID", "STATE", "RUN", "ELAPSED", "CPU", "RSS", "CHILDREN")
        rows = [
            (w.name or "-", w.pid, w.state, w.run_id or "-", span(w.elapsed_s), span(w.cpu_s),
             size(w.rss_bytes), w.children)
            for w in status.workers
        ]  # fmt: skip
        lines += ["", table(head, rows, width=width, drop=(7, 5))]
    if status.parked:
        lines += ["", table(("PARKED", "WAITS FOR", "UNTIL"), map(_parked_row, status.parked))]
    if status.approvals:
        asked = [(each.run_id, each.task_id, each.message or "-") for each in status.approvals]
        lines += ["", table(("APPROVE", "TASK", "QUESTION"), asked)]
    if status.pools:
        lines += ["", table(("POOL", "SLOTS", "USED"), map(astuple, status.pools))]
    if status.tenants:
        tenants = [["-" if cell is None else cell for cell in astuple(row)] for row in status.tenants]
        lines += ["", table(("TENANT", "MOST", "WEIGHT", "USED"), tenants)]
    if status.paused:
        heading = ("PAUSED", "SINCE", "UNTIL", "BY", "REASON")
        lines += ["", table(heading, map(_pause_row, status.paused), width=width, cut=(4,), drop=(1,))]
    if status.next:
        fires = [(row.schedule_id, local(row.minute), span(row.in_s)) for row in status.next]
        lines += ["", table(("NEXT", "AT", "IN"), fires)]
    if status.last_runs:
        lines += ["", render_runs(status.last_runs, now, width)]
    return "\n".join(lines)


def _parked_row(run: ParkedRun) -> tuple[str, ...]:
    waits = ", ".join(f"{each.task_id} ({each.run or each.kind})" for each in run.waits[:3])
    more = f" and {len(run.waits) - 3} more" if len(run.waits) > 3 else ""
    return (run.run_id, f"{waits}{more}", local(run.until) if run.until else "-")


def waits_text(waits: object, until: object) -> str:
    """Say for which runs, and until when, a parked run waits; empty where it waits for people only."""
    rows = [each for each in waits if isinstance(each, dict)] if isinstance(waits, list) else []
    runs = [f"for run {each['run']}" for each in rows if each.get("run")]
    more = [f"{len(runs) - 3} more"] if len(runs) > 3 else []
    return " and ".join([*runs[:3], *more, *([f"until {local(until)}"] if until else [])])


def _pause_row(pause: Paused) -> tuple[str, ...]:
    tenant = f"tenant {pause.tenant}" if pause.tenant else "all schedules"
    until = local(pause.until) if pause.until else "resumed"
    return (pause.schedule_id or tenant, local(pause.since), until, pause.by or "-", pause.reason or "")


def render_runs(runs: Sequence[Mapping[str, Any]], now: datetime, width: int | None = None) -> str:
    """Return ended runs as a table, newest first."""
    if not runs:
        return "No runs yet"
    head = ("RUN", "STATUS", "ENDED", "AGE", "TOOK", "REASON")
    return table(head, (_run_row(run, now) for run in runs), width=width, cut=(5,), drop=(2, 4))


def _run_row(run: Mapping[str, Any], now: datetime) -> tuple[str, ...]:
    ended, took = local(run.get("timestamp")), span(run.get("duration_s"))
    names = (str(run.get(key, "-")) for key in ("run_id", "status"))
    return (*names, ended, age(run.get("timestamp"), now), took, str(run.get("reason") or ""))
