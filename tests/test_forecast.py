"""The forecast decides as the service does: the same verdicts and the same order of starts, on the same durations."""

from __future__ import annotations

import heapq
import queue
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import time_machine
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.cancels import Cancels
from scheduler.durations import Durations
from scheduler.forecast import Choose, Ending, Outcome, Plan, drawn_from, play, simulate
from scheduler.forecast.choice import length_at
from scheduler.judge import due
from scheduler.limits import Limits, Tenant
from scheduler.matrix import expand
from scheduler.reload import record_configuration
from scheduler.run_queue import RunQueue
from scheduler.run_timers import RunTimers, timer_events
from scheduler.schedule_rules import schedule_from
from scheduler.schedules import Configuration
from scheduler.state_store import StateStore
from scheduler.ticker import Ticker
from workers.event_log import EventLog
from workers.events import Event
from workers.run_request import RunRequest, cancel_text, next_attempt, run_fields
from workers.segments import LogReader

MIDNIGHT = datetime(2026, 10, 12, tzinfo=UTC)
STEP_S = 20
VERDICTS = ("schedule_enqueued", "schedule_skipped", "schedule_missed")


def plan_of(*entries: dict[str, Any], days: float = 1, workers: int = 2, **fields: Any) -> Plan:
    read = [schedule_from({"dag": "dags/d.yaml", **entry}) for entry in entries]
    schedules = [each for schedule in read for each in expand(schedule)]
    return Plan(schedules, MIDNIGHT, MIDNIGHT + timedelta(days=days), workers, **fields)


def lasting(seconds: float) -> Choose:
    return lambda _: Ending(seconds)


