"""Pause, resume, drain and bump, against services that run, and where none does."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from service import Service, WaitFor, kill9

from scheduler.audit import audit
from scheduler.history import History
from scheduler.judge import judge
from scheduler.run_queue import RunQueue
from scheduler.schedule_model import Schedule
from scheduler.state_store import record_event
from workers.process_id import identity

NOW = datetime(2026, 11, 24, 12, 0, 30, tzinfo=UTC)


def started(service: Service, wait_for: WaitFor, **environ: str) -> subprocess.Popen[bytes]:
    process = service.start(**environ)
    wait_for(service.is_ready, what="the service")
    return process


def is_clean(service: Service) -> bool:
    report = audit(service.log, datetime.now(UTC), lateness_s=120)
    assert not report.violations, report.violations
    return True


def pause_event(at: datetime, **fields: Any) -> dict[str, Any]:
    return {"event": "schedule_paused", "timestamp": at.isoformat(), "by": "ann@host", **fields}


def resume_event(at: datetime, **fields: Any) -> dict[str, Any]:
    return {"event": "schedule_resumed", "timestamp": at.isoformat(), "by": "ann@host", **fields}


SCHEDULE = Schedule("s", "*/10 * * * *", "d.yaml", tenant="ops", catchup="all", overlap="allow")


def verdicts(history: History, *minutes: int) -> list[tuple[str, Any]]:
    fires = [NOW.replace(minute=minute, second=0) for minute in minutes]
    return [(each["event"], each.get("reason")) for each in judge(SCHEDULE, fires, NOW, history, "down")]


@pytest.mark.parametrize("scope", [{"schedule_id": "s"}, {"tenant": "ops"}, {}])
def test_a_fire_time_under_a_pause_is_skipped_whoever_was_paused(scope: dict[str, str]) -> None:
    history = History([pause_event(NOW - timedelta(minutes=5), **scope)])
    assert verdicts(history, 0) == [("schedule_skipped", "paused")]
    history.apply(resume_event(NOW - timedelta(seconds=40), **scope))
    assert verdicts(history, 0) == [("schedule_enqueued", None)]


@pytest.mark.parametrize("scope", [{"schedule_id": "other"}, {"tenant": "other"}])
def test_the_pause_of_another_changes_nothing(scope: dict[str, str]) -> None:
    assert verdicts(History([pause_event(NOW - timedelta(minutes=5), **scope)]), 0) == [("schedule_enqueued", None)]


def test_to_resume_all_ends_every_pause() -> None:
    scopes: list[dict[str, str]] = [{"schedule_id": "s"}, {"tenant": "ops"}, {}]
    history = History(pause_event(NOW - timedelta(minutes=5), **scope) for scope in scopes)
    history.apply(resume_event(NOW - timedelta(minutes=1)))
    assert verdicts(history, 0) == [("schedule_enqueued", None)]


def test_late_fire_times_that_came_in_a_pause_are_missed_as_paused_in_ranges_and_the_others_are_caught_up() -> None:
    start = NOW.replace(hour=11, minute=0, second=0)
    history = History(
        [
            pause_event(start + timedelta(minutes=15), schedule_id="s"),
            resume_event(start + timedelta(minutes=45), schedule_id="s"),
        ]
    )
    fires = [start + timedelta(minutes=minute) for minute in range(10, 61, 10)]
    told = judge(SCHEDULE, fires, NOW, history, "down")
    (missed,) = (each for each in told if each["event"] == "schedule_missed")
    assert (missed["from"][11:16], missed["to"][11:16], missed["count"], missed["reason"]) == (
        "11:20",
        "11:40",
        3,
        "paused",
    )
    ran = [each["minute"][11:16] for each in told if each["event"] == "schedule_enqueued"]
    assert ran == ["11:10", "11:50", "12:00"]


def test_a_pause_ends_by_itself_at_its_until() -> None:
    until = (NOW + timedelta(minutes=5)).isoformat()
    history = History([pause_event(NOW - timedelta(minutes=5), schedule_id="s", until=until)])
    assert history.pauses.is_paused("s", "ops", NOW, NOW)
    later = NOW + timedelta(minutes=6)
    assert not history.pauses.is_paused("s", "ops", later, later)


def test_a_checkpoint_keeps_pauses_drains_and_what_was_bumped() -> None:
    request = {"event": "run_requested", "run_id": "r.1", "attempt": 1, "timestamp": NOW.isoformat(), "dag": "d.yaml"}
    drain = {"event": "drain_started", "timestamp": NOW.isoformat(), "by": "ann@host"}
    bump = {"event": "run_bumped", "run_id": "r.1", "seq": 7, "timestamp": NOW.isoformat()}
    before = History([pause_event(NOW, tenant="ops"), pause_event(NOW, schedule_id="x"), request, drain, bump])
    after = History(json.loads(json.dumps(list(before.checkpoint()))))
    assert after.unusable == 0
    assert after.pauses.rows() == before.pauses.rows() != []
    assert (after.drain, after.runs["r.1"].request["bumped"]) == (drain, 7)


def test_what_is_bumped_goes_before_all_others_the_last_one_first_after_a_restart_too() -> None:
    requests = [
        {"event": "run_requested", "run_id": name, "attempt": 1, "timestamp": NOW.isoformat(), **fields}
        for name, fields in {
            "a": {},
            "urgent": {"priority": 100, "tenant": "other"},
            "b": {},
            "later": {"not_before": (NOW + timedelta(minutes=1)).isoformat()},
        }.items()
    ]
    bumps = [
        {"event": "run_bumped", "run_id": name, "seq": seq, "timestamp": NOW.isoformat()}
        for seq, name in ((5, "b"), (6, "a"), (7, "later"))
    ]
    followed, history = RunQueue(), History()
    for event in [*requests, *bumps]:
        history.apply(event)
        followed.follow(event, history.runs.get(event["run_id"]))
    restarted = RunQueue()
    restarted.load(history.runs.values())
    for queue in (followed, restarted):
        queue.wake(NOW.timestamp() + 61)
        assert [queue.get_nowait()["run_id"] for _ in range(4)] == ["later", "a", "b", "urgent"]


def test_a_schedule_that_is_paused_runs_at_no_fire_time_until_it_is_resumed(
    service: Service, wait_for: WaitFor
) -> None:
    service.schedule("quick", "@every 1s", service.dag("d", "true"))
    service.schedule("other", "@every 1s", "dags/d.yaml")
    started(service, wait_for)
    wait_for(lambda: service.events("run_finished"), what="a run")
    done = service.command("pause", "quick", "--reason", "the database is being moved", "--until", "1h")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Paused schedule quick until 20")

    def skipped() -> list[dict[str, Any]]:
        return [each for each in service.events("schedule_skipped") if each["reason"] == "paused"]

    wait_for(lambda: len(skipped()) >= 2, what="the skips")
    paused = service.events("schedule_paused")[0]
    assert {each["schedule_id"] for each in skipped()} == {"quick"}
    assert not [
        each
        for each in service.events("schedule_enqueued")
        if each["schedule_id"] == "quick" and each["seq"] > paused["seq"]
    ]
    status = json.loads(service.command("status", "--json").stdout)
    (row,) = status["paused"]
    assert (row["schedule_id"], row["reason"], row["by"]) == ("quick", "the database is being moved", paused["by"])
    assert status["health"] == "well"
    assert "quick" in service.command("status").stdout.partition("PAUSED")[2].partition("NEXT")[0]
    assert service.command("resume", "quick").stdout == "Resumed schedule quick\n"
    (resumed,) = service.events("schedule_resumed")
    wait_for(
        lambda: any(
            each["schedule_id"] == "quick" and each["seq"] > resumed["seq"]
            for each in service.events("schedule_enqueued")
        ),
        what="a run after it",
    )
    assert service.command("resume", "quick").stdout == "Schedule quick was not paused\n"
    assert is_clean(service)


def test_a_pause_outlives_a_killed_service_and_what_came_meanwhile_is_paused_and_not_caught_up(
    service: Service, wait_for: WaitFor
) -> None:
    service.schedule("s", "@every 1s", service.dag("d", "true"), catchup="all", overlap="allow")
    process = started(service, wait_for)
    assert service.command("pause", "--tenant", "test").stderr == ""
    (paused,) = service.events("schedule_paused")
    kill9(process)
    service.schedule("waker", "@every 1s", "dags/d.yaml", tenant="free")
    started(service, wait_for)
    wait_for(lambda: any(e["schedule_id"] == "waker" for e in service.events("schedule_enqueued")), what="the other")
    assert not [
        each
        for each in service.events("schedule_enqueued")
        if each["schedule_id"] == "s" and each["seq"] > paused["seq"]
    ]
    done = service.command("resume", "s")
    assert "schedule s is held all the same: tenant test is paused" in done.stderr
    assert is_clean(service)


def test_while_it_is_drained_what_runs_goes_on_and_nothing_starts(service: Service, wait_for: WaitFor) -> None:
    dag = service.dag("d", "while [ ! -e go ]; do sleep 0.1; done")
    process = started(service, wait_for)
    first = service.ask(dag)
    wait_for(lambda: service.story(first) == ["run_started 1"], what="the first run")
    done = service.command("drain", "--reason", "new disk")
    assert (done.returncode, done.stdout) == (
        0,
        "Nothing starts until `tickpool drain --off`; 1 run(s) go on to their end\n",
    )
    second = service.ask(dag)
    (service.root / "go").touch()
    assert service.command("drain", "--wait").stdout.endswith("\nNothing runs\n")
    assert service.story(first)[-1] == "run_finished 1 success"
    kill9(process)
    started(service, wait_for)
    status = service.command("status", "--json")
    assert (status.returncode, json.loads(status.stdout)["drain"]["reason"]) == (1, "new disk")
    assert service.story(second) == []
    assert service.command("drain", "--off").stdout == "Runs start again\n"
    wait_for(lambda: service.has_ended(second), what="the second run")
    assert service.command("drain", "--off").stdout == "Nothing was drained\n"
    assert is_clean(service)


def test_a_single_tick_under_a_drain_asks_for_its_runs_and_starts_none(service: Service) -> None:
    service.schedule("s", "* * * * *", service.dag("d", "true"))
    service.command("drain")
    done = service.command("tick", "--now", "2026-11-24T09:00:00Z")
    assert "Enqueued 1 run(s)" in done.stdout
    assert service.story("s.20261124T0900Z") == []
    service.command("drain", "--off")
    service.command("tick", "--now", "2026-11-24T09:00:30Z")
    assert service.has_ended("s.20261124T0900Z")


def test_a_bumped_run_is_the_next_to_start(service: Service, wait_for: WaitFor) -> None:
    slow = service.dag("slow", "while [ ! -e go ]; do sleep 0.1; done")
    quick = service.dag("quick", "true")
    started(service, wait_for, SCHED_MAX_PARALLEL="1")
    first = service.ask(slow)
    wait_for(lambda: service.story(first) == ["run_started 1"], what="the first run")
    a, b, c = (service.ask(quick) for _ in range(3))
    done = service.command("bump", c, b)
    assert (done.returncode, done.stdout.count("Bumped")) == (0, 2)
    (service.root / "go").touch()
    wait_for(lambda: service.has_ended(a, b, c), what="all runs")
    assert [each["run_id"] for each in service.events("run_started")] == [first, c, b, a]
    assert is_clean(service)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("pause", "pause what? name schedules, --tenant TENANT, or --all"),
        ("pause dayly", "no schedule `dayly`; did you mean `daily`?"),
        ("pause --tenant tost", "no tenant `tost`; did you mean `test`?"),
        ("pause daily --until soon", "--until 'soon': write a duration such as 7d, or an ISO 8601 time"),
        ("pause daily --until 9999-12-31T23:59:59Z", "such as 2026-11-23T09:00:00Z, before the year 9999"),
        ("resume dayly", "no schedule `dayly`; did you mean `daily`?"),
        ("bump nobody", "no open run `nobody`; none is open"),
    ],
)
def test_what_cannot_be_held_is_told_in_a_line_and_nothing_is_recorded(service: Service, words: str, told: str) -> None:
    service.schedule("daily", "0 9 * * *", service.dag("d", "true"))
    done = service.command(*words.split())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert told in done.stderr
    assert service.events() == []


@pytest.mark.parametrize(
    ("events", "told"),
    [
        (
            [{"event": "schedule_skipped", "schedule_id": "s", "minute": "2026-11-24T12:00:00Z", "reason": "paused"}],
            "is skipped at 2026-11-24T12:00:00Z as paused, and it was not",
        ),
        (
            [
                {"event": "drain_started", "by": "a@b"},
                {"event": "run_requested", "run_id": "r.1", "attempt": 1, "dag": "d.yaml"},
                {"event": "run_started", "run_id": "r.1", "attempt": 1},
            ],
            "starts, and nothing was to start (drain)",
        ),
        (
            [
                {"event": "schedule_paused", "tenant": "ops", "by": "a@b"},
                {"event": "schedule_enqueued", "schedule_id": "s", "minute": "2026-11-24T12:00:00Z", "run_id": "s.1"},
            ],
            "is enqueued for 2026-11-24T12:00:00Z, and it is paused",
        ),
    ],
)
def test_the_audit_refutes_a_log_in_which_a_hold_was_not_kept(
    tmp_path: Path, events: list[dict[str, Any]], told: str
) -> None:
    log = tmp_path / "state.jsonl"
    specs = {"s": {"tenant": "ops", "dag": "d.yaml", "enabled": False}}
    since = (NOW - timedelta(hours=1)).isoformat()
    record_event({"event": "schedules_loaded", "since": since, "specs": specs}, log)
    # Long ago: a pause is judged by seconds, and these lines are written within one.
    for number, event in enumerate(events):
        moment = {"timestamp": (NOW + timedelta(seconds=10 * number)).isoformat(timespec="milliseconds")}
        process = identity(os.getppid())._asdict() if event["event"] == "run_started" else {}
        record_event({**moment, **event, **process}, log)
    texts = [each.text for each in audit(log, datetime.now(UTC)).violations]
    assert any(told in text for text in texts), texts
