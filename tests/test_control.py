"""Trigger and cancel, against services that run, and where none does."""

from __future__ import annotations

import json
import os
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from service import Service, WaitFor, is_running, kill9

from scheduler.audit import audit
from scheduler.state_store import record_event
from workers.process_id import identity

LONG = 'echo "$$" > pid; sleep 100 & echo "$!" > child; wait'


def asked(done: subprocess.CompletedProcess[str]) -> str:
    """Return the run that a trigger has asked for."""
    found = re.search(r"^Requested (\S+)$", done.stdout, re.MULTILINE)
    assert found, (done.stdout, done.stderr)
    return found[1]


def started(service: Service, wait_for: WaitFor, **environ: str) -> subprocess.Popen[bytes]:
    process = service.start(**environ)
    wait_for(service.is_ready, what="the service")
    return process


def pids(service: Service) -> list[int]:
    """Return the processes of LONG once it has named them."""
    files = [service.root / name for name in ("pid", "child")]
    texts = [file.read_text() if file.exists() else "" for file in files]
    return [int(text) for text in texts if text.endswith("\n")]


def is_clean(service: Service) -> bool:
    report = audit(service.log, datetime.now(UTC), lateness_s=120)
    assert not report.violations, report.violations
    return True


def test_a_triggered_run_of_a_schedule_takes_no_fire_time_and_stands_in_no_way(
    service: Service, wait_for: WaitFor
) -> None:
    dag = {"id": "d", "params": {"who": "a", "n": 1}, "tasks": [{"id": "t", "run": "echo ${params.who} ${params.n}"}]}
    (service.root / "dags" / "d.yaml").write_text(json.dumps(dag))
    service.schedule("s", "0 0 1 1 *", "dags/d.yaml", params={"who": "b"}, priority=3, retries={"max": 1})
    started(service, wait_for)
    done = service.command("trigger", "s", "-p", "n=7", "--wait")
    run_id = asked(done)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("success  0.")
    (request,) = service.events("run_requested")
    assert (request["params"], request["priority"], request["tenant"]) == ({"who": "b", "n": 7}, 3, "test")
    assert (request["for_schedule"], request["retries"]["max"]) == ("s", 1)
    assert re.fullmatch(r"\S+@\S+", request["by"])
    assert run_id.startswith("s.manual.")
    assert "schedule_id" not in request
    log = service.root / "logs" / "runs" / run_id / "1" / "t.1.log"
    assert log.read_text() == "b 7\n"
    assert [run["run_id"] for run in json.loads(service.command("runs", "--schedule", "s", "--json").stdout)] == [
        run_id
    ]
    assert is_clean(service)


def test_a_request_wakes_the_service_at_once(service: Service, wait_for: WaitFor) -> None:
    dag = service.dag("d", "true")
    started(service, wait_for, SCHED_TICK_MS="60000", STATE_FSYNC="off")
    # A service that has just begun, or has something to flush, looks again by itself.
    assert [service.command("trigger", dag, "--wait").returncode for _ in range(3)] == [0] * 3
    for request, ended in zip(service.events("run_requested"), service.events("run_finished"), strict=True):
        late = datetime.fromisoformat(ended["timestamp"]) - datetime.fromisoformat(request["timestamp"])
        assert late < timedelta(seconds=20)


def test_what_is_asked_for_while_no_service_runs_waits_for_one(service: Service, wait_for: WaitFor) -> None:
    run_id = asked(done := service.command("trigger", service.dag("d", "true")))
    assert (done.returncode, done.stderr) == (0, "no service runs on this log; the run waits for one\n")
    started(service, wait_for)
    wait_for(lambda: service.has_ended(run_id), what="the run")
    assert service.story(run_id) == ["run_started 1", "run_finished 1 success"]
    assert is_clean(service)


def test_a_run_for_a_later_time_starts_then_and_has_it_as_its_fire_time(service: Service, wait_for: WaitFor) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
    started(service, wait_for)
    run_id = asked(service.command("trigger", service.dag("d", 'echo "$FIRE_TIME" > at'), "--at", at.isoformat()))
    wait_for(lambda: service.has_ended(run_id), timeout=20, what="the run")
    (start,) = service.events("run_started")
    assert datetime.fromisoformat(start["timestamp"]) >= at
    assert datetime.fromisoformat((service.root / "at").read_text().strip()) == at


