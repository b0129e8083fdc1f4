"""One run as an operator looks at it: why it ran, its attempts, its tasks; and what differs between two. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from workers.events import Event, text_or_none, time_of

from .run_record import ASKING, RunRecord, attempt_of
from .task_view import AttemptFacts, TaskFacts, tasks_of

__all__ = ["RunFacts", "differences", "view", "why"]

_COMPARED = (
    *("status", "attempt", "dag", "dag_version", "tenant", "fire_time", "why", "reason"),
    *("duration_s", "worked_s", "waited_s"),
)
# The events after which an attempt is open, and how it is then.
_OPEN = {"run_started": "running", "run_parked": "parked", "run_resumed": "queued"}
_TASK_COMPARED = ("status", "tries", "exit_code", "signal", "duration_s", "outputs", "reason")


class RunFacts(msgspec.Struct):
    """A run. The tasks, `why`, `reason` and the lengths are those of the `attempt` that is shown."""

    run_id: str
    status: str
    attempt: int
    why: str
    schedule_id: str | None
    fire_time: str | None
    by: str | None
    dag: str | None
    dag_version: str | None
    tenant: str
    params: dict[str, Any]
    reason: str | None
    waited_s: float | None
    duration_s: float | None
    worked_s: float | None
    attempts: list[AttemptFacts]
    tasks: Sequence[TaskFacts]

    @property
    def shown(self) -> AttemptFacts:
        """The attempt that is shown."""
        return next(each for each in self.attempts if each.attempt == self.attempt)

    @property
    def fire_s(self) -> float | None:
        """The fire time, in seconds since the epoch."""
        return time_of(self.fire_time)


def view(record: RunRecord, needs: Mapping[str, Sequence[str]], now: datetime, attempt: int | None = None) -> RunFacts:
    """Return the facts of a run; docs/reference.md says what each of them is.

    The attempt that is shown is the newest, or another. `needs` are those of each task, as far as they are known.
    """
    attempts = [_attempt(record, number, now) for number in record.attempts]
    chosen = next((each for each in attempts if each.attempt == attempt), attempts[-1])
    request, shown = record.request, chosen.attempt
    return RunFacts(
        run_id=record.run_id,
        status=attempts[-1].status,
        attempt=shown,
        why=why(record, shown),
        schedule_id=text_or_none(request.get("schedule_id")) or text_or_none(request.get("for_schedule")),
        fire_time=text_or_none(request.get("minute")),
        by=text_or_none(request.get("by")),
        dag=text_or_none(request.get("dag")),
        dag_version=chosen.dag_version,
        tenant=text_or_none(request.get("tenant")) or "default",
        params=_mapping(request.get("params")),
        reason=chosen.reason,
        waited_s=chosen.waited_s,
        duration_s=chosen.duration_s,
        worked_s=chosen.worked_s,
        attempts=attempts,
        tasks=list(tasks_of(record.of_attempt(shown), needs, chosen, now)),
    )


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


def _attempt(record: RunRecord, number: int, now: datetime) -> AttemptFacts:
    """Return the facts of one attempt."""

    def first(*names: str) -> Event:
        return next((each for each in record.named(*names) if attempt_of(each) == number), {})

    asked = first(*ASKING) or (record.request if number == attempt_of(record.request) else {})
    before = next((each for each in record.ends if each.get("next_attempt") == number), {})
    start, end = first("run_started"), first("run_finished")
    asked_at = text_or_none(asked.get("timestamp")) or text_or_none(before.get("timestamp"))
    moments = [time_of(asked_at), time_of(asked.get("not_before")), time_of(before.get("retry_at"))]
    free_s = max((each for each in moments if each is not None), default=None)
    started_s = time_of(start.get("timestamp"))
    duration_s, worked_s = _lengths(record, number, end, now)
    return AttemptFacts(
        attempt=number,
        asked_at=asked_at,
        started_at=text_or_none(start.get("timestamp")),
        ended_at=text_or_none(end.get("timestamp")),
        waited_s=None if free_s is None else _waited(free_s, started_s, now, is_over=bool(start or end)),
        duration_s=duration_s,
        worked_s=worked_s,
        status=text_or_none(end.get("status")) or _status(record, number),
        reason=text_or_none(end.get("reason")),
        worker_pid=start["pid"] if type(start.get("pid")) is int else None,
        dag_version=text_or_none(start.get("dag_version")) or text_or_none(asked.get("dag_version")),
    )


def _status(record: RunRecord, number: int) -> str:
    """Say how an attempt is that has not ended."""
    words = [each["event"] for each in record.named(*_OPEN) if attempt_of(each) == number]
    return _OPEN[words[-1]] if words else "queued"


def _waited(free_s: float, started_s: float | None, now: datetime, *, is_over: bool) -> float | None:
    """Return how long an attempt has waited since it might have started; None for one that never did and has ended."""
    if started_s is None and is_over:
        return None
    return round(max(0.0, (now.timestamp() if started_s is None else started_s) - free_s), 3)


def _lengths(record: RunRecord, number: int, end: Event, now: datetime) -> tuple[float | None, float | None]:
    """Return how long an attempt took, or has taken, and how long of that it was at work."""
    words = [each for each in record.named("run_started", "run_parked") if attempt_of(each) == number]
    starts, parks = ([each for each in words if each["event"] == name] for name in ("run_started", "run_parked"))
    worked_s = _number(parks[-1].get("worked_s")) if parks else None
    is_at_work = bool(starts) and words[-1] is starts[-1]
    if end:
        told = _number(end.get("duration_s"))
        # Of one that was ended while it was parked, nobody tells it again.
        worked_s = worked_s if told is None and not is_at_work else told
    elif is_at_work:
        since_s = _between(starts[-1], now.timestamp())
        worked_s = None if since_s is None else round((worked_s or 0.0) + since_s, 3)
    if not parks:
        return worked_s, worked_s
    return _between(starts[0] if starts else {}, time_of(end.get("timestamp")) if end else now.timestamp()), worked_s


def _between(event: Event, end_s: float | None) -> float | None:
    start_s = time_of(event.get("timestamp"))
    return None if start_s is None or end_s is None else round(max(0.0, end_s - start_s), 3)


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def differences(one: RunFacts, other: RunFacts) -> Iterator[tuple[str, Any, Any]]:
    """Yield (what, in the one, in the other) where two runs differ."""
    yield from _unequal(one, other, _COMPARED)
    for name in dict.fromkeys([*one.params, *other.params]):
        if one.params.get(name) != other.params.get(name):
            yield f"params.{name}", one.params.get(name), other.params.get(name)
    tasks = [{task.task_id: task for task in each.tasks} for each in (one, other)]
    for name in dict.fromkeys([*tasks[0], *tasks[1]]):
        for key, before, after in _unequal(tasks[0].get(name), tasks[1].get(name), _TASK_COMPARED):
            yield f"{name}.{key}", before, after


def _unequal(one: object, other: object, keys: Sequence[str]) -> Iterator[tuple[str, Any, Any]]:
    for key in keys:
        before, after = getattr(one, key, None), getattr(other, key, None)
        if before != after:
            yield key, before, after
