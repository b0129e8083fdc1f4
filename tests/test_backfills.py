"""Backfill: the fire times of the past, by services that run, are killed, and go on."""

from __future__ import annotations

import json
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from service import Service, WaitFor, kill9

from scheduler.audit import audit
from scheduler.backfills import backfill_requests, next_events
from scheduler.history import History
from scheduler.run_queue import RunQueue
from scheduler.state_store import record_event

HOURLY = ("--from", "2026-11-20T00:00:00Z", "--until", "2026-11-20T06:00:00Z")
NOTE = 'echo "$FIRE_TIME $SCHEDULE_ID" >> done; '


def started(service: Service, wait_for: WaitFor, **environ: str) -> subprocess.Popen[bytes]:
    process = service.start(**environ)
    wait_for(service.is_ready, what="the service")
    return process


def is_clean(service: Service, *, final: bool = False) -> bool:
    report = audit(service.log, datetime.now(UTC), lateness_s=120, final=final)
    assert not report.violations, report.violations
    return True


def done(service: Service) -> list[str]:
    file = service.root / "done"
    return [line.split()[0][5:13] for line in file.read_text().splitlines()] if file.exists() else []


def is_finished(service: Service) -> bool:
    return bool(service.events("backfill_finished"))


def test_a_backfill_runs_each_fire_time_of_the_past_once_in_order_below_what_is_due_now(
    service: Service, wait_for: WaitFor
) -> None:
    service.schedule("s", "0 */2 20 11 *", service.dag("d", NOTE), params={}, priority=-3)
    started(service, wait_for)
    told = service.command("backfill", "s", *HOURLY)
    assert (told.returncode, told.stderr) == (0, "")
    first, last = told.stdout.splitlines()
    assert (first.endswith(": 3 run(s), 1 at a time"), last) == (True, "3 success")
    assert done(service) == ["11-20T00", "11-20T02", "11-20T04"]
    assert {line.split()[1] for line in (service.root / "done").read_text().splitlines()} == {"s"}
    requests = service.events("run_requested")
    assert {(each["for_schedule"], each["priority"], "schedule_id" in each) for each in requests} == {("s", -3, False)}
    reverse = service.command("backfill", "s", *HOURLY, "--reverse", "--max-parallel", "3", "--json")
    assert json.loads(reverse.stdout)["ended"] == {"success": 3}
    assert [each["minute"][11:13] for each in service.events("run_requested")[3:]] == ["04", "02", "00"]
    assert is_clean(service)


def test_only_what_has_not_succeeded_is_run_where_that_is_asked_for(service: Service, wait_for: WaitFor) -> None:
    service.schedule("s", "0 */2 20 11 *", service.dag("d", NOTE + 'case "$FIRE_TIME" in *T02*) test -e good;; esac'))
    service.command("tick", "--now", "2026-11-20T00:00:00Z")
    started(service, wait_for)
    plan = service.command("backfill", "s", *HOURLY, "--only-missing", "--dry-run")
    assert plan.stdout.splitlines()[:2] == ["  2026-11-20T02:00:00Z", "  2026-11-20T04:00:00Z"]
    assert plan.stdout.splitlines()[2].startswith("2 run(s) of schedule s, about ")
    assert service.events("backfill_requested") == []
    told = service.command("backfill", "s", *HOURLY, "--only-missing")
    assert (told.returncode, told.stdout.splitlines()[-1]) == (1, "1 failed  1 success")
    (service.root / "good").touch()
    assert service.command("backfill", "s", *HOURLY, "--only-missing").stdout.splitlines()[-1] == "1 success"
    again = service.command("backfill", "s", *HOURLY, "--only-missing")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "nothing to backfill of schedule `s`: a run of each fire time" in again.stderr
    assert done(service) == ["11-20T00", "11-20T02", "11-20T04", "11-20T02"]
    assert is_clean(service)


