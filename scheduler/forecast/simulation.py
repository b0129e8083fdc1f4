"""The service ahead of time: what it would record, by the code that decides in the service.

Verdicts are the judge's, the order of runs is the run queue's, a further attempt is the request's; all of them see
one history, to which every event is applied as it comes. Only the clock and the workers are played.
"""

from __future__ import annotations

import heapq
import queue
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from scheduler.cancels import Cancels
from scheduler.fire_heap import FireHeap, verdicts_on
from scheduler.history import History
from scheduler.limits import Limits
from scheduler.reload import loaded_events
from scheduler.run_queue import RunQueue
from scheduler.run_timers import RunTimers, timer_events
from scheduler.schedule_model import Schedule
from scheduler.waits import verdicts_on_arrivals
from workers.events import Event, iso
from workers.run_request import RunRequest, cancel_text, next_attempt, run_fields

__all__ = ["Choose", "Ending", "Plan", "play"]

_NEVER = float("inf")
_DAY_S = 86400.0


class Ending(NamedTuple):
    """How an attempt will end unless its `timeout` comes before: after so many seconds, with this status."""

    duration_s: float
    status: str = "success"


Choose = Callable[[RunRequest], Ending]


class Plan(msgspec.Struct, frozen=True):
    """What is played: schedules on so many workers, from `begin` up to and without `until`, nothing open at first.

    `limits` are the pools and tenants of the configuration. In a downtime (from, to) no service is there: workers end
    what they have, and the next service starts at its end. All times are aware.
    """

    schedules: Sequence[Schedule]
    begin: datetime
    until: datetime
    workers: int
    limits: Limits = Limits()
    downtimes: tuple[tuple[datetime, datetime], ...] = ()


def play(plan: Plan, choose: Choose) -> Iterator[tuple[float, list[Event]]]:
    """Yield what the service would record, one turn of its loop after the other, with its seconds since the epoch.

    `choose` says how each attempt ends. What happens at one instant happens in the order of the service's loop: ends
    of runs, verdicts, cancels and deadlines, attempts whose time has come, starts. No file ever comes. The same plan
    and choice give the same events.
    """
    service = _Service(plan, choose)
    while (now_s := service.next_turn_s()) < plan.until.timestamp():
        yield now_s, service.turn(now_s)


