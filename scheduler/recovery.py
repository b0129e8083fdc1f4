"""Recovery: what to do about runs whose process is gone, and about processes whose run is closed.

A started run has a process on record (boot, pid, start ticks). While that process lives the run is left alone and
watched; when it is gone without a `run_finished`, the run is closed as `crashed` once nothing of it is left.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from workers.events import Event
from workers.process import Identity
from workers.process_tree import sweep
from workers.run_request import marker_for, next_attempt, run_fields

from .history import Run

__all__ = ["exit_text", "lost_finish", "lost_runs", "sweep_runs"]


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
        "reason": reason,
        **next_attempt(request, status, now),
    }


def sweep_runs(log: Path, runs: Iterable[Run]) -> int:
    """Kill what is left of the tasks of these runs; return how many processes that were."""
    return sum(sweep(marker_for(log, run.run_id, run.attempt)) for run in runs)


def exit_text(pid: int, exit_code: int | None) -> str:
    """Say how a worker ended: `worker 77 was killed by SIGKILL`."""
    if exit_code is not None and exit_code < 0:
        return f"worker {pid} was killed by {signal.Signals(-exit_code).name}"
    if exit_code:
        return f"worker {pid} ended with exit code {exit_code}"
    return f"worker {pid} ended without a word"