def test_a_service_killed_in_the_middle_of_a_backfill_goes_on_with_it_and_no_slot_is_lost_or_run_twice(
    service: Service, wait_for: WaitFor
) -> None:
    service.schedule("s", "*/10 * 20 11 *", service.dag("d", NOTE + "sleep 0.05"))
    process = started(service, wait_for)
    told = service.command("backfill", "s", *HOURLY, "--max-parallel", "2", "--detach")
    assert told.returncode == 0
    for count in (5, 15, 25):
        wait_for(lambda count=count: len(done(service)) >= count, what=f"{count} runs")
        kill9(process)
        process = started(service, wait_for)
    wait_for(lambda: is_finished(service), 30, "its end")
    (end,) = service.events("backfill_finished")
    assert sum(end["ended"].values()) == 36
    slots = [each["minute"] for each in service.events("run_requested")]
    assert len(slots) == len(set(slots)) == 36
    assert sorted(set(done(service))) == [f"11-20T{hour:02}" for hour in range(6)]
    assert len(done(service)) == 36
    assert is_clean(service, final=False)


def test_whoever_is_interrupted_leaves_it_to_the_service_and_sees_it_again(service: Service, wait_for: WaitFor) -> None:
    service.schedule("s", "0 */2 20 11 *", service.dag("d", NOTE + "while [ ! -e go ]; do sleep 0.05; done"))
    started(service, wait_for)
    command = service.launch("-m", "scheduler.cli", "backfill", "s", *HOURLY)
    wait_for(lambda: done(service), what="the first run")
    command.send_signal(signal.SIGINT)
    assert command.wait(10) == 130
    assert "it goes on; `tickpool backfill s` shows it again" in service.err()
    again = service.launch("-m", "scheduler.cli", "backfill", "s", *HOURLY)
    wait_for(lambda: "Backfill s.backfill." in service.out(), what="the second look")
    (service.root / "go").touch()
    assert again.wait(20) == 0
    assert done(service) == ["11-20T00", "11-20T02", "11-20T04"]
    assert len(service.events("backfill_requested")) == 1
    assert is_clean(service)


def test_a_cancelled_backfill_asks_for_no_further_slot(service: Service, wait_for: WaitFor) -> None:
    service.schedule("s", "0 */2 20 11 *", service.dag("d", NOTE + "sleep 100"))
    started(service, wait_for)
    told = json.loads(service.command("backfill", "s", *HOURLY, "--detach", "--json").stdout)
    wait_for(lambda: done(service), what="the first run")
    assert service.command("cancel", "--backfill", told["backfill_id"]).returncode == 0
    wait_for(lambda: is_finished(service), what="its end")
    (end,) = service.events("backfill_finished")
    assert (end["is_cancelled"], end["ended"], len(service.events("run_requested"))) == (True, {"cancelled": 1}, 1)
    late = service.command("cancel", "--backfill", told["backfill_id"])
    assert (late.returncode, "; there is none" in late.stderr) == (2, True)
    assert is_clean(service)


def test_a_day_is_one_of_the_schedules_zone_and_days_that_it_is_closed_at_are_left_out(service: Service) -> None:
    service.schedule(
        "s",
        "0 3 * * *",
        service.dag("d", "true"),
        timezone="Europe/Berlin",
        blackout={"from": "2026-11-12", "to": "2026-11-13"},
    )
    plan = service.command("backfill", "s", "--from", "2026-11-11", "--until", "2026-11-14", "--dry-run", "--json")
    assert json.loads(plan.stdout)["slots"] == ["2026-11-11T02:00:00Z", "2026-11-13T02:00:00Z"], plan.stderr