def dice(request: RunRequest) -> Ending:
    """Return what a run's name says: lengths on the grid of the live service's steps, a failure now and then."""
    number = crc32(f"{request['run_id']}:{request['attempt']}".encode())
    status = "failed" if number % 11 == 0 else "success"
    return Ending(float(STEP_S * (1 + number // 11 % 25)), status)


def events_of(plan: Plan, choose: Choose) -> list[Event]:
    return [event for _, events in play(plan, choose) for event in events]


# -- the live service --------------------------------------------------------------------------------------------------


class Live:
    """The service's own store, log, ticker and run queue on a clock that goes by steps, with workers that sleep."""

    def __init__(self, log: Path, plan: Plan, choose: Choose) -> None:
        self._log, self._plan, self._choose = log, plan, choose
        self._work: list[tuple[float, int, RunRequest, Ending]] = []
        self._count = 0
        self._workers = EventLog(log, fsync="off")
        self._store: StateStore | None = None

    def run(self) -> list[Event]:
        """Live through the plan; return what is on record."""
        now = self._plan.begin
        with time_machine.travel(now, tick=False) as clock:
            while now < self._plan.until:
                self._step(now)
                now = self._next(now)
                clock.move_to(now)
        self._stop()
        self._workers.close()
        reader = LogReader(self._log, from_start=True)
        try:
            return reader.read()
        finally:
            reader.close()

    def _next(self, now: datetime) -> datetime:
        """Return the next step, or what comes before it: an end of a run, or something that was due at a time."""
        times = [now.timestamp() // STEP_S * STEP_S + STEP_S, self._work[0][0] if self._work else None]
        if self._store is not None:
            times += [self._queue.next_wake(), self._timers.next_wake()]
        return datetime.fromtimestamp(min(at for at in times if at is not None), UTC)

    def _step(self, now: datetime) -> None:
        while self._work and self._work[0][0] <= now.timestamp():
            _, _, request, ending = heapq.heappop(self._work)
            self._end(request, ending.status, now, duration_s=ending.duration_s)
        if any(stop <= now < start for stop, start in self._plan.downtimes):
            self._stop()
            return
        if self._store is None:
            self._start(now)
        assert self._store
        self._store.refresh()
        self._ticker.tick(now, self._late_reason)
        self._late_reason = "late"
        self._dispatch(now)
        while self._ticker.follow(now):
            self._dispatch(now)

    def _dispatch(self, now: datetime) -> None:
        self._close(now)
        self._queue.wake(now.timestamp())
        while len(self._work) < self._plan.workers and self._hand_out(now):
            pass

    def _end(self, request: RunRequest, status: str, now: datetime, **fields: Any) -> None:
        end = {"event": "run_finished", **run_fields(request), "status": status, **fields}
        self._workers.append(end | next_attempt(request, status, now))

    def _close(self, now: datetime) -> None:
        """Do as the dispatcher does, and as the worker that gets a signal."""
        store, due = self._store, self._timers.due(now.timestamp())
        assert store
        store.commit(lambda _: list(self._cancels.ends()))
        cancelled = {name: run.cancel for name, run in store.history.runs.items() if run.cancel is not None}
        for each in sorted(each for each in self._work if each[2]["run_id"] in cancelled):
            self._work.remove(each)
            reason = cancel_text(cancelled[each[2]["run_id"]] or {})
            lasted_s = now.timestamp() - (each[0] - each[3].duration_s)
            self._end(each[2], "cancelled", now, reason=reason, duration_s=lasted_s)
        heapq.heapify(self._work)
        store.refresh()
        store.commit(lambda history: list(timer_events(history, due, now)))
        self._timers.drop(due)

    def _start(self, now: datetime) -> None:
        store = self._store = StateStore(EventLog(self._log, fsync="off"))
        store.refresh()
        self._queue = RunQueue(self._plan.limits)
        self._timers, self._cancels = RunTimers(), Cancels(store.history, 0.0)
        for part in (self._queue, self._timers, self._cancels):
            part.load(store.history.runs.values())
        store.follow(lambda event: self._queue.follow(event, store.history.runs.get(str(event.get("run_id")))))
        store.follow(self._timers.follow)
        store.follow(self._cancels.follow)
        limits = self._plan.limits
        record_configuration(store, Configuration("s", list(self._plan.schedules), [], (), (), limits=limits), now)
        self._ticker = Ticker(store, self._plan.schedules, now)
        self._late_reason = "down"

    def _stop(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _hand_out(self, now: datetime) -> bool:
        try:
            request = self._queue.get_nowait()
        except queue.Empty:
            return False
        started = {"event": "run_started", **run_fields(request), "pid": 1, "starttime": 1, "boot_id": "b"}
        self._workers.append(started)
        assert self._store
        self._store.refresh()
        limit_s, ending = request.get("timeout_s"), self._choose(request)
        if limit_s is not None and limit_s < ending.duration_s:
            ending = Ending(limit_s, "timeout")
        self._count += 1
        heapq.heappush(self._work, (now.timestamp() + ending.duration_s, self._count, request, ending))
        return True


def told(events: list[Event]) -> list[tuple[Any, ...]]:
    """Return verdicts, starts and ends as they follow each other, in what was decided."""
    keys = ("event", "schedule_id", "minute", "run_id", "attempt", "reason", "open_run", "from", "to", "count")
    keys += ("catchup", "status", "next_attempt", "retry_at", "by", "deadline", "start_by", "not_before", "waiting")
    names = (*VERDICTS, "run_started", "run_finished", "schedules_loaded", "limits_loaded")
    names += ("run_requested", "cancel_requested", "deadline_missed")
    return [tuple(event.get(key) for key in keys) for event in events if event["event"] in names]


VARIED = [
    {"id": "often", "cron": "*/5 * * * *", "overlap": "skip"},
    {"id": "queued", "cron": "*/7 * * * *", "overlap": "queue", "catchup": "all", "catchup_window": "2h"},
    {"id": "both", "cron": "*/10 * * * *", "overlap": "allow", "catchup": "all"},
    {"id": "hourly", "cron": "17 * * * *", "catchup": "latest", "retries": {"max": 2, "delay": "40s"}},
    {"id": "paris", "cron": "30 2 * * *", "timezone": "Europe/Paris", "catchup": "latest", "catchup_window": "6h"},
    {"id": "sydney", "cron": "*/30 1-4 * * *", "timezone": "Australia/Sydney", "overlap": "queue"},
    {"id": "short", "cron": "3,33 * * * *", "timeout": "2m", "retries": {"max": 1, "delay": "5m"}, "overlap": "queue"},
    {"id": "every", "cron": "@every 35m", "timezone": "America/New_York", "overlap": "allow"},
    {"id": "hashed", "cron": "H H * * MON-FRI", "catchup": "latest"},
    {"id": "off", "cron": "* * * * *", "enabled": False},
]
LATE = {"start_deadline": "6m", "deadline": "8m", "on_deadline": "dags/page.yaml"}
POLICIES = [
    {"id": "replaced", "cron": "*/12 * * * *", "overlap": "replace", "priority": 5},
    {"id": "bounded", "cron": "*/8 * * * *", "overlap": "queue", "max_queued": 1, "pool": "small", **LATE},
    {"id": "spread", "cron": ["11 * * * *", "0 5 * * MON"], "jitter": "3m", "deadline": "5m", "priority": -20},
    {"id": "period", "every": "25m", "at": ["2026-10-20T10:00:20Z"], "overlap": "allow", "tenant": "other"},
    {"id": "grid", "cron": "45 */2 * * *", "matrix": {"n": [1, 2, 3]}, "pool": "small"},
    {"id": "some", "cron": "*/15 * * * *", "catchup": "all", "overlap": "allow", "catchup_max": 3, "tenant": "other"},
    {"id": "follows", "after": ["often", {"schedule": "both", "status": "any"}], "overlap": "queue", "max_queued": 3},
    {"id": "pages", "after": {"schedule": "queued", "status": "failed"}, "start_deadline": "20m"},
    {"id": "closed", "cron": "*/20 * * * *", "blackout": {"cron": "5 */3 * * *", "duration": "50m", "then": "defer"}},
]
PARIS = {"timezone": "Europe/Paris"}
HOLIDAYS = [
    {"id": "works", "cron": "30 */3 * * *", **PARIS, "calendar": {"country": "FR"}, "catchup": "latest"},
    {"id": "moved", "cron": "20 8,20 * * *", **PARIS, "calendar": {"country": "ES", "on_holiday": "next_business_day"}},
    {"id": "third", "cron": "35 * * * *", "calendar": {"market": "NYSE", "business_day": [3, -1]}, "overlap": "queue"},
]
LIMITS = Limits(pools={"small": 1}, tenants={"other": Tenant(max_parallel=2, weight=2)})


@pytest.mark.timeout(600)  # a month takes its time on a busy machine
@pytest.mark.parametrize("workers", [2, 6])
def test_a_month_is_forecast_event_by_event_as_the_service_lives_it(tmp_path: Path, workers: int) -> None:
    at = MIDNIGHT + timedelta(seconds=40)
    downtimes = tuple(
        (at + timedelta(days=day, minutes=minutes), at + timedelta(days=day, minutes=minutes + length))
        for day, minutes, length in ((3, 100, 3), (9, 700, 55), (13, 55, 200), (20, 0, 1500))
    )
    # The clocks of Paris go back on October 25, those of New York on November 1.
    plan = plan_of(*VARIED, *POLICIES, *HOLIDAYS, days=30, workers=workers, downtimes=downtimes, limits=LIMITS)
    lived = told(Live(tmp_path / "log.jsonl", plan, dice).run())
    foreseen = told(events_of(plan, dice))
    assert foreseen == lived
    kinds = Counter((each[0], each[5]) for each in lived)
    assert {("schedule_missed", reason) for reason in ("down", "catchup_window", "superseded")} <= kinds.keys()
    assert kinds["schedule_skipped", "overlap"] > 100
    assert sum(1 for each in lived if each[12]) > 100  # further attempts
    assert min(kinds["schedule_skipped", reason] for reason in ("max_queued", "deferred")) > 10
    assert min(kinds[verdict, "holiday"] for verdict in ("schedule_skipped", "schedule_missed")) > 0
    assert kinds["run_finished", "start_deadline"] > 10
    assert min(Counter(each[0] for each in lived)[name] for name in ("cancel_requested", "deadline_missed")) > 10
    started = {each[1] for each in lived if each[0] == "run_started"}
    assert started >= {"follows", "pages", "closed", "works", "moved", "third"}
    # With two workers hardly a run of `bounded` starts in time, so none is at work when its deadline passes.
    assert workers == 2 or None in started


# -- properties --------------------------------------------------------------------------------------------------------

CRONS = st.sampled_from(["* * * * *", "*/3 * * * *", "*/5 * * * *", "0 * * * *", "17 * * * *", "@every 90s"])
ENTRIES = st.lists(
    st.fixed_dictionaries(
        {
            "cron": CRONS,
            "overlap": st.sampled_from(["skip", "queue", "allow"]),
            "retries": st.sampled_from([{"max": 0}, {"max": 2, "delay": "40s"}]),
        }
    ),
    min_size=1,
    max_size=6,
)


def named(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"id": f"s{number}", **entry} for number, entry in enumerate(entries)]


@given(ENTRIES, st.integers(1, 4), st.integers(1, 400))
@settings(max_examples=40, deadline=None)
def test_no_forecast_has_more_runs_at_work_than_workers_and_each_slot_has_one_verdict(
    entries: list[dict[str, Any]], workers: int, longest_s: int
) -> None:
    plan = plan_of(*named(entries), days=0.1, workers=workers)
    at_work: set[str] = set()
    verdicts: Counter[tuple[str, str]] = Counter()
    asked, ended = set(), set()
    for event in events_of(plan, lambda r: Ending(crc32(r["run_id"].encode()) % longest_s + 0.25, "failed")):
        run_id = event.get("run_id", "")
        if event["event"] == "run_started":
            assert run_id not in at_work
            at_work.add(run_id)
            assert len(at_work) <= workers
        elif event["event"] == "run_finished":
            at_work.remove(run_id)
            ended |= set() if event.get("next_attempt") else {run_id}
        elif event["event"] in VERDICTS:
            verdicts[event["schedule_id"], event["minute"]] += 1
            asked |= {run_id} if event["event"] == "schedule_enqueued" else set()
    slots = Counter(
        (each.id, fire.strftime("%Y-%m-%dT%H:%M:%SZ"))
        for each in plan.schedules
        for fire in due(each, plan.begin - timedelta(seconds=1), plan.until - timedelta(seconds=1))
    )
    assert verdicts == slots
    outcome = simulate(plan, lambda r: Ending(crc32(r["run_id"].encode()) % longest_s + 0.25, "failed"))
    assert outcome.runs == len(asked) == len(ended) + outcome.running_at_end + outcome.waiting_at_end
    assert outcome.running_at_end == len(at_work)
    assert outcome.utilisation <= 1 + 1e-9


@given(st.lists(CRONS, min_size=1, max_size=6), st.integers(1, 3), st.integers(1, 900))
@settings(max_examples=40, deadline=None)
def test_with_one_worker_more_no_plain_run_starts_later(crons: list[str], workers: int, longest_s: int) -> None:
    # First come, first served, and lengths that belong to the runs: Kiefer and Wolfowitz (1955).
    entries = [{"id": f"s{n}", "cron": cron, "overlap": "allow"} for n, cron in enumerate(crons)]

    def starts(count: int) -> dict[str, float]:
        plan = plan_of(*entries, days=0.1, workers=count)
        turns = play(plan, lambda r: Ending(float(crc32(r["run_id"].encode()) % longest_s)))
        return {e["run_id"]: at for at, events in turns for e in events if e["event"] == "run_started"}

    few, more = starts(workers), starts(workers + 1)
    assert all(more[run_id] <= at for run_id, at in few.items())


def test_a_forecast_says_the_same_each_time() -> None:
    plan = plan_of(*VARIED, days=3)
    choose = drawn_from({"often": Durations(9, 10.0, 400.0, 900.0), "both": Durations(3, 2.0, 2.0, 2.0)}, 60.0)
    assert events_of(plan, choose) == events_of(plan, choose)


# -- figures -----------------------------------------------------------------------------------------------------------


def test_figures_of_two_runs_that_meet_are_those_one_counts_by_hand() -> None:
    plan = plan_of({"id": "a", "cron": "0 * * * *"}, {"id": "b", "cron": "0 * * * *"}, days=1 / 24, workers=1)
    outcome = simulate(plan, lasting(90))
    assert [list(outcome.schedules[name].waits_s) for name in "ab"] == [[0.0], [90.0]]
    assert (outcome.runs, outcome.utilisation, outcome.waiting_at_end) == (2, pytest.approx(180 / 3600), 0)
    assert list(outcome.busy_s[:4]) == [60, 60, 60, 0]
    assert list(outcome.queued_s[:3]) == [60, 30, 0]
    assert (list(outcome.deepest[:2]), outcome.due[0]) == ([1, 0], 2)


def test_what_waits_at_the_end_counts_with_what_it_has_waited() -> None:
    plan = plan_of({"id": "a", "cron": "0 * * * *"}, {"id": "b", "cron": "0 * * * *"}, days=1 / 24, workers=1)
    outcome = simulate(plan, lasting(9999))
    assert (outcome.waiting_at_end, outcome.running_at_end) == (1, 1)
    assert outcome.waits_s() == [0.0, 3600.0]


def test_a_run_that_fires_into_an_open_one_is_skipped_or_waits_as_its_overlap_says() -> None:
    def outcome(overlap: str) -> Outcome:
        return simulate(plan_of({"id": "a", "cron": "*/5 * * * *", "overlap": overlap}, days=0.125), lasting(450))

    assert dict(outcome("skip").skipped) == {"overlap": 18}
    assert outcome("queue").skipped == {}
    assert outcome("queue").waits_s()[-1] > 3000
    assert outcome("allow").waits_s()[-1] == 0.0


def test_a_run_that_is_longer_than_its_timeout_is_ended_and_tried_again() -> None:
    entry = {"id": "a", "cron": "0 0 * * *", "timeout": "30s", "retries": {"max": 1, "delay": "10s"}}
    figures = simulate(plan_of(entry), lasting(45)).schedules["a"]
    assert (figures.runs, figures.timeouts, figures.busy_s, list(figures.waits_s)) == (1, 2, 60.0, [0.0, 0.0])


def test_a_draw_goes_from_the_middle_to_the_longest_and_is_the_same_for_the_same_run() -> None:
    known = Durations(100, 10.0, 100.0, 200.0)
    shares = (0.0, 0.5, 0.725, 0.95, 0.975, 1.0)
    assert [length_at(known, share) for share in shares] == pytest.approx([10, 10, 55, 100, 150, 200])
    choose = drawn_from({"a": known}, 60.0)
    lengths = [choose({"schedule_id": "a", "run_id": f"a.{n}", "attempt": 1}).duration_s for n in range(4000)]
    assert sum(length <= 10.0 for length in lengths) / 4000 == pytest.approx(0.5, abs=0.03)
    assert sum(length <= 100.0 for length in lengths) / 4000 == pytest.approx(0.95, abs=0.02)


def test_a_schedule_without_history_takes_what_is_assumed_or_its_timeout() -> None:
    choose = drawn_from({}, 60.0)
    request: RunRequest = {"schedule_id": "a", "run_id": "a.1", "attempt": 1}
    assert choose(request) == Ending(60.0)
    assert choose({**request, "timeout_s": 20.0}) == Ending(20.0)


def test_figures_of_deadlines_and_of_runs_that_are_cancelled_are_those_one_counts_by_hand() -> None:
    late = {"id": "a", "cron": "0 * * * *", "deadline": "2m", "on_deadline": "dags/page.yaml"}
    hopeless = {"id": "b", "cron": "0 * * * *", "start_deadline": "1m"}
    plan = plan_of(late, hopeless, days=1 / 24, workers=1)
    outcome = simulate(plan, lasting(300))
    assert (outcome.schedules["a"].deadline_misses, outcome.deadline_misses) == (1, 1)
    assert outcome.schedules["b"].cancelled == {"start_deadline": 1}
    assert outcome.schedules["(on_deadline)"].runs == 1
    replaced = plan_of({"id": "r", "cron": "*/10 * * * *", "overlap": "replace"}, days=1 / 24, workers=3)
    outcome = simulate(replaced, lasting(900))
    assert (outcome.runs, dict(outcome.cancelled), outcome.running_at_end) == (6, {"replaced": 5}, 1)
