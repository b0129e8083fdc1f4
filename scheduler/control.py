"""Control: what an operator asks for, as the events that ask for it, and the signal that has the service look at once.

The log carries it: a service that is down finds it when it starts. Every event says who asked, as `by`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from workers.events import Event, iso
from workers.process_id import Identity, is_alive, recorded_identity, send_signal
from workers.run_context import RunInfo
from workers.run_request import cancel_requested, cancel_text

from .history import History
from .judge import run_terms
from .limits import is_by_hand
from .open_runs import Run
from .pauses import Scope
from .refusals import COMMENT_CHARS, LongComment, NotAsked, NotOpen
from .run_timers import unstarted_end
from .schedule_model import Schedule

__all__ = [
    "answer",
    "answer_to",
    "bump",
    "cancel",
    "cancel_backfill",
    "drain",
    "end_drain",
    "is_running",
    "pause",
    "process_to_signal",
    "request_dag",
    "request_schedule",
    "resume",
    "service_of",
    "signal_cancelled",
    "wake",
    "wake_service",
    "with_children",
]

_KEYS = {"schedule": "schedule_id", "tenant": "tenant"}


def request_schedule(
    schedule: Schedule, params: Mapping[str, Any], now: datetime, at: datetime | None, by: str
) -> Event:
    """Return the request for a run of a schedule now, or `at` a later time, whatever its policies say.

    `params` are all of the run's, those of the schedule among them. The request has no `schedule_id`: it takes no fire
    time, stands in no other run's way, and waits for none.
    """
    terms = run_terms(schedule) | {"params": dict(params)}
    return {**_request(schedule.id, now, at, by), "for_schedule": schedule.id, **terms}


def request_dag(
    dag_id: str, dag: str, project: str, params: Mapping[str, Any], now: datetime, at: datetime | None, by: str
) -> Event:
    """Return the request for a run of a DAG; `dag` is its path in the `project`."""
    return {**_request(dag_id, now, at, by), "dag": dag, "project": project, "params": dict(params)}


def _request(name: str, now: datetime, at: datetime | None, by: str) -> Event:
    request = {"event": "run_requested", "run_id": RunInfo.manual(name, now).run_id, "attempt": 1, "by": by}
    request["minute"] = iso((at or now).astimezone(UTC))
    if at is not None:
        request["not_before"] = request["minute"]
    return request


def cancel(run: Run, by: str) -> Iterator[Event]:
    """Yield what asks for the end of an open run; one that waits has its end with it.

    To be decided under the lock: what waits there cannot be claimed in between.
    """
    asked = cancel_requested(run.run_id, "", by)
    if run.cancel is None:
        yield asked
    if run.status != "running":
        yield unstarted_end(run, cancel_text(run.cancel or asked))


def with_children(history: History, runs: Iterable[Run]) -> list[Run]:
    """Return open runs, and behind them those that they have asked for, each once."""
    named = list(runs)
    asked_for = (child for run in named for child in history.children.of(run.run_id))
    return list({run.run_id: run for run in (*named, *asked_for)}.values())


def pause(scope: Scope, until: datetime | None, reason: str, by: str) -> Event:
    """Return what pauses schedules, `until` then or until they are resumed."""
    event: Event = {"event": "schedule_paused", **_named(scope), "by": by}
    if until is not None:
        event["until"] = iso(until)
    return {**event, "reason": reason} if reason else event


def resume(scope: Scope, by: str) -> Event:
    """Return what ends such a pause; of all schedules, every one."""
    return {"event": "schedule_resumed", **_named(scope), "by": by}


def _named(scope: Scope) -> Event:
    kind, name = scope
    return {_KEYS[kind]: name} if kind in _KEYS else {}


def drain(reason: str, by: str) -> Event:
    """Return what has nothing start any more."""
    return {"event": "drain_started", "by": by, **({"reason": reason} if reason else {})}


def end_drain(by: str) -> Event:
    """Return what lets runs start again."""
    return {"event": "drain_ended", "by": by}


def bump(run: Run, by: str) -> Event:
    """Return what puts a run first that waits."""
    return {"event": "run_bumped", "run_id": run.run_id, "by": by}


def answer(run: Run, task_id: str, comment: str, by: str, *, is_approved: bool) -> Event:
    """Return what answers an approval that a run asks for. To be decided under the lock: the first answer counts."""
    name = "task_approved" if is_approved else "task_rejected"
    event: Event = {"event": name, "run_id": run.run_id, "attempt": run.attempt, "task_id": task_id, "by": by}
    return {**event, "comment": comment} if comment else event


def answer_to(
    history: History, run_id: str, task_id: str | None, comment: str, now: datetime, by: str, *, is_approved: bool
) -> Event:
    """Return what answers a question of a run, its only one where no task is named. To be decided under the lock.

    Raises LongComment, NotOpen, NotAsked.
    """
    if len(comment) > COMMENT_CHARS:
        raise LongComment(len(comment))
    run = history.runs.get(run_id)
    if run is None:
        raise NotOpen(run_id, [name for name, each in history.runs.items() if each.questions])
    asked = run.asks(now)
    if task_id not in asked and not (task_id is None and len(asked) == 1):
        raise NotAsked(run_id, task_id, sorted(asked))
    return answer(run, task_id or next(iter(asked)), comment, by, is_approved=is_approved)


def is_running(run: Run) -> bool:
    """Say whether a run is on a worker of a service; one by hand is its own affair."""
    return run.start is not None and not is_by_hand(run.request, run.start)


def wake_service(history: History) -> bool:
    """Have the service look into the log at once; say whether there is one."""
    return wake(service_of(history))


def cancel_backfill(backfill_id: str, by: str) -> Event:
    """Return what has a backfill ask for no further slot."""
    return {"event": "backfill_cancelled", "backfill_id": backfill_id, "by": by}


def service_of(history: History) -> Identity | None:
    """Return the process that leads on this log; None where none lives."""
    process = None if history.supervisor is None else recorded_identity(history.supervisor)
    return process if process is not None and is_alive(process) else None


def wake(service: Identity | None) -> bool:
    """Have the service look into the log at once, if this user may; say whether there is one."""
    try:
        return service is not None and send_signal(service, signal.SIGUSR1)
    except PermissionError:
        return True  # its next tick finds it


def process_to_signal(run: Run, service: Identity | None) -> Identity | None:
    """Return the process that is to be told of a cancel by whoever asks for it; None where the service tells it.

    Nobody else tells one that runs by hand, or whose service has died.
    """
    if run.start is None or (service is not None and not is_by_hand(run.request, run.start)):
        return None
    return run.process


def signal_cancelled(runs: Iterable[Run], service: Identity | None) -> set[str]:
    """Tell the processes of cancelled runs that nobody else tells; return the runs whose process is gone."""
    lost = set()
    for run in runs:
        process = process_to_signal(run, service)
        if process is not None and not send_signal(process, signal.SIGTERM):
            lost.add(run.run_id)
    return lost
