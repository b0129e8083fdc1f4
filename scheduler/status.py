"""Status: what an operator needs to see at a glance, folded from the log and looked up in the process table.

It reads the log and /proc only, so it tells the truth when the service is down, and never waits for it.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from workers.errors import TickpoolError
from workers.events import Event, iso
from workers.process_id import is_alive, recorded_identity
from workers.segments import LogReader, read_backward
from workers.settings import Settings

from .history import History, Run
from .limits import AtWork, is_by_hand, place_of

__all__ = ["EXIT_CODES", "gather", "is_final", "processes"]

EXIT_CODES = {"well": 0, "degraded": 1, "down": 2}
_SHOWN = 10


def gather(settings: Settings, now: datetime, *, limit: int = _SHOWN) -> dict[str, Any]:
    """Return the state of the service as one JSON-able mapping; docs/reference.md names its keys."""
    from pathlib import Path

    path = Path(settings.state_path)
    reader = LogReader(path)
    history = History(reader.read())
    reader.close()
    supervisor, workers = processes(history, now)
    status: dict[str, Any] = {
        "health": "well",
        "problems": [],
        "supervisor": supervisor,
        "workers": workers,
        "queue": _queue(history, now, limit),
        "parked": list(_parked(history)),
        "approvals": list(_approvals(history, now)),
        "pools": list(_pools(history)),
        "tenants": list(_tenants(history)),
        "drain": _drain(history),
        "paused": list(_paused(history, now)),
        "next": list(_next_fires(history, now, limit)),
        "last_runs": list(islice(filter(is_final, read_backward(path)), limit)),
        "corrupt_lines": reader.corrupt,
        "log": {"path": str(path), "bytes": path.stat().st_size if path.exists() else 0},
    }
    status["problems"] = list(_problems(status, history, settings))
    if supervisor["pid"] is None:
        status["health"] = "down"
    elif status["problems"]:
        status["health"] = "degraded"
    return status


def processes(history: History, now: datetime) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the service's process and its workers, as they are in the process table."""
    supervisor = _supervisor(history, now)
    return supervisor, _workers(history, supervisor["pid"], now)


def is_final(event: Event | None) -> bool:
    """Say whether an event is the last end of a run: no further attempt follows."""
    return event is not None and event.get("event") == "run_finished" and not event.get("next_attempt")


def _supervisor(history: History, now: datetime) -> dict[str, Any]:
    event = history.supervisor
    if event is None:
        return {"pid": None, "state": "down", "reason": "no service has been started, or it was stopped"}
    process = recorded_identity(event)
    if not is_alive(process):
        return {"pid": None, "state": "down", "reason": f"process {process.pid} is gone without having stopped"}
    return {
        "pid": process.pid,
        "state": "running",
        "started_at": event["timestamp"],
        "uptime_s": _age_s(event["timestamp"], now),
        "dir": event.get("dir"),
        "max_parallel": event.get("max_parallel"),
        **_usage(process.pid),
    }


def _usage(pid: int) -> dict[str, Any]:
    """Return CPU and memory of a process; `cpu_percent` is over its life."""
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            cpu_s = times.user + times.system
            alive_s = max(0.01, time.time() - process.create_time())
            return {
                "cpu_s": round(cpu_s, 2),
                "cpu_percent": round(100 * cpu_s / alive_s, 2),
                "rss_bytes": process.memory_info().rss,
            }
    except psutil.Error:
        return {"cpu_s": None, "cpu_percent": None, "rss_bytes": None}


def _workers(history: History, supervisor_pid: int | None, now: datetime) -> list[dict[str, Any]]:
    """Return every worker: the service's processes by name, and any process that has a run on record."""
    import psutil

    running = {run.process.pid: run for run in history.runs.values() if run.process}
    names: dict[int, str] = {}
    if supervisor_pid is not None:
        try:
            for child in psutil.Process(supervisor_pid).children(recursive=True):
                if (name := child.name()).startswith("tickpool-w"):
                    names[child.pid] = name
        except psutil.Error:
            pass
    return [_worker(pid, names.get(pid), running.get(pid), now) for pid in sorted({*names, *running})]


def _worker(pid: int, name: str | None, run: Run | None, now: datetime) -> dict[str, Any]:
    import psutil

    children = 0
    try:
        children = len(psutil.Process(pid).children(recursive=True))
        state = "busy" if run else "idle"
    except psutil.Error:
        state = "gone"
    return {
        "pid": pid,
        "name": name,
        "state": state,
        "run_id": run.run_id if run else None,
        "attempt": run.attempt if run else None,
        "elapsed_s": _age_s(run.started_at, now) if run and run.started_at else None,
        "children": children,
        **_usage(pid),
    }


def _queue(history: History, now: datetime, limit: int) -> dict[str, Any]:
    waiting = [run for run in history.runs.values() if run.status == "queued"]
    ages = [_age_s(run.request.get("timestamp"), now) for run in waiting]
    waits = [age for age in ages if age is not None]
    return {
        "depth": len(waiting),
        "oldest_wait_s": max(waits, default=None),
        "runs": [{"run_id": run.run_id, "attempt": run.attempt, "retry_at": run.retry_at} for run in waiting[:limit]],
    }


