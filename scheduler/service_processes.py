"""The service's process and its workers, as the log names them and the process table has them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal

import msgspec

from workers.events import text_or_none, time_of
from workers.process_id import is_alive, read_stat, recorded_identity
from workers.process_tree import find

from .history import History, Run

__all__ = ["NoService", "Service", "WorkerFacts", "age_s", "processes"]


class _Process(msgspec.Struct):
    """A process, and what it has taken; `cpu_percent` is over its life."""

    pid: int
    cpu_s: float | None
    cpu_percent: float | None
    rss_bytes: int | None


class Service(_Process, tag_field="state", tag="running"):
    """The service's process, which began to serve at `started_at`."""

    started_at: str
    uptime_s: float | None
    dir: str | None
    max_parallel: int | None


class NoService(msgspec.Struct, tag_field="state", tag="down"):
    """That there is no service, and why."""

    reason: str
    pid: None = None


class WorkerFacts(_Process):
    """A worker process, and the run that it has had for `elapsed_s`; one that is `gone` has left its run open."""

    name: str | None
    state: Literal["idle", "busy", "gone"]
    run_id: str | None
    attempt: int | None
    elapsed_s: float | None
    children: int


def processes(history: History, now: datetime) -> tuple[Service | NoService, list[WorkerFacts]]:
    """Return the service's process, and every worker: those of the service, and what else has a run on record."""
    service = _service(history, now)
    return service, _workers(history, service.pid, now)


def age_s(timestamp: object, now: datetime) -> float | None:
    """Return how long ago a time of the log is; None for one that another hand wrote and that is none."""
    at_s = time_of(timestamp)
    return None if at_s is None else round(now.timestamp() - at_s, 3)


def _service(history: History, now: datetime) -> Service | NoService:
    event = history.supervisor
    if event is None:
        return NoService("no service has been started, or it was stopped")
    process = recorded_identity(event)
    if not is_alive(process):
        return NoService(f"process {process.pid} is gone without having stopped")
    return Service(
        **_usage(process.pid),
        started_at=event["timestamp"],
        uptime_s=age_s(event["timestamp"], now),
        dir=text_or_none(event.get("dir")),
        max_parallel=event.get("max_parallel") or None,
    )


def _usage(pid: int) -> dict[str, Any]:
    """Return the fields of a _Process."""
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            cpu_s = times.user + times.system
            alive_s = max(0.01, time.time() - process.create_time())
            return {
                "pid": pid,
                "cpu_s": round(cpu_s, 2),
                "cpu_percent": round(100 * cpu_s / alive_s, 2),
                "rss_bytes": process.memory_info().rss,
            }
    except psutil.Error:
        return {"pid": pid, "cpu_s": None, "cpu_percent": None, "rss_bytes": None}


def _workers(history: History, supervisor_pid: int | None, now: datetime) -> list[WorkerFacts]:
    import psutil

    running = {run.process.pid: run for run in history.runs.values() if run.process}
    names: dict[int, str] = {}
    children = _children()
    for pid in _below(supervisor_pid, children) if supervisor_pid is not None else ():
        with suppress(psutil.Error):
            if (name := psutil.Process(pid).name()).startswith("tickpool-w"):
                names[pid] = name
    return [_worker(pid, names.get(pid), running.get(pid), children, now) for pid in sorted({*names, *running})]


def _children() -> dict[int, list[int]]:
    """Return every process with its children: one look at all of them, where psutil takes one for each parent."""
    me = read_stat(os.getpid())
    stats = {stat.pid: stat for stat in (*find(lambda _: True, dead=True), *filter(None, [me]))}
    children: dict[int, list[int]] = {pid: [] for pid in stats}
    for pid, stat in stats.items():
        if stat.ppid in children:
            children[stat.ppid].append(pid)
    return children


def _below(pid: int, children: Mapping[int, list[int]]) -> set[int]:
    """Return the children of a process, and theirs. That pids are used again while one looks may close a ring."""
    found, left = set[int](), [pid]
    while left:
        new = set(children.get(left.pop(), ())) - found
        found |= new
        left += new
    return found


def _worker(
    pid: int, name: str | None, run: Run | None, children: Mapping[int, list[int]], now: datetime
) -> WorkerFacts:
    state: Literal["idle", "busy", "gone"] = "busy" if run else "idle"
    return WorkerFacts(
        **_usage(pid),
        name=name,
        state=state if pid in children else "gone",
        run_id=run.run_id if run else None,
        attempt=run.attempt if run else None,
        elapsed_s=age_s(run.started_at, now) if run else None,
        children=len(_below(pid, children)),
    )
