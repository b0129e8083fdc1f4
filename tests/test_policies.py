"""The policies: what becomes of a fire time, and of a run that is in the way, too late to start, or too late to end."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service import Service, is_running, kill9
from story import Story

from scheduler.audit import audit
from scheduler.history import History
from scheduler.judge import due, judge
from scheduler.run_timers import RunTimers, Timer, timer_events
from scheduler.schedule_model import Schedule
from scheduler.schedule_rules import schedule_from
from scheduler.schedules import read_configuration
from scheduler.state_store import record_event
from workers.errors import InvalidFile
from workers.events import Event, decode_line, encode_line, iso
from workers.run_request import cancel_requested

WaitFor = Callable[..., None]
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def minutely(**fields: Any) -> Schedule:
    return schedule_from({"id": "s", "cron": "* * * * *", "dag": "dags/a.yaml", **fields})


def judged(schedule: Schedule, minutes: list[int], now: datetime, *before: Event) -> list[Event]:
    return judge(schedule, [NOON + minute * MINUTE for minute in minutes], now, History(before), "down")


def asked(index: int, **fields: Any) -> Event:
    minute = iso(NOON + index * MINUTE)
    event = {"event": "schedule_enqueued", "schedule_id": "s", "minute": minute, "run_id": f"s.{index}", "attempt": 1}
    return {**event, "dag": "dags/a.yaml", "project": ".", **fields}


def started(index: int, attempt: int = 1) -> Event:
    event = {"event": "run_started", "run_id": f"s.{index}", "schedule_id": "s", "attempt": attempt}
    return {**event, "timestamp": iso(NOON), "pid": 7, "boot_id": "b", "starttime": 9}


def ended(index: int, attempt: int = 1, **fields: Any) -> Event:
    return {"event": "run_finished", "run_id": f"s.{index}", "schedule_id": "s", "attempt": attempt, **fields}


def shape(events: list[Event]) -> list[tuple[str, str | None]]:
    """Return (event, reason) of each."""
    return [(event["event"].removeprefix("schedule_"), event.get("reason")) for event in events]


# -- keys that contradict each other ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "place", "message"),
    [
        (["max_queued: 2"], "4:15", "`max_queued` has no meaning without `overlap: queue`"),
        (["overlap: queue", "max_queued: 0"], "5:15", "`max_queued` is a number from 1"),
        (
            ["catchup: latest", "catchup_max: 2"],
            "5:16",
            "`catchup_max` has no meaning without `catchup: all`; `catchup: latest` runs one",
        ),
        (["overlap: allow", "catchup: all", "catchup_max: 0"], "6:16", "`catchup_max` is a number from 1"),
        (
            ["catchup: all", "overlap: replace"],
            "4:12",
            "`catchup: all` would cancel each run for the next one by `overlap: replace`; write `catchup: latest`, or "
            "`overlap: queue`",
        ),
        (
            ["catchup: all", "overlap: queue", "max_queued: 3", "catchup_max: 4"],
            "4:12",
            "`catchup: all` may ask for more runs than `max_queued` lets wait; write a `catchup_max` of that at most",
        ),
        (
            ["start_deadline: 0s"],
            "4:19",
            "`start_deadline: 0s` would let nothing start; write a longer time, such as `5m`",
        ),
        (["deadline: 0s"], "4:13", "`deadline: 0s` would be missed by every run; write a longer time, such as `30m`"),
        (
            ["deadline: 5m", "start_deadline: 5m"],
            "5:19",
            "`start_deadline` is not shorter than `deadline`: what starts last could not end in time; write a shorter "
            "one",
        ),
        (
            ["on_deadline: dags/a.yaml"],
            "4:16",
            "`on_deadline` has no meaning without `deadline`; add one, such as `deadline: 30m`",
        ),
        (
            ["jitter: 5m", "start_deadline: 5m"],
            "4:11",
            "`jitter` is not shorter than `start_deadline`: a run could be too late before it may start; write a "
            "shorter one",
        ),
        (
            ["jitter: 5m", "deadline: 5m"],
            "4:11",
            "`jitter` is not shorter than `deadline`: a run could be too late before it may start; write a shorter one",
        ),
        (
            ["catchup: latest", "catchup_window: 2h", "start_deadline: 1h"],
            "5:19",
            "`catchup_window` is longer than `start_deadline`, by which nothing that late starts; write a shorter one, "
            "or leave it out",
        ),
        (
            ["catchup: latest", "start_deadline: 60s"],
            "4:12",
            "`catchup` is for what is late by a minute and more, which `start_deadline` lets not start; write a longer "
            "`start_deadline`, or `catchup: none`",
        ),
        (
            ["deadline: 5m", "on_deadline: ../page.yaml"],
            "5:16",
            "'../page.yaml' lies outside the project ",
        ),
        (["deadline: 5m", "on_deadline: dags/none.yaml"], "5:16", "no such file 'dags/none.yaml' in "),
    ],
)
def test_keys_that_contradict_each_other_are_refused_with_the_way_out(
    tmp_path: Path, lines: list[str], place: str, message: str
) -> None:
    for name in ("dags", "schedules"):
        (tmp_path / name).mkdir()
    (tmp_path / "dags" / "a.yaml").write_text("id: a\ntasks: [{id: t, run: 'true'}]\n")
    text = "- id: good\n  cron: '* * * * *'\n  dag: dags/a.yaml\n" + "".join(f"  {line}\n" for line in lines)
    (tmp_path / "schedules" / "a.yaml").write_text(text)
    faults = [str(fault) for fault in read_configuration(tmp_path / "schedules").faults]
    assert len(faults) == 1, faults
    assert faults[0].startswith(f"{tmp_path}/schedules/a.yaml:{place}: schedule `good`: {message}")


@pytest.mark.parametrize(
    "policy",
    [
        {"overlap": "replace", "catchup": "latest"},
        {"overlap": "queue", "catchup": "all", "max_queued": 3, "catchup_max": 3},
        {"overlap": "allow", "catchup": "all", "start_deadline": "1h", "catchup_window": "1h"},
        {"jitter": "30s", "start_deadline": "31s", "deadline": "32s", "on_deadline": "dags/a.yaml"},
    ],
)
def test_keys_that_go_together_are_taken(policy: dict[str, Any]) -> None:
    assert minutely(**policy).id == "s"


# -- overlap ------------------------------------------------------------------------------------------------------


def test_replace_asks_for_the_run_and_for_the_end_of_every_older_one_that_nobody_has_cancelled() -> None:
    before = [asked(0), started(0), asked(1), asked(2), cancel_requested("s.1", "by hand")]
    events = judged(minutely(overlap="replace"), [3], NOON + 3 * MINUTE, *before)
    assert shape(events) == [("enqueued", None), ("cancel_requested", "replaced"), ("cancel_requested", "replaced")]
    assert [event["run_id"] for event in events] == ["s.20261123T1203Z", "s.0", "s.2"]
    assert {event["by"] for event in events[1:]} == {"s.20261123T1203Z"}


def test_a_fire_time_beyond_max_queued_is_skipped_and_says_how_many_wait() -> None:
    schedule = minutely(overlap="queue", max_queued=2)
    before = [asked(0), started(0), asked(1)]
    assert shape(judged(schedule, [3], NOON + 3 * MINUTE, *before)) == [("enqueued", None)]
    [event] = judged(schedule, [3], NOON + 3 * MINUTE, *before, asked(2))
    assert (event["event"], event["reason"], event["waiting"]) == ("schedule_skipped", "max_queued", 2)


# -- late ones ----------------------------------------------------------------------------------------------------


def test_catchup_max_runs_the_newest_and_tells_of_the_rest_as_one_range() -> None:
    schedule = minutely(overlap="allow", catchup="all", catchup_max=2, catchup_window="8m")
    events = judged(schedule, list(range(11)), NOON + 10 * MINUTE)
    assert shape(events) == [
        ("missed", "catchup_window"),
        ("missed", "catchup_max"),
        *[("enqueued", None)] * 3,
    ]
    assert (events[1]["from"], events[1]["to"], events[1]["count"]) == (
        iso(NOON + 2 * MINUTE),
        iso(NOON + 7 * MINUTE),
        6,
    )


def test_a_late_fire_time_beyond_its_start_deadline_is_missed_and_supersedes_nothing() -> None:
    schedule = minutely(catchup="latest", start_deadline="3m")
    assert shape(judged(schedule, [0, 1, 2], NOON + 6 * MINUTE)) == [("missed", "start_deadline")]
    events = judged(schedule, [0, 1, 2, 3, 4], NOON + 6 * MINUTE)
    assert shape(events) == [("missed", "start_deadline"), ("enqueued", None)]
    assert events[0]["to"] == iso(NOON + 3 * MINUTE)


def test_a_week_down_with_a_start_deadline_is_a_handful_of_events() -> None:
    schedule = minutely(catchup="all", overlap="allow", start_deadline="5m")
    events = judge(schedule, due(schedule, NOON, NOON + 7 * 1440 * MINUTE), NOON + 7 * 1440 * MINUTE, History(), "down")
    assert Counter(shape(events)) == {("missed", "start_deadline"): 1, ("enqueued", None): 5}


def test_a_fire_time_on_time_that_is_too_late_to_start_is_skipped() -> None:
    schedule = minutely(start_deadline="10s")
    assert shape(judged(schedule, [0], NOON + 9 * SECOND)) == [("enqueued", None)]
    [event] = judged(schedule, [0], NOON + 10 * SECOND)
    assert (event["event"], event["reason"], event["start_by"]) == (
        "schedule_skipped",
        "start_deadline",
        "2026-11-23T12:00:10Z",
    )


# -- times of a run -----------------------------------------------------------------------------------------------


def test_jitter_is_the_same_for_one_schedule_at_any_time_and_spread_over_many() -> None:
    offsets = set()
    for number in range(200):
        schedule = schedule_from({"id": f"s{number}", "cron": "* * * * *", "dag": "d.yaml", "jitter": "30s"})
        found = {
            datetime.fromisoformat(event["not_before"]) - datetime.fromisoformat(event["minute"])
            for minute in (0, 1, 7)
            for event in judged(schedule, [minute], NOON + minute * MINUTE)
        }
        assert len(found) == 1
        offsets |= found
    assert min(offsets) >= timedelta(0)
    assert max(offsets) < 30 * SECOND
    assert len(offsets) > 190
    assert max(offsets) - min(offsets) > 25 * SECOND


def test_what_is_late_is_not_made_later_by_jitter() -> None:
    [event] = judged(minutely(jitter="30s", catchup="latest"), [0], NOON + 2 * MINUTE)
    assert event["catchup"] == "latest"
    assert "not_before" not in event


def test_deadlines_count_from_the_fire_time_whatever_the_jitter() -> None:
    policy = {"jitter": "30s", "start_deadline": "45s", "deadline": "1m500ms", "on_deadline": "dags/p.yaml"}
    [event] = judged(minutely(**policy), [0], NOON + SECOND)
    assert (event["start_by"], event["deadline"]) == ("2026-11-23T12:00:45Z", "2026-11-23T12:01:00.500Z")
    assert event["on_deadline"] == "dags/p.yaml"


START_BY, DEADLINE = iso(NOON + 30 * SECOND), iso(NOON + 60 * SECOND)
TIMED = asked(0, start_by=START_BY, deadline=DEADLINE)


def due_events(events: list[Event], after_s: float) -> list[Event]:
    """Return what is due after these events, as a service that followed them has it, and as one that starts then."""
    history, timers = History(events), RunTimers()
    for event in events:
        timers.follow(event)
    lines = [encode_line({"timestamp": iso(NOON), "seq": 1, "host": "h", "pid": 1, **e}) for e in history.checkpoint()]
    restarted, loaded = History(event for event in map(decode_line, lines) if event), RunTimers()
    loaded.load(restarted.runs.values())
    now = NOON + after_s * SECOND
    both = [
        list(timer_events(each, wheel.due(now.timestamp()), now))
        for each, wheel in ((history, timers), (restarted, loaded))
    ]
    assert both[0] == both[1]
    return both[0]


def test_a_run_that_was_not_started_in_time_is_closed_without_a_start_and_needs_no_word_of_its_deadline() -> None:
    assert due_events([TIMED], 29.9) == []
    [end] = due_events([TIMED], 30)
    assert (end["event"], end["status"], end["reason"]) == ("run_finished", "cancelled", "start_deadline")
    assert shape(due_events([TIMED], 3600)) == [("run_finished", "start_deadline")]


def test_what_was_started_meanwhile_is_not_closed_though_its_timer_was_due() -> None:
    due_before = [Timer(NOON.timestamp() + 30, "s.0", "start_by")]
    for meanwhile in ([started(0)], [started(0), ended(0, status="failed", next_attempt=2)], [started(0), ended(0)]):
        assert list(timer_events(History([TIMED, *meanwhile]), due_before, NOON + 31 * SECOND)) == []


def test_a_further_attempt_is_not_bound_to_the_start_deadline() -> None:
    again = [TIMED, started(0), ended(0, status="failed", next_attempt=2, retry_at=iso(NOON))]
    assert due_events(again, 31) == []


def test_a_deadline_is_told_once_while_the_run_waits_or_runs_and_never_after_its_end() -> None:
    missed = {
        "event": "deadline_missed",
        "run_id": "s.0",
        "schedule_id": "s",
        "minute": iso(NOON),
        "deadline": DEADLINE,
    }
    waits = asked(0, deadline=DEADLINE)
    assert due_events([waits], 59.9) == []
    for events in ([waits], [TIMED, started(0)], [waits, started(0), ended(0, status="failed", next_attempt=2)]):
        assert due_events(events, 60) == [missed]
        assert due_events([*events, missed], 61) == []
    assert due_events([TIMED, started(0), ended(0, status="success")], 61) == []


def test_on_deadline_asks_for_a_run_that_belongs_to_no_schedule() -> None:
    told, request = due_events([asked(0, deadline=DEADLINE, on_deadline="dags/p.yaml", tenant="acme")], 60)
    assert told["event"] == "deadline_missed"
    assert request == {
        "event": "run_requested",
        "run_id": "s.0.deadline",
        "attempt": 1,
        "minute": DEADLINE,
        "dag": "dags/p.yaml",
        "project": ".",
        "tenant": "acme",
        "params": {},
        "offered": {"run_id": "s.0", "schedule_id": "s", "fire_time": iso(NOON)},
        "for_run": "s.0",
    }


def test_timers_wake_for_what_is_open_only() -> None:
    timers = RunTimers()
    timers.follow(TIMED)
    assert timers.next_wake() == (NOON + 30 * SECOND).timestamp()
    timers.follow(started(0))
    assert timers.next_wake() == (NOON + 60 * SECOND).timestamp()
    assert timers.due(NOON.timestamp() + 61) == [Timer(NOON.timestamp() + 60, "s.0", "deadline")]
    timers.follow(ended(0))
    assert (timers.next_wake(), timers.due(NOON.timestamp() + 61)) == (None, [])
    timers.follow(asked(1, deadline="soon", start_by=7))
    assert timers.next_wake() is None


def test_a_cancel_survives_a_restart_and_one_of_a_run_that_is_not_open_is_nothing() -> None:
    history = History([asked(0), cancel_requested("s.0", "replaced", "s.1"), cancel_requested("s.9", "by hand")])
    lines = [encode_line({"timestamp": iso(NOON), "seq": 1, "host": "h", "pid": 1, **e}) for e in history.checkpoint()]
    again = History(event for event in map(decode_line, lines) if event)
    assert again.runs["s.0"].cancel == {"reason": "replaced", "by": "s.1"}
    assert again.runs.keys() == {"s.0"}


# -- every policy, in any order -----------------------------------------------------------------------------------


def allowed(policy: dict[str, Any]) -> dict[str, Any]:
    """Return the policy without the keys that contradict others."""
    kept = {key: value for key, value in policy.items() if value is not None}
    while True:
        try:
            minutely(**kept)
        except InvalidFile as error:
            del kept[next(key for key in kept if error.faults[0].message.split(": ", 1)[1].startswith(f"`{key}"))]
        else:
            return kept


CHOICES: dict[str, list[Any]] = {
    "overlap": ["skip", "queue", "replace", "allow"],
    "max_queued": [None, 1, 3],
    "catchup": ["none", "latest", "all"],
    "catchup_window": [None, "4m"],
    "catchup_max": [None, 1, 3],
    "jitter": [None, "20s"],
    "start_deadline": [None, "40s", "5m"],
    "deadline": [None, "50s", "7m"],
    "on_deadline": [None, "dags/p.yaml"],
    "retries": [{"max": 0}, {"max": 2, "delay": "10s"}],
    "cron": ["* * * * *", "*/7 * * * *", "@every 20s"],
}
ANY_POLICY = st.fixed_dictionaries({key: st.sampled_from(values) for key, values in CHOICES.items()}).map(allowed)
STEPS = st.lists(
    st.tuples(st.sampled_from(["live", "die", "jump", "load", "rotate", "stop"]), st.integers(1, 40)), max_size=8
)


@settings(max_examples=40, deadline=None)
@given(policies=st.lists(ANY_POLICY, min_size=1, max_size=3), steps=STEPS, seed=st.integers(0, 99))
def test_no_policy_gives_a_fire_time_two_verdicts_or_none_or_two_runs(
    policies: list[dict[str, Any]], steps: list[tuple[str, int]], seed: int
) -> None:
    entries = [{"id": f"s{number}", **policy} for number, policy in enumerate(policies)]
    with tempfile.TemporaryDirectory() as root:
        story = Story(Path(root) / "log", seed=seed, workers=2)
        events: list[Event] = []
        story.store.follow(events.append)
        story.begin(*entries)
        since = story.now
        for kind, size in steps:
            if kind == "live":
                story.live(min(size, 12))
            elif kind in ("die", "stop"):
                story.die() if kind == "die" else story.stop()
                story.now += timedelta(minutes=size)
                story.begin(*entries)
                story.recover()
            elif kind == "jump":
                story.set_clock(story.now + timedelta(minutes=size))
            elif kind == "load":
                story.load(*entries)
            else:
                story.rotate()
        story.live(1)
        until = story.now - MINUTE
        story.drain()
        story.stop()
        report = audit(Path(root) / "log", story.now, final=True)
        assert report.violations == []
        _check(entries, events, since, until)


def _check(entries: list[dict[str, Any]], events: list[Event], since: datetime, until: datetime) -> None:
    asked_for = Counter(event["run_id"] for event in events if event["event"] in ("schedule_enqueued", "run_requested"))
    assert [name for name, count in asked_for.items() if count > 1] == []
    for entry in entries:
        schedule = schedule_from({"dag": "dags/d.yaml", **entry})
        told: Counter[str] = Counter()
        for event in events:
            if event.get("schedule_id") != schedule.id:
                continue
            if event["event"] in ("schedule_enqueued", "schedule_skipped"):
                told[event["minute"]] += 1
            elif event["event"] == "schedule_missed":
                first, last = (datetime.fromisoformat(event[key]) for key in ("from", "to"))
                told.update(iso(fire) for fire in due(schedule, first - SECOND, last))
        assert [minute for minute, count in told.items() if count > 1] == []
        assert {iso(fire) for fire in due(schedule, since - SECOND, until)} <= told.keys()


# -- real processes -----------------------------------------------------------------------------------------------


@pytest.fixture
def running(service: Service) -> Iterator[Service]:
    yield service
    for pid in service.root.glob("*.pid"):
        text = pid.read_text("ascii").strip()
        if text and is_running(int(text)):
            os.kill(int(text), signal.SIGKILL)


def test_an_old_tree_is_gone_before_the_run_that_replaces_it_starts(running: Service, wait_for: WaitFor) -> None:
    service = running
    # The grandchild leaves the session and ignores TERM: only the sweep ends it.
    script = """
        if [ -e grand.pid ]; then
          if kill -0 "$(cat grand.pid)" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$(cat grand.pid)/status"; then
            echo alive > seen
          else
            echo gone > seen
          fi
          exit 0
        fi
        setsid sh -c 'trap "" TERM; echo $$ > grand.new; mv grand.new grand.pid; while :; do sleep 0.05; done' &
        trap "" TERM
        while :; do sleep 0.05; done
    """
    service.schedule("r", "@every 2s", service.dag("d", script), overlap="replace")
    service.start()
    wait_for(lambda: (service.root / "seen").exists(), 20)
    assert (service.root / "seen").read_text("ascii") == "gone\n"
    first, second = (event["run_id"] for event in service.events("run_started")[:2])
    [end] = service.events("run_finished", first)
    assert end["status"] == "cancelled"
    asked_by = service.events("cancel_requested", first)[0]["by"]
    assert end["reason"] == f"cancelled: replaced by {asked_by}"
    assert service.story(first) == ["run_started 1", "run_finished 1 cancelled"]
    names = [(event["event"], event.get("run_id")) for event in service.events()]
    assert names.index(("run_finished", first)) < names.index(("run_started", second))


def test_a_waiting_run_is_cancelled_at_once_and_never_starts(service: Service, wait_for: WaitFor) -> None:
    service.environ["SCHED_MAX_PARALLEL"] = "1"
    dag = service.dag("d", "while [ ! -e go ]; do sleep 0.01; done")
    service.ask(dag, "busy")
    service.ask(dag, "waits", retries={"max": 3})
    service.start()
    wait_for(lambda: service.story("busy"))
    record_event(cancel_requested("waits", "asked for", "me"), service.log)
    wait_for(lambda: service.has_ended("waits"))
    (service.root / "go").touch()
    wait_for(lambda: service.has_ended("busy"))
    [end] = service.events("run_finished", "waits")
    assert service.story("waits") == ["run_finished 1 cancelled"]
    assert end["reason"] == "cancelled: asked for by me"


def test_a_cancel_is_carried_out_by_the_next_service_on_a_run_that_outlived_the_last(
    service: Service, wait_for: WaitFor
) -> None:
    supervisor = service.start()
    run_id = service.ask(service.dag("d", "sleep 300"), retries={"max": 3})
    wait_for(lambda: service.story(run_id))
    kill9(supervisor)
    record_event(cancel_requested(run_id, "asked for"), service.log)
    assert service.story(run_id) == ["run_started 1"]
    service.start()
    wait_for(lambda: service.has_ended(run_id))
    [end] = service.events("run_finished", run_id)
    assert (end["status"], end["reason"]) == ("cancelled", "cancelled: asked for")


def test_a_run_whose_worker_was_killed_holds_its_schedule_no_longer_than_its_burial(
    service: Service, wait_for: WaitFor
) -> None:
    service.schedule("s", "@every 1s", service.dag("d", "sleep 300"))
    supervisor = service.start()
    wait_for(lambda: service.events("run_started"))
    first = service.events("run_started")[0]
    wait_for(lambda: service.events("schedule_skipped"))
    kill9(next(worker for worker in service.workers(supervisor) if worker.pid == first["pid"]))
    wait_for(lambda: len(service.events("run_started")) == 2)
    assert service.story(first["run_id"])[1] == "run_finished 1 crashed"
    end = service.events("run_finished", first["run_id"])[0]
    died = next(event for event in service.events("worker_exited"))
    gap = datetime.fromisoformat(end["timestamp"]) - datetime.fromisoformat(died["timestamp"])
    assert gap < timedelta(seconds=2)


def test_what_could_not_start_in_time_is_closed_at_that_time_while_nothing_else_happens(
    service: Service, wait_for: WaitFor
) -> None:
    service.environ |= {"SCHED_MAX_PARALLEL": "1", "SCHED_TICK_MS": "60000"}
    service.start()
    busy = service.ask(service.dag("busy", "sleep 300"))
    wait_for(lambda: service.is_ready())
    late = service.ask(service.dag("d", "true"), start_by=_soon(3), deadline=_soon(20))
    os.kill(service._started[-1].pid, signal.SIGHUP)  # wakes the service, which then sleeps until something is due
    wait_for(lambda: service.story(busy))
    wait_for(lambda: service.has_ended(late))
    [end] = service.events("run_finished", late)
    assert service.story(late) == ["run_finished 1 cancelled"]
    assert end["reason"] == "start_deadline"
    request = service.events("run_requested", late)[0]
    lateness = datetime.fromisoformat(end["timestamp"]) - datetime.fromisoformat(request["start_by"])
    assert timedelta(0) <= lateness < timedelta(seconds=1)


def test_a_deadline_is_told_while_the_run_goes_on_and_its_dag_is_run_with_what_it_declares(
    service: Service, wait_for: WaitFor
) -> None:
    page = {"id": "t", "run": 'echo "$PARAM_RUN_ID $FIRE_TIME" > paged'}
    (service.root / "dags" / "page.yaml").write_text(
        json.dumps({"id": "page", "params": {"run_id": "", "other": 1}, "tasks": [page]}), "ascii"
    )
    service.schedule("s", "@every 2s", service.dag("d", "sleep 300"), deadline="1s", on_deadline="dags/page.yaml")
    supervisor = service.start()
    wait_for(lambda: (service.root / "paged").exists() and (service.root / "paged").read_text("ascii"))
    [missed] = service.events("deadline_missed")
    told = datetime.fromisoformat(missed["timestamp"]) - datetime.fromisoformat(missed["deadline"])
    assert timedelta(0) <= told < timedelta(seconds=2)
    # On a busy machine its deadline may pass before a worker has it.
    wait_for(lambda: service.story(missed["run_id"]) == ["run_started 1"], what="the start of the run")
    assert (service.root / "paged").read_text("ascii").split()[0] == missed["run_id"]
    kill9(supervisor)
    service.start()
    wait_for(service.is_ready)
    wait_for(lambda: service.has_ended(f"{missed['run_id']}.deadline"))
    assert [event["run_id"] for event in service.events("deadline_missed")].count(missed["run_id"]) == 1


def _soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
