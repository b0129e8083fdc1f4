"""The page Now: what runs, what waits and why, what failed, what comes."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import msgspec
from msgspec.structs import asdict

from scheduler.history import History, Run
from scheduler.run_queue import RunQueue
from scheduler.service_processes import WorkerFacts
from scheduler.status import ServiceFacts, approvals_of, drain_of, health_of, problems_of
from scheduler.web.feed import Feed
from scheduler.web.fire_times import Fire
from scheduler.web.processes import Processes
from scheduler.web.run_index import BAD, RunIndex, RunRow
from workers.events import time_of

from .figures import Figures, quantile
from .lanes import Lane, lanes_of

__all__ = ["Failing", "Now", "WaitingRun", "Worker", "now_view"]

_SHOWN = 8
_FAULTS = 10
_FAILING = 8
_FAILURES_S = 86_400.0
_LENGTHS = 50
# So many older ends in a row, and none will come that is newer.
_OLDER = 500


class Worker(WorkerFacts):
    """A worker and what its run is. `p50_s` and `p95_s` are those of the last good runs of the schedule."""

    schedule_id: str | None
    tasks: list[str]
    p50_s: float | None
    p95_s: float | None


class WaitingRun(msgspec.Struct):
    """A run that waits: for how long, and for what."""

    run_id: str
    schedule_id: str
    attempt: int
    waits_s: float | None
    why: str
    is_parked: bool


class Failing(msgspec.Struct):
    """A schedule, or without one a DAG, of which runs have failed in 24 hours: how many, and the last of them.

    `is_mended` says that a later run has succeeded.
    """

    schedule_id: str
    dag: str
    count: int
    last: RunRow
    is_mended: bool


class Now(ServiceFacts):
    """The state of the service at a glance."""

    workers: list[Worker]
    at_s: float
    is_caught_up: bool
    waiting: list[WaitingRun]
    waiting_count: int
    failing: list[Failing]
    lanes: list[Lane]
    fires: list[Fire]
    figures: Figures


def now_view(feed: Feed, found: Processes, now: datetime, window: str = "24h") -> Now:
    """Return what there is to see now."""
    history, index, now_s = feed.history, feed.index, now.timestamp()
    supervisor, workers = found.look(history, now)
    waiting = [run for run in history.runs.values() if run.status != "running"]
    log = feed.settings.state_path
    problems = list(problems_of(history, supervisor, workers, feed.corrupt, log, most_faults=_FAULTS))
    problems += [feed.problem] if feed.problem else []
    failing = _failing(index, now_s)
    at_work = [_worker(each, index) for each in workers]
    first = [*(each.schedule_id for each in failing), *(each.schedule_id for each in at_work)]
    return Now(
        health=health_of(supervisor, problems),
        problems=problems,
        supervisor=supervisor,
        workers=at_work,
        approvals=[each for run in history.runs.values() for each in approvals_of(run, now)],
        drain=drain_of(history),
        at_s=now_s,
        is_caught_up=feed.is_caught_up,
        waiting=_longest(history, waiting, now_s),
        waiting_count=len(waiting),
        failing=failing[:_FAILING],
        lanes=lanes_of(feed, first, window, now_s),
        fires=feed.fire_times.soonest(history, now, 12),
        figures=feed.tally.figures(window, now_s),
    )


def _worker(facts: WorkerFacts, index: RunIndex) -> Worker:
    row = index.by_id.get(facts.run_id or "")
    lengths = sorted(_lengths(index, row.schedule_id)) if row is not None and row.schedule_id else []
    return Worker(
        **asdict(facts),
        schedule_id=row.schedule_id if row is not None else None,
        tasks=sorted(index.at_work.get(facts.run_id or "", ())),
        p50_s=quantile(lengths, 50),
        p95_s=quantile(lengths, 95),
    )


def _lengths(index: RunIndex, schedule_id: str) -> Iterator[float]:
    found = 0
    for row in index.newest(schedule_id):
        if row.status == "success" and row.duration_s is not None:
            yield row.duration_s
            found += 1
            if found == _LENGTHS:
                return


def _longest(history: History, waiting: Sequence[Run], now_s: float) -> list[WaitingRun]:
    """Return the runs that have waited longest. To say why one waits is a look at every schedule that has one."""
    asked = ((time_of(run.request.get("timestamp")), place) for place, run in enumerate(waiting))
    first = heapq.nsmallest(_SHOWN, asked, key=lambda each: now_s if each[0] is None else each[0])
    queue = RunQueue(history.limits)
    if first:
        queue.load(history.runs.values())
    return [_waiting(history, queue, waiting[place], asked_s, now_s) for asked_s, place in first]


def _waiting(history: History, queue: RunQueue, run: Run, asked_s: float | None, now_s: float) -> WaitingRun:
    why = _parked_text(run) if run.status == "parked" else queue.why_waiting(run.run_id)
    if history.drain is not None and run.status == "queued":
        why = f"nothing starts: {history.drain.get('by')} has drained it"
    return WaitingRun(
        run_id=run.run_id,
        schedule_id=run.schedule_id or str(run.request.get("for_schedule") or ""),
        attempt=run.attempt,
        waits_s=None if asked_s is None else round(now_s - asked_s, 3),
        why=why or "it is on its way to a worker",
        is_parked=run.status == "parked",
    )


def _parked_text(run: Run) -> str:
    waits = (run.parked or {}).get("waits")
    if not isinstance(waits, list):  # another hand has written it
        return ""
    texts = [_wait_text(each) for each in waits[:3] if isinstance(each, dict)]
    return "; ".join(texts) + (f" and {len(waits) - 3} more" if len(waits) > 3 else "")


def _wait_text(row: dict[str, Any]) -> str:
    task = row.get("task_id")
    if row.get("kind") == "approval":
        return f"task `{task}` waits for an approval"
    if row.get("run"):
        return f"task `{task}` waits for run {row['run']}"
    due_s: Any = row.get("due_s")
    # A number of another hand may be no moment.
    with suppress(TypeError, ValueError, OverflowError, OSError):
        return f"task `{task}` waits until {datetime.fromtimestamp(due_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
    return f"task `{task}` waits"


def _failing(index: RunIndex, now_s: float) -> list[Failing]:
    """Return what has failed of late: what still does before what runs well again, the newest first."""
    found: dict[tuple[str, str], Failing] = {}
    for row in _ended_since(index, now_s - _FAILURES_S):
        if row.status in BAD:
            key = (row.schedule_id, "" if row.schedule_id else row.dag)
            known = found.setdefault(key, Failing(row.schedule_id, row.dag, 0, row, is_mended=False))
            known.count += 1
            known.last = max(known.last, row, key=_ended_s)
    for each in found.values():
        each.is_mended = bool(each.schedule_id) and _ran_well_since(index, each)
    return sorted(found.values(), key=lambda each: (each.is_mended, -(each.last.ended_s or 0.0)))


def _ended_since(index: RunIndex, since_s: float) -> Iterator[RunRow]:
    """Yield what has ended since, the last on record first; a few that are older are no end: clocks are set back."""
    older = 0
    for row in reversed(index.ended):
        older = older + 1 if _ended_s(row) < since_s else 0
        if older == 0:
            yield row
        elif older == _OLDER:
            return


def _ended_s(row: RunRow) -> float:
    return row.ended_s or 0.0


def _ran_well_since(index: RunIndex, failing: Failing) -> bool:
    since_s = failing.last.ended_s or 0.0
    newest = (row for row in islice(index.newest(failing.schedule_id), _LENGTHS) if row.status == "success")
    return any((row.ended_s or 0.0) > since_s for row in newest)
