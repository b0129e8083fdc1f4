"""Run timers: the moments at which an open run is too late to start, or to end. Pure: a fold of the log."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from workers.events import Event, iso, time_of
from workers.run_request import cancel_requested, run_fields

from .history import History
from .open_runs import Run

__all__ = ["RunTimers", "Timer", "has_news", "news_events", "timer_events", "unstarted_end"]

_KINDS = ("start_by", "deadline")
_RESUME = "resume"


class Timer(NamedTuple):
    """One moment of a run, in seconds since the epoch: its `start_by`, its `deadline`, or `resume` of a parked one."""

    at_s: float
    run_id: str
    kind: str


class RunTimers:
    """The timers of the open runs, soonest first. `follow` every event that the history has."""

    def __init__(self) -> None:
        self._set: dict[tuple[str, str], float] = {}
        self._heap: list[Timer] = []

    def load(self, runs: Iterable[Run]) -> None:
        """Take the open runs of a history."""
        for run in runs:
            self._take(run.request)
            if run.status == "running" or run.attempt > 1 or run.parked is not None:
                self._set.pop((run.run_id, "start_by"), None)
            if run.status == "parked":
                self._put(run.run_id, _RESUME, (run.parked or {}).get("until"))

    def follow(self, event: Event) -> None:
        """Follow one event of the log."""
        name, run_id = event.get("event"), str(event.get("run_id"))
        if name in ("schedule_enqueued", "run_requested"):
            self._take(event)
        elif name in ("run_started", "run_finished"):
            # Another attempt is not bound to the moment by which the first one had to start.
            self._set.pop((run_id, "start_by"), None)
            if name == "run_finished" and not event.get("next_attempt"):
                self._set.pop((run_id, "deadline"), None)
            self._set.pop((run_id, _RESUME), None)
        elif name == "run_parked":
            self._put(run_id, _RESUME, event.get("until"))
        elif name == "run_resumed":
            self._set.pop((run_id, _RESUME), None)
        elif name == "deadline_missed":
            self._set.pop((run_id, "deadline"), None)

    def next_wake(self) -> float | None:
        """Return the time of the next timer, seconds since the epoch."""
        while self._heap and self._set.get(self._heap[0][1:]) != self._heap[0].at_s:
            heapq.heappop(self._heap)
        return self._heap[0].at_s if self._heap else None

    def due(self, now_s: float) -> list[Timer]:
        """Return the timers whose time has come, in order; they stay until `drop`, or until the log tells of them."""
        if (wake_s := self.next_wake()) is None or wake_s > now_s:
            return []
        return sorted(Timer(at_s, *key) for key, at_s in self._set.items() if at_s <= now_s)

    def drop(self, timers: Collection[Timer]) -> None:
        """Take it that these timers have been dealt with."""
        for timer in timers:
            self._set.pop((timer.run_id, timer.kind), None)

    def _take(self, request: Event) -> None:
        run_id = str(request.get("run_id"))
        for kind in _KINDS:
            if (run_id, kind) not in self._set:
                self._put(run_id, kind, request.get(kind))

    def _put(self, run_id: str, kind: str, moment: object) -> None:
        at_s = time_of(moment)
        if at_s is not None:
            self._set[run_id, kind] = at_s
            heapq.heappush(self._heap, Timer(at_s, run_id, kind))


def timer_events(history: History, timers: Iterable[Timer], now: datetime) -> Iterator[Event]:
    """Yield what the timers that are due demand: the end of what never started, the word of what is not finished."""
    closed = set()
    for timer in timers:
        run = history.runs.get(timer.run_id)
        if run is None or timer.run_id in closed:
            continue
        if timer.kind == "deadline":
            if not run.is_deadline_told:
                yield from _missed(run, now)
        elif timer.kind == _RESUME:
            if run.status == "parked" and not run.is_due:
                yield _resumed(run, "time")
        elif history.is_waiting(run.run_id, 1) and run.parked is None:
            closed.add(run.run_id)
            yield unstarted_end(run, "start_deadline")


def has_news(history: History) -> bool:
    """Say whether something has come that a parked run waits for, or that ends a run of a run."""
    return bool(history.parked.due() or history.children.orphans(history.runs))


def news_events(history: History, gone: Collection[str], only: Collection[str] | None) -> Iterator[Event]:
    """Yield what that demands, but for the runs that are `gone`; of `only` these runs, unless that is None."""
    for run in history.parked.due():
        if run.run_id not in gone and (only is None or run.run_id in only):
            yield _resumed(run, "news")
    for run in history.children.orphans(history.runs):
        if only is None or run.run_id in only:
            yield cancel_requested(run.run_id, "the run that asked for it has ended")


def _resumed(run: Run, reason: str) -> Event:
    return {"event": "run_resumed", **run_fields(run.next_request()), "reason": reason}


def unstarted_end(run: Run, reason: str) -> Event:
    """Return the `run_finished` of an attempt that waits and will not start."""
    return {"event": "run_finished", **run_fields(run.next_request()), "status": "cancelled", "reason": reason}


def _missed(run: Run, now: datetime) -> Iterator[Event]:
    """Yield the `deadline_missed` of a run and, with `on_deadline`, the request for the run that tells of it.

    That one has no `schedule_id`: it is no run of the schedule, and stands in nobody's way.
    """
    request = run.request
    told = {"run_id": run.run_id, "schedule_id": request.get("schedule_id"), "minute": request.get("minute")}
    yield {"event": "deadline_missed", **told, "deadline": request["deadline"]}
    if request.get("on_deadline"):
        offered = {"run_id": run.run_id, "schedule_id": run.schedule_id, "fire_time": request.get("minute") or ""}
        yield {
            "event": "run_requested",
            "run_id": f"{run.run_id}.deadline",
            "attempt": 1,
            "minute": iso(now.astimezone(UTC)),
            "dag": request["on_deadline"],
            "project": request.get("project"),
            "tenant": request.get("tenant"),
            "params": {},
            "offered": offered,
            "for_run": run.run_id,
        }