def test_what_is_asked_for_while_no_service_runs_waits_for_one(service: Service, wait_for: WaitFor) -> None:
    service.schedule("s", "0 */2 * * *", service.dag("d", NOTE))
    told = service.command("backfill", "s", *HOURLY)
    assert (told.returncode, told.stderr) == (0, "no service runs on this log; the next one does it\n")
    started(service, wait_for)
    wait_for(lambda: is_finished(service), what="its end")
    assert len(done(service)) == 3
    assert is_clean(service)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("backfill dayly", "no backfill of it is open; name --from"),
        ("backfill dayly --from 2026-11-01", "no schedule `dayly`; did you mean `daily`?"),
        ("backfill daily --from soon", "--from 'soon': write an ISO 8601 time with its zone"),
        ("backfill daily --from 2030-01-01", "it has no fire time then at which it runs, or none that has come"),
        ("backfill minutely --from 2020-01-01", "there are more than 100000 fire times; ask for less at a time"),
        ("backfill minutely --from 0001-01-01", "there are more than 100000 fire times; ask for less at a time"),
        ("backfill daily --from 0001-01-01 --until 1970-01-01", "it has no fire time then at which it runs"),
        ("backfill daily --from 2026-11-01 --max-parallel 0", "0: write a whole number from 1 to 1000"),
    ],
)
def test_what_cannot_be_backfilled_is_told_in_a_line_and_nothing_is_recorded(
    service: Service, words: str, told: str
) -> None:
    service.schedule("daily", "0 9 * * *", service.dag("d", "true"))
    service.schedule("minutely", "* * * * *", "dags/d.yaml")
    done = service.command(*words.split())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert told in done.stderr
    assert service.events() == []


def asked_for(count: int, **fields: Any) -> list[dict[str, Any]]:
    slots = [1_795_000_000 + 60 * number for number in range(count)]
    events = backfill_requests("s.backfill.1", "s", {"dag": "d.yaml"}, slots, fields.get("max_parallel", 2), "a@b")
    return [{**event, "timestamp": "2026-11-24T12:00:00Z"} for event in events]


def test_a_checkpoint_keeps_the_slots_that_are_left_however_many() -> None:
    before = History(asked_for(5000))
    for request in list(next_events(before.backfills.open["s.backfill.1"])):
        before.apply({**request, "timestamp": "2026-11-24T12:00:00Z"})
    lines = [json.loads(json.dumps(event)) for event in before.checkpoint()]
    after = History(lines)
    assert after.unusable == 0
    assert max(len(json.dumps(line)) for line in lines) < 64 * 1024
    assert after.backfills.open == before.backfills.open
    assert (len(after.backfills.open["s.backfill.1"].slots), len(after.backfills.open["s.backfill.1"].open)) == (
        4998,
        2,
    )


def test_the_runs_of_a_backfill_wait_for_all_others() -> None:
    now = "2026-11-24T12:00:00Z"
    queue = RunQueue()
    for name, fields in {"old": {"backfill": "b", "priority": 100}, "low": {"priority": -100, "tenant": "x"}}.items():
        queue.put({"event": "run_requested", "run_id": name, "attempt": 1, "timestamp": now, **fields})
    assert [queue.get_nowait()["run_id"] for _ in range(2)] == ["low", "old"]


@pytest.mark.parametrize(
    ("minutes", "told"),
    [
        (("2026-11-18T11:06:40Z", "2026-11-18T11:06:40Z"), "and that has no such slot left"),
        (("2026-11-18T11:06:00Z",), "and that has no such slot left"),
        (("2026-11-18T11:06:40Z", "2026-11-18T11:07:40Z"), "has 2 open runs, and may have 1"),
    ],
)
def test_the_audit_refutes_a_backfill_that_asks_for_a_slot_twice_for_none_or_for_too_many(
    tmp_path: Path, minutes: tuple[str, ...], told: str
) -> None:
    log = tmp_path / "state.jsonl"
    for event in asked_for(3, max_parallel=1):
        record_event(event, log)
    assert audit(log, datetime.now(UTC)).is_clean
    for number, minute in enumerate(minutes):
        run = {"run_id": f"s.backfill.1.{number}", "attempt": 1, "minute": minute, "dag": "d.yaml"}
        record_event({"event": "run_requested", "backfill": "s.backfill.1", "for_schedule": "s", **run}, log)
    texts = [each.text for each in audit(log, datetime.now(UTC) + timedelta(seconds=1)).violations]
    assert any(told in text for text in texts), texts


def test_the_audit_refutes_a_backfill_that_was_forgotten(tmp_path: Path) -> None:
    log = tmp_path / "state.jsonl"
    for event in asked_for(3):
        record_event(event, log)
    (violation,) = audit(log, datetime.now(UTC), final=True).violations
    assert "is not finished: 3 slots left" in violation.text
