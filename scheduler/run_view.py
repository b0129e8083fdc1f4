"""One run as an operator looks at it: why it ran, its attempts, its tasks; and what differs between two. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from workers.events import Event, time_of

from .run_record import ASKING, RunRecord, attempt_of
from .task_view import tasks_of

__all__ = ["differences", "view", "why"]

_COMPARED = (
    *("status", "attempt", "dag", "dag_version", "tenant", "fire_time", "why", "reason", "duration_s", "waited_s"),
)
# The events after which an attempt is open, and how it is then.
_OPEN = {"run_started": "running", "run_parked": "parked", "run_resumed": "queued"}
_TASK_COMPARED = ("status", "tries", "exit_code", "signal", "duration_s", "outputs", "reason")


def view(
    record: RunRecord, needs: Mapping[str, Sequence[str]], now: datetime, attempt: int | None = None
) -> dict[str, Any]:
    """Return the facts of a run as one JSON-able mapping; docs/reference.md names its keys.

    The tasks are those of the newest attempt, or of another. `needs` are those of each task, as far as they are known.
    """
    attempts = [_attempt(record, number, now) for number in record.attempts]
    chosen = next((each for each in attempts if each["attempt"] == attempt), attempts[-1])
    request, shown = record.request, chosen["attempt"]
    return {
        "run_id": record.run_id,
        "status": attempts[-1]["status"],
        "attempt": shown,
        "why": why(record, shown),
        "schedule_id": _text(request.get("schedule_id")) or _text(request.get("for_schedule")),
        "fire_time": _text(request.get("minute")),
        "by": _text(request.get("by")),
        "dag": _text(request.get("dag")),
        "dag_version": chosen["dag_version"],
        "tenant": _text(request.get("tenant")) or "default",
        "params": _mapping(request.get("params")),
        "reason": chosen["reason"],
        "waited_s": chosen["waited_s"],
        "duration_s": chosen["duration_s"],
        "attempts": attempts,
        "tasks": list(tasks_of(record.of_attempt(shown), needs, chosen, now)),
    }


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def why(record: RunRecord, attempt: int = 1) -> str:
    """Say why a run, or an attempt of it, was made."""
    asked = [each for each in record.named(*ASKING) if attempt_of(each) == attempt]
    request = asked[-1] if asked else record.request
    by = f" by {request['by']}" if request.get("by") else ""
    if request.get("retry_of") and asked:
        kept = request.get("kept")
        count = f", {len(kept)} task(s) kept" if kept and isinstance(kept, list) else ""
        return f"attempt {request['retry_of']} was retried{by}{count}"
    if attempt > 1 and not asked:
        ended = next((each for each in record.ends if each.get("next_attempt") == attempt), {})
        return f"the attempt before ended as {ended.get('status', 'nobody knows')}, and another was allowed"
    if request.get("event") == "schedule_enqueued" or request.get("schedule_id"):
        return _why_due(request)
    of = f" for schedule {request['for_schedule']}" if request.get("for_schedule") else ""
    if request.get("backfill"):
        return f"backfill {request['backfill']}{by}"
    if request.get("rerun_of"):
        return f"run {request['rerun_of']} was run again{by}"
    if parent := _mapping(request.get("parent")):
        return f"task {parent.get('task_id')} of run {parent.get('run_id')} asked for it"
    if request.get("for_run"):
        return f"run {request['for_run']} missed its deadline"
    if not request:
        return "nobody knows: its request is not on record any more"
    return f"triggered{by}{of}" if by else f"run by hand{of}"


def _why_due(request: Event) -> str:
    name, trigger = request.get("schedule_id"), _mapping(request.get("trigger"))
    late = f", caught up ({request['catchup']})" if request.get("catchup") else ""
    if "after" in trigger:
        return f"schedule {name} follows {', '.join(map(str, _mapping(trigger['after']).values()))}"
    if "file" in trigger:
        return f"schedule {name} waited for the file {_mapping(trigger['file']).get('path')}"
    return f"schedule {name} was due{late}"


def _attempt(record: RunRecord, number: int, now: datetime) -> dict[str, Any]:
    """Return the facts of one attempt; moments as the log has them, lengths in seconds."""

    def first(*names: str) -> Event:
        return next((each for each in record.named(*names) if attempt_of(each) == number), {})

    asked = first(*ASKING) or (record.request if number == attempt_of(record.request) else {})
    before = next((each for each in record.ends if each.get("next_attempt") == number), {})
    start, end = first("run_started"), first("run_finished")
    asked_at = _text(asked.get("timestamp")) or _text(before.get("timestamp"))
    moments = [time_of(asked_at), time_of(asked.get("not_before")), time_of(before.get("retry_at"))]
    free_s = max((each for each in moments if each is not None), default=None)
    started_s = time_of(start.get("timestamp"))
    return {
        "attempt": number,
        "asked_at": asked_at,
        "started_at": _text(start.get("timestamp")),
        "ended_at": _text(end.get("timestamp")),
        "waited_s": None if free_s is None else _waited(free_s, started_s, now, is_over=bool(start or end)),
        "duration_s": _length(start, end, now),
        "status": _text(end.get("status")) or _status(record, number),
        "reason": _text(end.get("reason")),
        "worker_pid": start.get("pid") if isinstance(start.get("pid"), int) else None,
        "dag_version": _text(start.get("dag_version")) or _text(asked.get("dag_version")),
    }


def _status(record: RunRecord, number: int) -> str:
    """Say how an attempt is that has not ended."""
    words = [each["event"] for each in record.named(*_OPEN) if attempt_of(each) == number]
    return _OPEN[words[-1]] if words else "queued"


def _waited(free_s: float, started_s: float | None, now: datetime, *, is_over: bool) -> float | None:
    """Return how long an attempt has waited since it might have started; None for one that never did and has ended."""
    if started_s is None and is_over:
        return None
    return round(max(0.0, (now.timestamp() if started_s is None else started_s) - free_s), 3)


def _length(start: Event, end: Event, now: datetime) -> float | None:
    """Return how long an attempt took, or has been at work."""
    if end:
        told = end.get("duration_s")
        return told if isinstance(told, int | float) and not isinstance(told, bool) else None
    started_s = time_of(start.get("timestamp"))
    return None if started_s is None else round(max(0.0, now.timestamp() - started_s), 3)


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield (what, in the one, in the other) where two views differ."""
    for key in _COMPARED:
        if one[key] != other[key]:
            yield key, one[key], other[key]
    for name in dict.fromkeys([*one["params"], *other["params"]]):
        if one["params"].get(name) != other["params"].get(name):
            yield f"params.{name}", one["params"].get(name), other["params"].get(name)
    tasks = [{task["task_id"]: task for task in each["tasks"]} for each in (one, other)]
    for name in dict.fromkeys([*tasks[0], *tasks[1]]):
        pair = [each.get(name) for each in tasks]
        for key in _TASK_COMPARED:
            before, after = (None if task is None else task[key] for task in pair)
            if before != after:
                yield f"{name}.{key}", before, after