def _parked(history: History) -> Iterator[dict[str, Any]]:
    """Yield the parked runs, and what each of their tasks waits for."""
    for run in history.runs.values():
        if run.status == "parked" and run.parked is not None:
            listed = run.parked.get("waits")
            waits = [_wait(each) for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
            yield {"run_id": run.run_id, "attempt": run.attempt, "until": run.parked.get("until"), "waits": waits}


def _wait(row: dict[str, Any]) -> dict[str, Any]:
    return {"task_id": row.get("task_id"), "kind": row.get("kind"), "run": row.get("run")}


def _approvals(history: History, now: datetime) -> Iterator[dict[str, Any]]:
    """Yield the approvals that runs ask for and nobody has given."""
    for run in history.runs.values():
        for task_id, question in run.asks(now).items():
            facts = {name: question.get(name) for name in ("message", "until", "default")}
            yield {"run_id": run.run_id, "task_id": task_id, "asked_at": question.get("timestamp"), **facts}


def _pools(history: History) -> Iterator[dict[str, Any]]:
    at_work = _at_work(history)
    for pool, slots in history.limits.pools.items():
        yield {"pool": pool, "slots": slots, "used": len(at_work.of_pool(pool))}


def _tenants(history: History) -> Iterator[dict[str, Any]]:
    at_work = _at_work(history)
    for name, tenant in history.limits.tenants.items():
        facts = {"max_parallel": tenant.max_parallel, "weight": tenant.weight}
        yield {"tenant": name, **facts, "used": len(at_work.of_tenant(name))}


def _at_work(history: History) -> AtWork:
    at_work = AtWork()
    for run in history.runs.values():
        if run.start is not None and not is_by_hand(run.request, run.start):
            at_work.add(run.run_id, *place_of(run.request))
    return at_work


def _drain(history: History) -> dict[str, Any] | None:
    if history.drain is None:
        return None
    return {
        "since": history.drain.get("timestamp"),
        "by": history.drain.get("by"),
        "reason": history.drain.get("reason"),
    }


def _paused(history: History, now: datetime) -> Iterator[dict[str, Any]]:
    """Yield the pauses that are in force; of a schedule, of a tenant, or, where both are None, of all."""
    for (kind, name), pause in history.pauses.in_force(now):
        yield {
            "schedule_id": name if kind == "schedule" else None,
            "tenant": name if kind == "tenant" else None,
            "since": iso(datetime.fromtimestamp(pause.since, UTC)),
            "until": None if pause.until is None else iso(datetime.fromtimestamp(pause.until, UTC)),
            "by": pause.by or None,
            "reason": pause.reason or None,
        }


def _next_fires(history: History, now: datetime, limit: int) -> Iterator[dict[str, Any]]:
    """Yield the next fire times of the schedules in force, soonest first."""
    from .schedule_model import schedule_from_spec

    def fires() -> Iterator[tuple[datetime, str]]:
        for name, state in history.schedules.items():
            if not state.spec.get("enabled"):
                continue
            tenant = str(state.spec.get("tenant") or "default")
            # A spec that a newer version wrote may say what this one cannot read.
            with suppress(TickpoolError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError):
                schedule = schedule_from_spec(name, state.spec, history.calendars)
                fire = schedule.fires.next(now.astimezone(schedule.zone))
                # What is paused without an end has none to come.
                if fire is not None and not history.pauses.is_paused(name, tenant, fire, fire):
                    yield fire.astimezone(UTC), name

    for fire, name in heapq.nsmallest(limit, fires()):
        yield {"schedule_id": name, "minute": iso(fire), "in_s": round((fire - now).total_seconds(), 1)}


def _problems(status: dict[str, Any], history: History, settings: Settings) -> Iterator[str]:
    if status["supervisor"]["pid"] is None:
        yield f"the service is down: {status['supervisor']['reason']}"
    elif (size := len([w for w in status["workers"] if w["name"]])) < (history.supervisor or {}).get("max_parallel", 0):
        yield f"{size} worker(s) of {(history.supervisor or {}).get('max_parallel')} are there"
    if history.drain is not None:
        yield f"nothing starts: {history.drain.get('by')} has drained it (`tickpool drain --off` ends that)"
    for fault in history.faults:
        place = f"{fault.get('file')}:{fault.get('line')}:{fault.get('col')}"
        yield f"configuration fault at {place}: {fault.get('reason')}"
    for worker in status["workers"]:
        if worker["state"] == "gone":
            yield f"run {worker['run_id']} is open but its process {worker['pid']} is gone"
    if status["corrupt_lines"]:
        yield f"{status['corrupt_lines']} corrupt line(s) in {settings.state_path}"


def _age_s(timestamp: object, now: datetime) -> float | None:
    """Return how long ago a time of the log is; None for one that another hand wrote and that is none."""
    try:
        return round((now - datetime.fromisoformat(str(timestamp))).total_seconds(), 3)
    except (ValueError, TypeError):
        return None
