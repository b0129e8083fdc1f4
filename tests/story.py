"""A history that could have been: the real ticker, fold and log, with the clock, the services and the workers played.

It is for tests that need a long and varied log at once. Its effects are what the tasks would have written.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import time_machine

from scheduler.cancels import Cancels
from scheduler.history import Run
from scheduler.limits import Limits
from scheduler.matrix import expand
from scheduler.reload import record_configuration
from scheduler.run_timers import RunTimers, timer_events
from scheduler.schedule_rules import schedule_from
from scheduler.schedules import Configuration
from scheduler.state_store import StateStore
from scheduler.ticker import Ticker
from workers.event_log import EventLog
from workers.run_request import cancel_text, next_attempt, run_fields

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BAD = {"failed": "failed", "timeout": "cancelled", "cancelled": "cancelled"}


class Story:
    """A log at `path` in which minutes pass when they are told to."""

    def __init__(self, path: Path, *, seed: int = 1, workers: int = 4, start: datetime = START) -> None:
        self.now = start
        self.store = StateStore(EventLog(path, fsync="off"))
        self._timers, self._cancels = RunTimers(), Cancels(self.store.history, 0.0)
        self.store.follow(self._timers.follow)
        self.store.follow(self._cancels.follow)
        self.effects: list[str] = []
        self.workers = workers
        self.limits = Limits()
        self._random = random.Random(seed)
        self._supervisor = 500
        self._worker_pids = list(range(1000, 1000 + workers))
        self._ticker: Ticker | None = None

    def clock(self) -> AbstractContextManager[Any]:
        """Let the wall clock show the story's time."""
        return time_machine.travel(self.now, tick=False)

    def record(self, name: str, **fields: Any) -> None:
        """Append an event of the service."""
        with self.clock():
            self.store.commit(lambda _: [{"event": name, "pid": self._supervisor, **fields}])

    def begin(self, *entries: dict[str, Any]) -> None:
        """Start a service with these schedules; it goes on from the log."""
        self._supervisor += 1
        self.store.refresh()
        facts = {"starttime": 1, "boot_id": "another boot", "max_parallel": self.workers, "tick_ms": 1000}
        self.record("supervisor_started", **facts, dir="schedules")
        self.load(*entries)

    def load(self, *entries: dict[str, Any]) -> None:
        """Take other schedules."""
        read = [schedule_from({"dag": "dags/d.yaml", **entry}) for entry in entries]
        schedules = [each for schedule in read for each in expand(schedule)]
        configuration = Configuration("schedules", schedules, [], (), (), limits=self.limits)
        with self.clock(), self._as_supervisor():
            record_configuration(self.store, configuration, self.now)
            self._ticker = Ticker(self.store, schedules, self.now)

    def stop(self) -> None:
        """End what runs, and the service in order."""
        self._end_runs(lambda _: True)
        self.record("supervisor_stopped")
        self._ticker = None

    def die(self) -> None:
        """Kill the service and its workers; the next one closes their runs."""
        self._ticker = None

    def recover(self) -> None:
        """Close the runs whose worker is gone."""
        for run in [run for run in self.store.history.runs.values() if run.status == "running"]:
            self._finish(run, "crashed")

    def set_clock(self, to: datetime) -> None:
        """Set the wall clock, under the eyes of the service."""
        assert self._ticker
        was, self.now = self.now, to
        facts = {"from": was.isoformat(), "to": to.isoformat(), "jump_s": (to - was).total_seconds()}
        self.record("clock_jumped", **facts)
        self._ticker.resume(to)

    def live(self, minutes: int) -> None:
        """Let minutes pass: tick, start what may start, end some of what runs."""
        assert self._ticker
        for _ in range(minutes):
            with self.clock(), self._as_supervisor():
                self._ticker.tick(self.now)
            self.pass_time(1)
            self.start_runs()
            self.pass_time(29)
            self._end_runs(lambda _: self._random.random() < 0.7)
            self.start_runs()
            self.pass_time(30)

    def drain(self) -> None:
        """Start and end all that waits, a minute at a time."""
        while self.store.history.runs:
            self.start_runs()
            self.pass_time(60)
            self._end_runs(lambda _: True)
            if self._ticker is not None:
                with self.clock(), self._as_supervisor():
                    self._ticker.follow(self.now)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with all that its timers demand on the way; cancel what is to be cancelled first."""
        end = self.now + timedelta(seconds=seconds)
        self.keep_time()
        while (wake_s := self._timers.next_wake()) is not None and wake_s <= end.timestamp():
            self.now = max(self.now, datetime.fromtimestamp(wake_s, UTC))
            self.keep_time()
        self.now = end

    def keep_time(self) -> None:
        """Close what was cancelled or is too late to start, and tell of deadlines that have passed."""
        due = self._timers.due(self.now.timestamp())
        with self.clock(), self._as_supervisor():
            self.store.commit(lambda _: list(self._cancels.ends()))
            self.store.commit(lambda history: list(timer_events(history, due, self.now)))
        self._timers.drop(due)
        if due or any(run.cancel is not None for run in self.store.history.runs.values()):
            self._end_runs(lambda run: run.cancel is not None)
            self.start_runs()

    def rotate(self) -> None:
        """Begin a new segment, if there is news for one."""
        with self.clock(), self._as_supervisor():
            self.store.rotate(1)

    def ask(self, run_id: str) -> None:
        """Ask for a run as another process does."""
        with self.clock():
            asked = {"event": "run_requested", "run_id": run_id, "attempt": 1, "dag": "dags/d.yaml", "pid": 77}
            self.store.commit(lambda _: [asked])

    def start_runs(self) -> None:
        """Give waiting runs to free workers, in their order."""
        history = self.store.history
        for run in list(history.runs.values()):
            busy = {each.start["pid"] for each in history.runs.values() if each.start}
            free = [pid for pid in self._worker_pids if pid not in busy]
            until = [run.retry_at, run.request.get("not_before")]
            late = any(moment and datetime.fromisoformat(moment) > self.now for moment in until)
            older = [each.run_id for each in history.open_runs(run.schedule_id)] if run.schedule_id else []
            held = run.request.get("overlap") in ("queue", "replace") and older[0] != run.run_id
            if free and run.status == "queued" and not late and not held and self._has_slots(run):
                self._start(run, free[0])

    def _has_slots(self, run: Run) -> bool:
        limits, others = self.limits, [each for each in self.store.history.runs.values() if each.status == "running"]
        used = sum(each.request.get("pool") == run.request.get("pool") for each in others)
        had = sum(each.request.get("tenant") == run.request.get("tenant") for each in others)
        most = limits.max_parallel(run.request.get("tenant", "default"))
        return used < limits.pools.get(run.request.get("pool", ""), 99) and had < (most or 99)

    def _start(self, run: Run, pid: int) -> None:
        request = run.next_request()
        started = {"event": "run_started", **run_fields(request), "pid": pid, "starttime": pid, "boot_id": "b"}
        with self.clock():
            self.store.commit(lambda _: [started])
        self.effects.append(f"{run.run_id} {run.attempt}")

    def _end_runs(self, is_over: Callable[[Run], bool]) -> None:
        for run in [run for run in self.store.history.runs.values() if run.status == "running"]:
            if is_over(run) and run.cancel is not None:
                self._finish(run, "cancelled")
            elif is_over(run):
                self._finish(run, self._random.choices(["success", "failed", "timeout", "crashed"], [8, 2, 1, 1])[0])

    def _finish(self, run: Run, status: str) -> None:
        request, pid = run.next_request(), run.start["pid"] if run.start else 0
        end = {"event": "run_finished", **run_fields(request), "status": status, "pid": pid}
        if status == "crashed":
            end |= {"pid": self._supervisor, "reason": f"worker {pid} was killed by SIGKILL"}
            self.record("worker_exited", worker_pid=pid, reason=end["reason"], run_id=run.run_id)
            self._worker_pids[self._worker_pids.index(pid)] = max(self._worker_pids) + 1
        else:
            reason = None if status == "success" else f"task `t`: {status}"
            reason = cancel_text(run.cancel) if run.cancel and status == "cancelled" else reason
            end |= {"reason": reason, "duration_s": 1.0, "tasks": {BAD.get(status, "success"): 1}}
        with self.clock():
            self.store.commit(lambda _: [{**end, **next_attempt(request, status, self.now)}])

    def _as_supervisor(self) -> AbstractContextManager[Any]:
        """Let what the ticker appends carry the pid of the service."""
        return _Pid(self.store.log, self._supervisor)


class _Pid:
    """Stamps the events of a log with another pid for a while."""

    def __init__(self, log: EventLog, pid: int) -> None:
        self._segment, self._pid = log._active, pid

    def __enter__(self) -> None:
        self._before, self._segment._pid = self._segment._pid, self._pid

    def __exit__(self, *_: object) -> None:
        self._segment._pid = self._before