def test_who_waits_for_a_run_that_fails_gets_exit_1_and_who_follows_it_sees_its_tasks(
    service: Service, wait_for: WaitFor
) -> None:
    dag = service.tasks("d", {"id": "good", "run": "true"}, {"id": "bad", "run": "exit 3", "needs": ["good"]})
    started(service, wait_for)
    done = service.command("trigger", dag, "--follow")
    lines = [line.split()[:2] for line in done.stdout.splitlines()]
    assert (done.returncode, lines[1:3]) == (1, [["success", "good"], ["failed", "bad"]])
    assert lines[3][0] == "failed"
    told = json.loads(service.command("trigger", dag, "--wait", "--json").stdout)
    assert (told["request"]["event"], told["end"]["status"]) == ("run_requested", "failed")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("trigger dayly", "no schedule `dayly` in schedules; did you mean `daily`?\n"),
        ("trigger nothing", "no schedule `nothing` in schedules; allowed: daily; or name a DAG file, such as dags/"),
        ("trigger dags/none.yaml", "dags/none.yaml: cannot be read: No such file or directory"),
        ("trigger ../outside.yaml", "/outside.yaml: lies outside the project"),
        ("trigger daily -p regoin=eu", "-p regoin=eu: DAG `d` has no parameter `regoin`; did you mean `region`?"),
        ("trigger daily -p region", "-p region: write NAME=VALUE"),
        (f"trigger daily -p days={'[' * 20_000}", "[: the default is 7; write JSON"),
        ("trigger daily --at soon", "--at 'soon': write an ISO 8601 time with its zone, such as 2026"),
        ("trigger daily --at 9999-12-31T23:59:59Z", "such as 2026-11-23T09:00:00Z, before the year 9999"),
        ("cancel", "cancel what? name a run, --schedule ID, --backfill ID, or --queued"),
        ("cancel nobody", "no open run `nobody`; none is open"),
    ],
)
def test_what_cannot_be_asked_for_is_told_in_a_line_and_nothing_is_recorded(
    service: Service, words: str, told: str
) -> None:
    dag = {"id": "d", "params": {"region": "us", "days": 7}, "tasks": [{"id": "t", "run": "true"}]}
    (service.root / "dags" / "d.yaml").write_text(json.dumps(dag))
    (service.root.parent / "outside.yaml").write_text(json.dumps(dag))
    service.schedule("daily", "0 9 * * *", "dags/d.yaml")
    done = service.command(*words.split())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert told in done.stderr
    assert service.events() == []


def test_a_cancelled_run_is_gone_with_its_processes_which_are_named(service: Service, wait_for: WaitFor) -> None:
    started(service, wait_for)
    run_id = asked(service.command("trigger", service.dag("d", LONG)))
    wait_for(lambda: len(pids(service)) == 2, what="the task")
    done = service.command("cancel", run_id)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"cancelled {run_id}  2 processes ended"
    assert sorted(int(line.split()[0]) for line in lines[1:]) == sorted(pids(service))
    assert not any(map(is_running, pids(service)))
    (end,) = service.events("run_finished")
    (request,) = service.events("cancel_requested")
    assert (end["status"], end["reason"]) == ("cancelled", f"cancelled: asked for by {request['by']}")
    again = service.command("cancel", run_id)
    assert (again.returncode, again.stderr) == (2, f"no open run `{run_id}`; none is open\n")
    assert is_clean(service)


def test_all_that_wait_are_cancelled_and_what_runs_is_left_alone(service: Service, wait_for: WaitFor) -> None:
    dag = service.dag("d", "sleep 100")
    started(service, wait_for, SCHED_MAX_PARALLEL="1")
    first, *others = [asked(service.command("trigger", dag)) for _ in range(3)]
    wait_for(lambda: service.story(first) == ["run_started 1"], what="the first run")
    done = service.command("cancel", "--queued")
    assert done.stdout.splitlines() == [f"cancelled {name}  it waited" for name in others]
    assert service.story(first) == ["run_started 1"]
    assert [service.story(name) for name in others] == [["run_finished 1 cancelled"]] * 2
    assert service.command("cancel", "--queued").stdout == "Nothing to cancel\n"
    rows = json.loads(service.command("cancel", first, "--json").stdout)
    assert [(row["run_id"], row["was"], row["status"]) for row in rows] == [(first, "running", "cancelled")]
    assert is_clean(service)