class _Service:
    """The played service and its workers, who are numbered from 1."""

    def __init__(self, plan: Plan, choose: Choose) -> None:
        self._plan = plan
        self._choose = choose
        self._history = History()
        self._queue = RunQueue(plan.limits)
        self._timers = RunTimers()
        self._cancels = Cancels(self._history, 0.0)
        self._schedules = {schedule.id: schedule for schedule in plan.schedules}
        self._fires: FireHeap | None = None
        self._free = list(range(1, plan.workers + 1))
        self._ends: list[tuple[float, int, RunRequest, Ending, int]] = []
        self._started = 0
        self._late_reason = "late"
        self._now, self._stamp = plan.begin, ""
        self._events: list[Event] = []
        # When the service starts and stops, the next one last.
        moments = [(plan.begin, True)]
        for stop, start in plan.downtimes:
            moments += [(stop, False), (start, True)]
        self._switches = sorted(((at.timestamp(), is_start) for at, is_start in moments), reverse=True)
        self._settled_s = plan.begin.timestamp()

    def next_turn_s(self) -> float:
        """Return when there is something to do next; infinity when never."""
        next_s = self._switches[-1][0] if self._switches else _NEVER
        if self._ends:
            next_s = min(next_s, self._ends[0][0])
        if self._fires is not None:
            due = (self._fires.next_s(), self._queue.next_wake(), self._timers.next_wake())
            next_s = min(next_s, *(_NEVER if at_s is None else at_s for at_s in due))
        return next_s

    def turn(self, now_s: float) -> list[Event]:
        """Do what is due at this moment; return what was recorded."""
        self._now, self._events = datetime.fromtimestamp(now_s, UTC), []
        self._stamp = iso(self._now)
        while self._ends and self._ends[0][0] <= now_s:
            self._end(*heapq.heappop(self._ends)[2:])
        while self._switches and self._switches[-1][0] <= now_s:
            if self._switches.pop()[1]:
                self._start_service()
            else:
                self._fires = None
        if self._fires is not None:
            self._tick(self._fires, now_s)
            self._close(now_s)
            self._dispatch(now_s)
            # The service's next turn, at once: what the ends of this one have brought.
            while self._follow():
                self._close(now_s)
                self._dispatch(now_s)
        if now_s - self._settled_s >= _DAY_S:
            self._settle(now_s)
        return self._events

    def _start_service(self) -> None:
        """Begin as the service does: its configuration on record, its queue refilled from the history."""
        limits = self._plan.limits
        loaded = [] if limits == self._history.limits else [{"event": "limits_loaded", **limits.as_event()}]
        for event in [*loaded, *loaded_events(self._history, self._plan.schedules, self._now)]:
            self._record(event)
        runs = self._history.runs.values()
        self._queue, self._timers, self._cancels = RunQueue(limits), RunTimers(), Cancels(self._history, 0.0)
        self._queue.load(runs)
        self._timers.load(runs)
        self._cancels.load(runs)
        self._fires = FireHeap(self._plan.schedules, self._history, self._now)
        self._late_reason = "down"

    def _tick(self, fires: FireHeap, now_s: float) -> None:
        fire_s = fires.next_s()
        if fire_s is not None and fire_s <= now_s:
            with fires.taking(self._now) as taken:
                for event in verdicts_on(taken, self._now, self._history, self._late_reason):
                    self._record(event)
        self._follow()
        self._late_reason = "late"

    def _follow(self) -> bool:
        """Judge what has come by ends of runs; say whether there was any."""
        verdicts = verdicts_on_arrivals(self._schedules, self._history, (), self._now)
        for event in verdicts:
            self._record(event)
        return bool(verdicts)

    def _close(self, now_s: float) -> None:
        """End what was cancelled, at once where it runs; close what is too late to start; tell of deadlines."""
        if self._cancels.is_pending():
            for end in list(self._cancels.ends()):
                self._record(end)
            ended = {request["run_id"] for _, _, request, _, _ in self._ends if self._is_cancelled(request)}
            stopped = [each for each in self._ends if each[2]["run_id"] in ended]
            self._ends = [each for each in self._ends if each[2]["run_id"] not in ended]
            heapq.heapify(self._ends)
            for start_s, _, request, ending, worker in sorted(stopped):
                lasted_s = now_s - (start_s - ending.duration_s)
                self._end(request, Ending(lasted_s, "cancelled"), worker)
        due = self._timers.due(now_s)
        for event in list(timer_events(self._history, due, self._now)):
            self._record(event)
        self._timers.drop(due)

    def _is_cancelled(self, request: RunRequest) -> bool:
        run = self._history.runs.get(request["run_id"])
        return run is not None and run.cancel is not None

    def _dispatch(self, now_s: float) -> None:
        self._queue.wake(now_s)
        while self._free:
            try:
                request = self._queue.get_nowait()
            except queue.Empty:
                return
            run = self._history.runs.get(request["run_id"])
            is_due = self._history.is_waiting(request["run_id"], request["attempt"])
            if is_due and run is not None and run.cancel is None:
                self._start(request, now_s)
            else:
                self._queue.forget(request)

    def _start(self, request: RunRequest, now_s: float) -> None:
        worker = heapq.heappop(self._free)
        self._record({"event": "run_started", **run_fields(request), "pid": worker})
        ending = self._choose(request)
        limit_s = request.get("timeout_s")
        if limit_s is not None and limit_s < ending.duration_s:
            ending = Ending(limit_s, "timeout")
        self._started += 1
        heapq.heappush(self._ends, (now_s + ending.duration_s, self._started, request, ending, worker))

    def _end(self, request: RunRequest, ending: Ending, worker: int) -> None:
        heapq.heappush(self._free, worker)
        end: Event = {"event": "run_finished", **run_fields(request), "status": ending.status}
        end |= {"duration_s": ending.duration_s, "pid": worker}
        if ending.status == "cancelled":
            end["reason"] = cancel_text(self._history.runs[request["run_id"]].cancel or {})
        if ending.status != "success":
            end |= next_attempt(request, ending.status, self._now)
        self._record(end)

    def _record(self, event: Event) -> None:
        event["timestamp"] = self._stamp
        self._history.apply(event)
        self._queue.follow(event, self._history.runs.get(event.get("run_id", "")))
        self._timers.follow(event)
        self._cancels.follow(event)
        self._events.append(event)

    def _settle(self, now_s: float) -> None:
        """Fold what was judged into ranges, as a rotation of the log does: memory stays with what is going on."""
        for name, state in self._history.schedules.items():
            self._history.schedules[name] = state.settle()
        self._settled_s = now_s
