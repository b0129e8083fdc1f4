"""History: the fold of the state log into the open runs and what has been judged of each schedule.

Only open runs are kept, so memory follows what is going on and not what has happened. A finished run's facts are in
the log. Unknown events are passed over: a log may be older or newer than this code.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from workers.events import Event
from workers.process import Identity

__all__ = ["History", "Run", "ScheduleState", "epoch"]

_SCHEDULES_A_LINE = 200


def epoch(moment: str) -> int:
    """Return an ISO 8601 time of the log as whole seconds since the Unix epoch."""
    return int(datetime.fromisoformat(moment).timestamp())


class Run(msgspec.Struct):
    """An open run: waiting (`queued`) or on a worker (`running`), in its present attempt."""

    request: Event
    attempt: int = 1
    status: str = "queued"
    process: Identity | None = None
    started_at: str | None = None
    retry_at: str | None = None

    @property
    def run_id(self) -> str:
        """The run's id."""
        return str(self.request["run_id"])

    @property
    def schedule_id(self) -> str:
        """The schedule that asked for it."""
        return str(self.request.get("schedule_id") or "")

    def next_request(self) -> Event:
        """Return the request for the present attempt."""
        return {**self.request, "attempt": self.attempt}


class ScheduleState(msgspec.Struct):
    """What has been judged of one schedule; times are whole seconds since the epoch.

    Every fire time up to `watermark` has its verdict. Of those behind `floor` the verdicts are remembered one by one,
    which tells them apart when the clock steps back.
    """

    watermark: int
    floor: int
    judged: set[int] = msgspec.field(default_factory=set)
    missed: list[tuple[int, int]] = msgspec.field(default_factory=list)
    spec: dict[str, Any] = msgspec.field(default_factory=dict)

    def is_judged(self, fire_time: int) -> bool:
        """Say whether this fire time has its verdict."""
        if fire_time <= self.floor or fire_time in self.judged:
            return True
        place = bisect_right(self.missed, (fire_time, fire_time)) - 1
        near = self.missed[max(0, place) : place + 2]
        return any(first <= fire_time <= last for first, last in near)


