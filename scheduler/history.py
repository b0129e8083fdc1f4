"""History: the fold of the state log into the open runs and what has been judged of each schedule.

Only open runs are kept, so memory follows what is going on and not what has happened. A finished run's facts are in
the log. Unknown events are passed over: a log may be older or newer than this code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from workers.events import Event, Second
from workers.process_id import recorded_identity

from .arrivals import Arrivals
from .backfills import Backfills
from .checkpoint import RUN_PARTS, checkpoint_lines, restore_part, run_of, states_of
from .event_lines import in_lines
from .limits import Limits
from .open_runs import Run, epoch, number
from .parked_runs import ChildRuns, ParkedRuns
from .pauses import Pauses
from .verdicts import ScheduleState, calendar_of

__all__ = ["History", "Run", "ScheduleState", "epoch"]

_MOST_FAULTS = 200


class History:
    """The fold. `apply` every event in the order of the log."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.runs: dict[str, Run] = {}
        self.schedules: dict[str, ScheduleState] = {}
        self.supervisor: Event | None = None
        self.faults: list[Event] = []
        self.limits = Limits()
        self.calendars: dict[str, dict[str, Any]] = {}
        self.arrivals = Arrivals()
        self.pauses = Pauses()
        self.backfills = Backfills()
        self.parked = ParkedRuns()
        self.children = ChildRuns()
        self.drain: Event | None = None
        self.unusable = 0
        self.events_since_checkpoint = 0
        self._open: dict[str, dict[str, None]] = {}
        for event in events:
            self.apply(event)

    def apply(self, event: Event) -> None:
        """Fold one event in; one whose fields cannot be used is counted in `unusable`."""
        self.events_since_checkpoint += 1
        try:
            step = _STEPS.get(event["event"])
            if step is not None:
                step(self, event)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
            self.unusable += 1

    def open_runs(self, schedule_id: str) -> list[Run]:
        """Return the schedule's open runs, oldest first."""
        return [self.runs[run_id] for run_id in self._open.get(schedule_id, ())]

    def is_judged(self, schedule_id: str, fire_time: datetime) -> bool:
        """Say whether {schedule_id, fire_time} has its verdict."""
        state = self.schedules.get(schedule_id)
        return state is not None and state.is_judged(int(fire_time.timestamp()))

    def without_verdict(self, schedule_id: str, fires: Sequence[datetime]) -> Sequence[datetime]:
        """Return those of the fire times (ascending, in UTC) that have no verdict yet."""
        state = self.schedules.get(schedule_id)
        if state is None or not fires or int(fires[0].timestamp()) > state.latest:
            return fires
        return [fire for fire in fires if not state.is_judged(int(fire.timestamp()))]

    def judged_until(self, schedule_id: str, now: datetime) -> datetime | None:
        """Return the time up to which the schedule has been judged.

        None when it was never seen, and when nothing but later times was judged: the clock was set back.
        """
        state = self.schedules.get(schedule_id)
        if state is None:
            return None
        # Where the clock is past all it has seen, what it did when it was set back is no longer of interest.
        until = state.latest if state.latest <= now.timestamp() else state.watermark
        return datetime.fromtimestamp(until, UTC) if until <= now.timestamp() else None

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
        if self.limits != Limits():
            yield {"event": "checkpoint", "limits": self.limits.as_event()}
        used = {calendar_of(state.spec) for state in self.schedules.values()}
        self.calendars = {name: record for name, record in self.calendars.items() if name in used}
        for records in in_lines(self.calendars.items()):
            yield {"event": "checkpoint", "calendars": dict(records)}
        for rows in in_lines(msgspec.to_builtins(self.pauses.rows())):
            yield {"event": "checkpoint", "pauses": rows}
        if self.drain is not None:
            yield {"event": "checkpoint", "drain": self.drain}
        yield from checkpoint_lines(self.supervisor, self.faults, self.runs.values(), self.schedules)
        yield from self.backfills.rows()
        for rows in in_lines(self.arrivals.rows()):
            yield {"event": "checkpoint", "arrivals": rows}

    # -> queued
    def _enqueued(self, event: Event) -> None:
        run_id, schedule_id = event["run_id"], event.get("schedule_id") or ""
        if run_id in self.runs:
            return
        attempt = number(event.get("attempt") or 1)
        if not type(run_id) is type(schedule_id) is str:
            raise TypeError
        if schedule_id and event.get("minute") and not event.get("retry_of"):
            self._judge(event)
        self._open_run(Run(run_id, schedule_id, event, attempt))
        if event.get("backfill") and attempt == 1:
            self.backfills.ask(run_id, event, epoch(event["minute"]))

    # queued -> running
    def _started(self, event: Event) -> None:
        run_id, schedule_id = event["run_id"], event.get("schedule_id") or ""
        attempt = number(event.get("attempt") or 1)
        if not type(run_id) is type(schedule_id) is type(event["timestamp"]) is str:
            raise TypeError
        recorded_identity(event)
        run = self.runs.get(run_id)
        if run is None:
            request = {name: event.get(name) for name in ("run_id", "schedule_id", "minute", "attempt")}
            run = Run(run_id, schedule_id, request)
            self._open_run(run)
        self.parked.remove(run)
        run.status, run.attempt, run.start, run.resumed = "running", attempt, event, None

    # running -> parked
    def _parked(self, run: Run, event: Event) -> None:
        if event.get("attempt", run.attempt) == run.attempt and run.start is not None:
            _check_moment(event.get("until"))
            self.parked.park(run, event)

    # running -> finished, or running -> queued for the next attempt
    def _finished(self, event: Event) -> None:
        run = self.runs.get(event["run_id"])
        if run is None or event.get("attempt", run.attempt) != run.attempt:
            return
        if event.get("next_attempt"):
            attempt, retry_at = number(event["next_attempt"]), event.get("retry_at")
            _check_moment(retry_at)
            self.parked.remove(run)
            run.status, run.attempt, run.retry_at, run.start = "queued", attempt, retry_at, None
            run.parked, run.resumed, run.is_due, run.questions = None, None, False, {}
            self.children.touch()
            return
        self._close_run(run)
        self.parked.end(run.run_id)
        if run.request.get("backfill"):
            self.backfills.end(run.request["backfill"], run.run_id, str(event.get("status")))
        self.arrivals.end(run.schedule_id, run.run_id, str(event.get("status")), epoch(event["timestamp"]))

    def _close_run(self, run: Run) -> None:
        del self.runs[run.run_id]
        self.parked.remove(run)
        self.children.close(run)
        of_schedule = self._open[run.schedule_id]
        del of_schedule[run.run_id]
        if not of_schedule:
            del self._open[run.schedule_id]

    def _open_run(self, run: Run) -> None:
        if run.schedule_id in self._open:
            self._open[run.schedule_id][run.run_id] = None
        else:
            self._open[run.schedule_id] = {run.run_id: None}
        self.runs[run.run_id] = run
        self._relate(run)

    def _relate(self, run: Run) -> None:
        """Take note of what a run has to do with others."""
        self.children.open(run)
        if run.status == "parked":
            self.parked.add(run)

    def _judge(self, event: Event) -> None:
        if "trigger" in event:
            self.arrivals.judge(event)
            return
        self._state(event["schedule_id"], epoch(event["minute"]) - 1).judge(epoch(event["minute"]))

    def _missed(self, event: Event) -> None:
        first, last = epoch(event["from"]), epoch(event["to"])
        self._state(event["schedule_id"], first - 1).miss(first, last)

    def _state(self, schedule_id: str, before: int) -> ScheduleState:
        if type(schedule_id) is not str:
            raise TypeError
        state = self.schedules.get(schedule_id)
        if state is None:
            state = self.schedules[schedule_id] = ScheduleState(before, before)
        return state

    def _loaded(self, event: Event) -> None:
        """A schedule that is new or fires at other times starts at `since`; what was judged stays judged."""
        since = epoch(event["since"]) if event.get("since") else 0
        specs = msgspec.convert(event["specs"], dict[str, dict[str, Any]])
        for schedule_id, spec in specs.items():
            state = self._state(schedule_id, since)
            state.spec = spec
            state.go_on(since)
        self.arrivals.load(specs)
        for schedule_id in event.get("removed", ()):
            if schedule_id in self.schedules:
                self.schedules[schedule_id].spec = {}
                self.arrivals.load({schedule_id: {}})
        self.faults = []

    def _calendars_loaded(self, event: Event) -> None:
        self.calendars.update(msgspec.convert(event["calendars"], dict[str, dict[str, Any]]))

    def _paused(self, event: Event) -> None:
        until = event.get("until")
        self.pauses.pause(event, epoch(event["timestamp"]), None if until is None else epoch(until))

    def _drain_started(self, event: Event) -> None:
        self.drain = self.drain or event

    def _drain_ended(self, _: Event) -> None:
        self.drain = None

    def _invalid(self, event: Event) -> None:
        if self.faults and self.faults[0].get("load") != event.get("load"):
            self.faults = []
        if len(self.faults) < _MOST_FAULTS:
            self.faults.append(event)

    def _limited(self, event: Event) -> None:
        self.limits = Limits.of_event(event)

    def _clock_jumped(self, event: Event) -> None:
        since = epoch(event["to"]) // 60 * 60 - 1
        for state in self.schedules.values():
            state.set_back(since)

    def _supervisor_started(self, event: Event) -> None:
        recorded_identity(event), epoch(event["timestamp"]), number(event.get("max_parallel") or 0)
        self.supervisor = event

    def _supervisor_stopped(self, event: Event) -> None:
        if self.supervisor and self.supervisor.get("pid") == event.get("pid"):
            self.supervisor = None

    def _segment_started(self, _: Event) -> None:
        self.events_since_checkpoint = 0

    def _checkpoint(self, event: Event) -> None:
        self.events_since_checkpoint -= 1
        if "run" in event:
            run = run_of(event["run"])
            _check_moment(run.retry_at)
            if run.run_id in self.runs:
                self._close_run(self.runs[run.run_id])
            self._open_run(run)
        elif part := next((each for each in RUN_PARTS if each in event), None):
            self._relate(restore_part(self.runs, part, event[part]))
        elif "supervisor" in event:
            self._supervisor_started(event["supervisor"])
        elif "fault" in event:
            self.faults.append(msgspec.convert(event["fault"], dict[str, Any]))
        elif "limits" in event:
            self._limited(event["limits"])
        elif "calendars" in event:
            self._calendars_loaded(event)
        elif "backfill" in event:
            self.backfills.restore(event["backfill"])
        elif "slots" in event:
            self.backfills.restore_slots(event["slots"])
        elif "drain" in event:
            self.drain = msgspec.convert(event["drain"], dict[str, Any])
        for row in event.get("pauses", ()):
            self.pauses.restore(row)
        for row in event.get("arrivals", ()):
            self.arrivals.restore(row)
        self.schedules.update(states_of(event))
        for kind in ("judged", "others"):
            if kind in event:
                name, times = event[kind]
                getattr(self.schedules[name], kind).update(msgspec.convert(times, list[Second]))


