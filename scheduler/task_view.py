"""The tasks of one attempt of a run as an operator looks at them: a tree, each with its times and its end. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from workers.events import Event, time_of
from workers.run_events import LAST_WORDS

__all__ = ["AttemptFacts", "TaskFacts", "TryFacts", "tasks_of"]

# One of several instances of a mapped task: `per_region[0]`.
_INSTANCE = re.compile(r"(?P<task>.+)\[[0-9]+\]")


class AttemptFacts(msgspec.Struct):
    """An attempt of a run; moments as the log has them, lengths in seconds.

    `waited_s` is from when it might have started to its start, or till now; `duration_s` from there to its end, or
    till now; `worked_s` is that without the time for which it was parked.
    """

    attempt: int
    asked_at: str | None
    started_at: str | None
    ended_at: str | None
    waited_s: float | None
    duration_s: float | None
    worked_s: float | None
    status: str
    reason: str | None
    worker_pid: int | None
    dag_version: str | None

    @property
    def started_s(self) -> float | None:
        """When it started, in seconds since the epoch."""
        return time_of(self.started_at)


class TryFacts(msgspec.Struct):
    """A try of a task: how long after the start of the attempt it began, how long it took, or has taken."""

    status: str
    after_s: float | None
    duration_s: float | None


class TaskFacts(msgspec.Struct):
    """A task of an attempt, or one instance of a task with `foreach`; `depth` is that below one that it needs.

    `after_s` is from the start of the attempt to its first try, `duration_s` from there to its end, or till now.
    """

    task_id: str
    depth: int
    needs: list[str]
    status: str
    tries: int
    tries_at: list[TryFacts]
    exit_code: int | None
    signal: int | None
    after_s: float | None
    duration_s: float | None
    cpu_s: float | None
    max_rss_kib: int | None
    outputs: dict[str, Any]
    reason: str | None
    is_hook: bool

    @property
    def end_s(self) -> float | None:
        """How long after the start of the attempt it ended, or is now; None for one that has not begun."""
        return None if self.after_s is None or self.duration_s is None else self.after_s + self.duration_s

    @property
    def max_rss_bytes(self) -> int | None:
        """The most memory that it had."""
        return None if self.max_rss_kib is None else self.max_rss_kib * 1024


def tasks_of(
    events: Sequence[Event], needs: Mapping[str, Sequence[str]], attempt: AttemptFacts, now: datetime
) -> Iterator[TaskFacts]:
    """Yield the tasks of an attempt, each behind one that it needs; `needs` has those of each, in the DAG's order."""
    of: dict[str, list[Event]] = {name: [] for name in needs}
    for event in events:
        of.setdefault(str(event.get("task_id")), []).append(event)
    for name, depth in _in_order(list(of), needs):
        yield _task(name, depth, list(needs.get(name, ())), of[name], attempt, now)


def _in_order(names: Sequence[str], needs: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, int]]:
    """Yield every name once, what needs others behind the first of those, instances behind their mapped task."""
    known = set(names)
    instances: dict[str, list[str]] = {}
    # Of those that need none under None: another hand may have named a task with no letter.
    beneath: dict[str | None, list[str]] = {}
    for name in names:
        match = None if name in needs else _INSTANCE.fullmatch(name)
        if match and match["task"] in known:
            instances.setdefault(match["task"], []).append(name)
        else:
            beneath.setdefault(next((each for each in needs.get(name, ()) if each in known), None), []).append(name)
    left = [(name, 0) for name in reversed(beneath.get(None, []))]
    while left:
        name, depth = left.pop()
        yield name, depth
        below = [*instances.get(name, ()), *beneath.get(name, ())]
        left += [(each, depth + 1) for each in reversed(below)]


def _task(
    name: str, depth: int, needs: list[str], events: Sequence[Event], attempt: AttemptFacts, now: datetime
) -> TaskFacts:
    starts = [each for each in events if each.get("event") == "task_started"]
    last = _last_word(events)
    began_s, started_s = time_of(attempt.started_at), time_of(starts[0].get("timestamp")) if starts else None
    ended_s = time_of(last.get("timestamp")) if last else time_of(attempt.ended_at) or now.timestamp()
    # A task without a process has 0 on record: nothing was measured.
    max_rss_kib = _whole(last.get("max_rss_kib")) or None
    outputs, status = last.get("outputs"), _status(events, last, attempt)
    return TaskFacts(
        task_id=name,
        depth=depth,
        needs=needs,
        status=status,
        tries=len(starts),
        tries_at=list(_tries(events, status, began_s, ended_s)),
        exit_code=_whole(last.get("exit_code")),
        signal=_whole(last.get("signal")),
        after_s=_between(began_s, started_s),
        duration_s=_between(started_s, ended_s),
        cpu_s=_sum(last.get("cpu_user_s"), last.get("cpu_sys_s")) if max_rss_kib else None,
        max_rss_kib=max_rss_kib,
        outputs=outputs if isinstance(outputs, dict) else {},
        reason=_reason(events, last),
        is_hook=any(each.get("hook") is True for each in events),
    )


def _tries(events: Sequence[Event], status: str, began_s: float | None, ended_s: float | None) -> Iterator[TryFacts]:
    """Yield the tries of a task; the one that no event ends is as the task is, and till `ended_s`."""
    start: Event = {}
    for event in events:
        if event.get("event") == "task_started":
            start = event
        elif event.get("event") == "task_finished" and start:
            start_s, end_s = time_of(start.get("timestamp")), time_of(event.get("timestamp"))
            yield TryFacts(str(event.get("status")), _between(began_s, start_s), _between(start_s, end_s))
            start = {}
    if start:
        start_s = time_of(start.get("timestamp"))
        yield TryFacts(status, _between(began_s, start_s), _between(start_s, ended_s))


def _between(start_s: float | None, end_s: float | None) -> float | None:
    return None if start_s is None or end_s is None else round(max(0.0, end_s - start_s), 3)


def _last_word(events: Sequence[Event]) -> Event:
    """Return the event by which the task has ended; none while it runs, or while another try of it is to come."""
    last: Event = {}
    for event in events:
        if event.get("event") in LAST_WORDS:
            last = event
        elif event.get("event") in ("task_started", "task_retried"):
            last = {}
    return last


def _status(events: Sequence[Event], last: Event, attempt: AttemptFacts) -> str:
    """Say how a task is: as it ended; or, in an attempt that is over, that it never did, and began or did not."""
    if last.get("event") == "task_kept":
        return "kept"
    if isinstance(last.get("status"), str):
        return str(last["status"])
    is_started = any(each.get("event") == "task_started" for each in events)
    if _waits_of(events) and attempt.ended_at is None:
        return "waiting"
    if attempt.ended_at is not None:
        return "unfinished" if is_started else "unstarted"
    if events and events[-1].get("event") == "task_retried":
        return "retrying"
    return "running" if is_started else "waiting"


def _waits_of(events: Sequence[Event]) -> Mapping[str, Any]:
    """Return what a task waits for that has begun to wait; empty where it does not."""
    waits = events[-1].get("waits") if events and events[-1].get("event") == "task_started" else None
    return waits if isinstance(waits, dict) else {}


def _reason(events: Sequence[Event], last: Event) -> str | None:
    if last.get("reason"):
        return str(last["reason"])
    waits = _waits_of(events)
    if not waits:
        return None
    if waits.get("kind") == "approval":
        return f"asks: {waits.get('message') or 'for an approval'}"
    return f"waits for run {waits['run']}" if waits.get("run") else "waits for its time"


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _sum(*values: object) -> float | None:
    found = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return round(sum(found), 6) if found else None