class History:
    """The fold. `apply` every event in the order of the log."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.runs: dict[str, Run] = {}
        self.schedules: dict[str, ScheduleState] = {}
        self.supervisor: Event | None = None
        self.faults: list[Event] = []
        self.unusable = 0
        self.events_since_checkpoint = 0
        self._open: dict[str, dict[str, None]] = {}
        for event in events:
            self.apply(event)

    def apply(self, event: Event) -> None:
        """Fold one event in; one whose fields cannot be used is counted in `unusable`."""
        self.events_since_checkpoint += 1
        step = _STEPS.get(event.get("event", ""))
        if step is not None:
            try:
                step(self, event)
            except (KeyError, TypeError, ValueError, AttributeError):
                self.unusable += 1

    def open_runs(self, schedule_id: str) -> list[Run]:
        """Return the schedule's open runs, oldest first."""
        return [self.runs[run_id] for run_id in self._open.get(schedule_id, ())]

    def is_judged(self, schedule_id: str, fire_time: datetime) -> bool:
        """Say whether {schedule_id, fire_time} has its verdict."""
        state = self.schedules.get(schedule_id)
        return state is not None and state.is_judged(int(fire_time.timestamp()))

    def watermark(self, schedule_id: str) -> datetime | None:
        """Return the time up to which the schedule has been judged; None when it was never seen."""
        state = self.schedules.get(schedule_id)
        return datetime.fromtimestamp(state.watermark, UTC) if state else None

    def is_waiting(self, run_id: str, attempt: int) -> bool:
        """Say whether this attempt of the run is queued: asked for and not started."""
        run = self.runs.get(run_id)
        return run is not None and run.status == "queued" and run.attempt == attempt

    def is_running(self, run_id: str, attempt: int) -> bool:
        """Say whether this attempt of the run was started and has no end on record."""
        run = self.runs.get(run_id)
        return run is not None and run.status == "running" and run.attempt == attempt

    def checkpoint(self) -> Iterator[Event]:
        """Yield the events from which `apply` rebuilds this state: they open a new segment."""
        if self.supervisor:
            yield {"event": "checkpoint", "supervisor": self.supervisor}
        for run in self.runs.values():
            yield {"event": "checkpoint", "run": msgspec.to_builtins(run)}
        rows = [
            [name, state.watermark, state.watermark, sorted(t for t in state.judged if t > state.watermark), state.spec]
            for name, state in self.schedules.items()
        ]
        for start in range(0, len(rows), _SCHEDULES_A_LINE):
            yield {"event": "checkpoint", "schedules": rows[start : start + _SCHEDULES_A_LINE]}

    # -> queued
    def _enqueued(self, event: Event) -> None:
        self._judge(event)
        self._open_run(Run(event, attempt=int(event.get("attempt") or 1)))

    # queued -> running
    def _started(self, event: Event) -> None:
        run = self.runs.get(event["run_id"])
        if run is None:
            run = Run({name: event.get(name) for name in ("run_id", "schedule_id", "minute", "attempt")})
            self._open_run(run)
        run.status = "running"
        run.attempt = int(event.get("attempt") or 1)
        run.started_at = event["timestamp"]
        run.process = Identity(str(event.get("boot_id")), int(event["pid"]), int(event.get("starttime") or 0))

    # running -> finished, or running -> queued for the next attempt
    def _finished(self, event: Event) -> None:
        run = self.runs.get(event["run_id"])
        if run is None:
            return
        if event.get("next_attempt"):
            run.status, run.attempt, run.process = "queued", int(event["next_attempt"]), None
            run.retry_at = event.get("retry_at")
            return
        del self.runs[run.run_id]
        self._open[run.schedule_id].pop(run.run_id, None)
        if not self._open[run.schedule_id]:
            del self._open[run.schedule_id]

    def _open_run(self, run: Run) -> None:
        self.runs[run.run_id] = run
        self._open.setdefault(run.schedule_id, {})[run.run_id] = None

    def _judge(self, event: Event) -> None:
        if event.get("schedule_id") and event.get("minute"):
            fire_time = epoch(event["minute"])
            state = self._state(event["schedule_id"], fire_time - 1)
            state.judged.add(fire_time)
            state.watermark = max(state.watermark, fire_time)

    def _missed(self, event: Event) -> None:
        first, last = epoch(event["from"]), epoch(event["to"])
        state = self._state(event["schedule_id"], first - 1)
        state.missed.append((first, last))
        state.missed.sort()
        state.watermark = max(state.watermark, last)

    def _state(self, schedule_id: str, before: int) -> ScheduleState:
        state = self.schedules.get(schedule_id)
        if state is None:
            state = self.schedules[schedule_id] = ScheduleState(watermark=before, floor=min(before, 0))
        return state

    def _loaded(self, event: Event) -> None:
        """A schedule that is new or edited starts at `since`; what was judged stays judged."""
        since = epoch(event["since"])
        for schedule_id, spec in event["specs"].items():
            state = self._state(schedule_id, since)
            state.spec = spec
            state.watermark = max(state.watermark, since)
        for schedule_id in event.get("removed", ()):
            if schedule_id in self.schedules:
                self.schedules[schedule_id].spec = {}
        self.faults = []

    def _invalid(self, event: Event) -> None:
        if self.faults and self.faults[0].get("load") != event.get("load"):
            self.faults = []
        self.faults.append(event)

    def _clock_jumped(self, event: Event) -> None:
        """After a step back every schedule goes on from the new time.

        What was enqueued or skipped stays judged; what only a wrong clock had called missed may still come.
        """
        since = epoch(event["to"]) - 1
        for state in self.schedules.values():
            state.watermark = min(state.watermark, since)
            state.missed = [(first, min(last, since)) for first, last in state.missed if first <= since]

    def _supervisor_started(self, event: Event) -> None:
        self.supervisor = event

    def _supervisor_stopped(self, event: Event) -> None:
        if self.supervisor and self.supervisor.get("pid") == event.get("pid"):
            self.supervisor = None

    def _segment_started(self, _: Event) -> None:
        self.events_since_checkpoint = 0

    def _checkpoint(self, event: Event) -> None:
        self.events_since_checkpoint -= 1
        if event.get("run"):
            self._open_run(msgspec.convert(event["run"], Run))
        if event.get("supervisor"):
            self.supervisor = event["supervisor"]
        for name, watermark, floor, judged, spec in event.get("schedules", ()):
            self.schedules[name] = ScheduleState(watermark, floor, set(judged), [], spec)


_STEPS: dict[str, Callable[[History, Event], None]] = {
    "schedule_enqueued": History._enqueued,
    "run_requested": History._enqueued,
    "schedule_skipped": History._judge,
    "schedule_missed": History._missed,
    "run_started": History._started,
    "run_finished": History._finished,
    "schedules_loaded": History._loaded,
    "schedule_invalid": History._invalid,
    "clock_jumped": History._clock_jumped,
    "supervisor_started": History._supervisor_started,
    "supervisor_stopped": History._supervisor_stopped,
    "segment_started": History._segment_started,
    "checkpoint": History._checkpoint,
}