def test_the_runs_of_a_schedule_are_cancelled_and_those_triggered_with_them(service: Service) -> None:
    for name in ("a", "b"):
        service.schedule(name, "0 9 * * *", service.dag("d", "true"))
        command = ["--dir", "schedules", "--no-run", "--now", "2026-11-24T09:00:00Z"]
        assert service.command("tick", *command).returncode == 0
        (service.root / "schedules" / f"{name}.yaml").unlink()
    service.schedule("a", "0 9 * * *", "dags/d.yaml")
    run_id = asked(service.command("trigger", "a"))
    done = service.command("cancel", "--schedule", "a")
    assert done.stdout.splitlines() == [
        "cancelled a.20261124T0900Z  it waited",
        f"cancelled {run_id}  it waited",
    ]
    assert service.story("b.20261124T0900Z") == []


def test_a_run_whose_service_was_killed_is_cancelled_all_the_same(service: Service, wait_for: WaitFor) -> None:
    process = started(service, wait_for)
    run_id = asked(service.command("trigger", service.dag("d", LONG)))
    wait_for(lambda: len(pids(service)) == 2, what="the task")
    kill9(process)
    done = service.command("cancel", run_id)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, f"cancelled {run_id}  2 processes ended")
    assert not any(map(is_running, pids(service)))
    assert is_clean(service)


def test_a_run_by_hand_is_cancelled_by_whoever_asks(service: Service, wait_for: WaitFor) -> None:
    dag = service.dag("d", LONG)
    by_hand = service.launch("-m", "workers", dag)
    wait_for(lambda: len(pids(service)) == 2, what="the task")
    (start,) = service.events("run_started")
    done = service.command("cancel", start["run_id"])
    assert (done.returncode, by_hand.wait(10)) == (0, 1)
    assert not any(map(is_running, pids(service)))


def test_a_cancel_of_a_run_whose_processes_are_all_dead_leaves_its_end_to_the_next_service(
    service: Service, wait_for: WaitFor
) -> None:
    process = started(service, wait_for)
    run_id = asked(service.command("trigger", service.dag("d", LONG)))
    wait_for(lambda: len(pids(service)) == 2, what="the task")
    workers = service.workers(process)
    for each in (process, *workers):
        kill9(each)
    wait_for(lambda: not any(is_running(worker.pid) for worker in workers), what="the end of the workers")
    done = service.command("cancel", run_id)
    assert (done.returncode, done.stdout.split()[:2]) == (1, ["lost", run_id])
    started(service, wait_for)
    wait_for(lambda: service.has_ended(run_id), what="its end")
    assert service.story(run_id)[-1].startswith("run_finished 1 c")


def test_two_who_cancel_one_run_at_once_give_it_one_end(service: Service, wait_for: WaitFor) -> None:
    started(service, wait_for)
    run_id = asked(service.command("trigger", service.dag("d", LONG)))
    wait_for(lambda: len(pids(service)) == 2, what="the task")
    several = [service.launch("-m", "scheduler.cli", "cancel", run_id) for _ in range(4)]
    codes: list[Any] = [each.wait(20) for each in several]
    assert set(codes) <= {0, 2}
    assert 0 in codes
    assert (service.story(run_id), os.path.exists("pid")) == (["run_started 1", "run_finished 1 cancelled"], False)
    assert is_clean(service)


def test_the_audit_refutes_a_cancel_that_nobody_has_asked_for(tmp_path: Path) -> None:
    log = tmp_path / "state.jsonl"
    run = {"run_id": "d.manual.1", "attempt": 1}
    record_event({"event": "run_requested", **run, "dag": "dags/d.yaml"}, log)
    record_event({"event": "run_started", **run, **identity(os.getpid())._asdict()}, log)
    end = {"event": "run_finished", **run, "status": "cancelled", "tasks": {}, "reason": "cancelled: asked for by a@b"}
    record_event(end, log)
    (violation,) = audit(log, datetime.now(UTC)).violations
    assert (violation.guarantee, "nobody has asked for that" in violation.text) == ("overlap", True)