def _check_moment(moment: str | None) -> None:
    """Raise what makes an event unusable, where its moment is none: a queue would go by it."""
    if moment is not None:
        epoch(moment)


def _to_run(step: Callable[[History, Run, Event], None]) -> Callable[[History, Event], None]:
    """Return a step that is for the event's run, if that is open."""

    def take(history: History, event: Event) -> None:
        if (run := history.runs.get(event["run_id"])) is not None:
            step(history, run, event)

    return take


_STEPS: dict[str, Callable[[History, Event], None]] = {
    "schedule_enqueued": History._enqueued,
    "run_requested": History._enqueued,
    "schedule_skipped": History._judge,
    "schedule_missed": History._missed,
    "run_started": History._started,
    "run_finished": History._finished,
    "run_parked": _to_run(History._parked),
    "run_resumed": _to_run(lambda history, run, event: history.parked.resume(run, event)),
    "approval_requested": _to_run(lambda _, run, event: run.ask(event)),
    "task_approved": _to_run(lambda history, run, event: history.parked.answer(run, event)),
    "task_rejected": _to_run(lambda history, run, event: history.parked.answer(run, event)),
    "cancel_requested": _to_run(lambda _, run, event: run.take_cancel(event)),
    "deadline_missed": _to_run(lambda _, run, event: run.tell_deadline()),
    "schedules_loaded": History._loaded,
    "calendars_loaded": History._calendars_loaded,
    "schedule_invalid": History._invalid,
    "limits_loaded": History._limited,
    "schedule_paused": History._paused,
    "schedule_resumed": lambda history, event: history.pauses.resume(event, epoch(event["timestamp"])),
    "drain_started": History._drain_started,
    "drain_ended": History._drain_ended,
    "run_bumped": _to_run(lambda _, run, event: run.bump(event)),
    "backfill_requested": lambda history, event: history.backfills.request(event),
    "backfill_cancelled": lambda history, event: history.backfills.cancel(event),
    "backfill_finished": lambda history, event: history.backfills.finish(event),
    "clock_jumped": History._clock_jumped,
    "supervisor_started": History._supervisor_started,
    "supervisor_stopped": History._supervisor_stopped,
    "segment_started": History._segment_started,
    "checkpoint": History._checkpoint,
}
