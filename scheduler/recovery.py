"""Recovery: what to do about runs whose process is gone, and about processes whose run is closed.

A started run has a process on record (boot, pid, start ticks). While that process lives the run is left alone and
watched; when it is gone without a `run_finished`, the run is closed as `crashed` once nothing of it is left.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from workers.events import Event
from workers.process import Identity, identity, read_stat
from workers.process_tree import find, sweep
from workers.run_request import cancel_text, marker_for, next_attempt, run_fields
from workers.segments import read_backward
from workers.worker import is_worker

from .history import Run

__all__ = ["exit_text", "lost_finish", "lost_runs", "open_tasks", "sweep_runs"]


def lost_runs(runs: Iterable[Run], is_alive: Callable[[Identity], bool]) -> list[Run]:
    """Return the running runs whose process is gone."""
    return [run for run in runs if run.status == "running" and not (run.process and is_alive(run.process))]


def lost_finish(run: Run, status: str, reason: str, now: datetime) -> Event:
    """Return the `run_finished` of a run whose process is gone: `crashed`, or `cancelled` when we killed it.

    The effects of a crashed run are unknown, so it is made again only where its request allows it.
    """
    request = run.next_request()
    return {
        "event": "run_finished",
        **run_fields(request),
        "status": status,
        "reason": cancel_text(run.cancel) if run.cancel is not None and status == "cancelled" else reason,
        **next_attempt(request, status, now),
    }


def sweep_runs(log: Path, task_log: Path, runs: Collection[Run]) -> int:
    """Kill what is left of the tasks of these runs; return how many processes that were.

    A program carries the run's marker in its environment. A Python task that was forked has its worker's environment,
    but leads a session on record in the task log, in which its own forks are.
    """
    swept = sum(sweep(marker_for(log, run.run_id, run.attempt)) for run in runs)
    sessions = {pid for pid, starttime in open_tasks(task_log, runs) if _is_session_left(pid, starttime)}
    return swept + (sweep(sids=sessions) if sessions else 0)


def open_tasks(task_log: Path, runs: Iterable[Run]) -> set[tuple[int, int]]:
    """Return (pid, start ticks) of each task of these runs that has no end on record, if this boot has seen it."""
    boot_id = identity(os.getpid()).boot_id
    wanted = {
        (run.run_id, run.attempt): run.started_at
        for run in runs
        if run.started_at and run.process and run.process.boot_id == boot_id
    }
    since = min(wanted.values(), default=None)
    ended: set[tuple[Any, ...]] = set()
    found: set[tuple[int, int]] = set()
    for event in read_backward(task_log) if since else ():
        if event is None or (event.get("run_id"), event.get("attempt")) not in wanted:
            if event is not None and str(event.get("timestamp")) < str(since):
                break
            continue
        task = tuple(event.get(key) for key in ("run_id", "attempt", "task_id", "task_attempt"))
        if event.get("event") == "task_finished":
            ended.add(task)
        elif event.get("event") == "task_started" and task not in ended and event.get("starttime"):
            found.add((int(event["pid"]), int(event["starttime"])))
    return found


def _is_session_left(pid: int, starttime: int) -> bool:
    """Say whether this task's session has members; its number may be another's by now."""
    leader = read_stat(pid)
    if leader is not None:
        return leader.starttime == starttime
    return bool(find(lambda stat: stat.session == pid and is_worker(stat.pid)))


def exit_text(pid: int, exit_code: int | None) -> str:
    """Say how a worker ended: `worker 77 was killed by SIGKILL`."""
    if exit_code is not None and exit_code < 0:
        names = {each.value: each.name for each in signal.Signals}
        return f"worker {pid} was killed by {names.get(-exit_code, f'signal {-exit_code}')}"
    if exit_code:
        return f"worker {pid} ended with exit code {exit_code}"
    return f"worker {pid} ended without a word"
