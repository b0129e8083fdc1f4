"""`tickpool status` against a real service: what it says, and the exit code a monitor reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from service import REPOSITORY, Service, kill9

from scheduler.history import History
from scheduler.service_processes import processes
from scheduler.state_store import record_event
from scheduler.status import gather
from scheduler.status_text import render, render_runs
from scheduler.text import table
from workers.events import Event
from workers.process_id import identity
from workers.settings import Settings

WaitFor = Callable[..., None]


def status(service: Service) -> tuple[dict[str, Any], int]:
    """Return what `status --json` says, and its exit code."""
    done = ask(service, "--json")
    return json.loads(done.stdout), done.returncode


def ask(service: Service, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), **service.environ}
    command = [sys.executable, "-m", "scheduler.cli", "status", *words]
    return subprocess.run(command, cwd=service.root, env=env, capture_output=True, text=True, timeout=30, check=False)


def test_a_service_that_was_never_started_is_down(service: Service) -> None:
    told, code = status(service)
    assert code == 2
    assert told["health"] == "down"
    assert told["supervisor"]["pid"] is None
    assert told["workers"] == []
    assert told["last_runs"] == []


def test_a_running_service_shows_supervisor_workers_run_queue_and_next_fires(
    service: Service, wait_for: WaitFor
) -> None:
    sleeper = service.dag("sleeper", "sleep 30 & wait")
    service.schedule("yearly", "0 0 1 1 *", sleeper)
    supervisor = service.start()
    wait_for(service.is_ready, what="the service")
    asked = [service.ask(sleeper) for _ in range(3)]
    wait_for(lambda: len(service.events("run_started")) == 2, what="two runs on two workers")

    told, code = status(service)
    assert (told["health"], code, told["problems"]) == ("well", 0, [])
    assert told["supervisor"]["pid"] == supervisor.pid
    assert told["supervisor"]["rss_bytes"] > 1_000_000
    assert sorted(worker["run_id"] for worker in told["workers"]) == asked[:2]
    assert {worker["state"] for worker in told["workers"]} == {"busy"}
    assert all(worker["elapsed_s"] >= 0 and worker["rss_bytes"] > 0 for worker in told["workers"])
    wait_for(lambda: min(worker["children"] for worker in status(service)[0]["workers"]) >= 1, what="their children")
    assert told["queue"]["depth"] == 1
    assert told["queue"]["runs"][0]["run_id"] == asked[2]
    assert told["queue"]["oldest_wait_s"] >= 0
    assert [row["schedule_id"] for row in told["next"]] == ["yearly"]
    assert told["corrupt_lines"] == 0

    text = ask(service).stdout
    assert "tickpool: ok" in text
    assert f"pid {supervisor.pid}" in text
    assert all(run_id in text for run_id in asked[:2])


def test_ended_runs_are_listed_newest_first_with_their_reason(service: Service, wait_for: WaitFor) -> None:
    good, bad = service.dag("good", "true"), service.dag("bad", "exit 7")
    service.start()
    first = service.ask(good)
    wait_for(lambda: service.has_ended(first), what="the good run")
    second = service.ask(bad)
    wait_for(lambda: service.has_ended(second), what="the bad run")
    told, code = status(service)
    assert code == 0
    assert [(run["run_id"], run["status"]) for run in told["last_runs"]] == [(second, "failed"), (first, "success")]
    assert "exit code 7" in told["last_runs"][0]["reason"]


def test_a_killed_service_is_down_and_its_open_run_is_named(service: Service, wait_for: WaitFor) -> None:
    supervisor = service.start()
    wait_for(service.is_ready, what="the service")
    kill9(supervisor)
    told, code = status(service)
    assert code == 2
    assert "is gone without having stopped" in told["supervisor"]["reason"]


def test_a_configuration_fault_degrades_until_it_is_mended(service: Service, wait_for: WaitFor) -> None:
    service.schedule("fine", "0 0 1 1 *", service.dag("d", "true"))
    service.start()
    wait_for(service.is_ready, what="the service")
    bad = service.root / "schedules" / "bad.yaml"
    bad.write_text("- id: x\n  cron: every day\n  dag: dags/d.yaml\n")
    wait_for(lambda: status(service)[1] == 1, what="exit 1")
    problem = status(service)[0]["problems"][0]
    assert "bad.yaml:2:9" in problem
    bad.unlink()
    wait_for(lambda: status(service)[1] == 0, what="exit 0")


def test_a_corrupt_line_is_counted_and_degrades(service: Service, wait_for: WaitFor) -> None:
    service.start()
    wait_for(service.is_ready, what="the service")
    with service.log.open("ab") as log:
        log.write(b'{"event": "half\n\x00\xff\n')
    told, code = status(service)
    assert (told["corrupt_lines"], told["health"], code) == (2, "degraded", 1)


def test_watch_shows_the_status_again_and_again(service: Service) -> None:
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "scheduler.cli", "status", "--watch", "0.05"]
    with subprocess.Popen(command, cwd=service.root, env=env, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        seen = 0
        for line in watching.stdout:
            seen += line.startswith("tickpool: DOWN")
            if seen == 3:
                break
        watching.kill()
    assert seen == 3


def test_an_open_run_without_a_process_is_a_problem(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    record_event({"event": "run_requested", "run_id": "r", "dag": "d"}, log)
    record_event({"event": "run_started", "run_id": "r", "attempt": 1, "pid": 2**22 - 1, "boot_id": "other"}, log)
    told = gather(Settings(state_path=str(log)), datetime.now(UTC))
    assert told.workers[0].state == "gone"
    assert any("run r is open but its process" in problem for problem in told.problems)


def test_the_processes_of_all_workers_are_counted_in_one_look_at_the_process_table(wait_for: WaitFor) -> None:
    command = [sys.executable, "-c", "import subprocess; subprocess.run(['cat'])"]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(3)]
    events: list[Event] = []
    for worker in workers:
        run = {"run_id": f"r.{worker.pid}", "attempt": 1, "timestamp": "2026-11-29T12:00:00Z"}
        events += [{"event": "run_requested", "dag": "d", **run}]
        events += [{"event": "run_started", **identity(worker.pid)._asdict(), **run}]
    history, looks = History(events), list[object]()

    def children() -> list[int]:
        return [each.children for each in processes(history, datetime.now(UTC))[1]]

    def note(_: object, event: str, called: object) -> None:
        if event == "c_call" and called is os.listdir:
            looks.append(called)

    try:
        wait_for(lambda: children() == [1, 1, 1], what="a child of each")
        sys.setprofile(note)
        children()
    finally:
        sys.setprofile(None)
        for worker in workers:
            worker.communicate()
    assert len(looks) == 1


def test_a_spec_or_a_time_that_cannot_be_read_hides_nothing_else(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    specs = {
        "newer": {"cron": "@sunrise", "timezone": "UTC", "enabled": True},
        "moon": {"cron": "* * * * *", "timezone": "Moon/Tycho", "enabled": True},
        "fine": {"cron": "0 0 1 1 *", "timezone": "UTC", "enabled": True},
    }
    record_event({"event": "schedules_loaded", "since": "2026-11-23T15:05:00Z", "specs": specs}, log)
    record_event({"event": "run_requested", "run_id": "r", "dag": "d", "timestamp": "long ago"}, log)
    told = gather(Settings(state_path=str(log)), datetime.now(UTC))
    assert [row.schedule_id for row in told.next] == ["fine"]
    assert told.queue.depth == 1


def test_what_tasks_wrote_reaches_no_terminal_as_control_characters() -> None:
    run = {"run_id": "r", "status": "failed", "timestamp": "2026-11-23T15:05:00Z", "reason": "\x1b[2Jboo\x07\u202e"}
    text = render_runs([run], datetime.now(UTC))
    assert "boo" in text
    assert not set("\x1b\x07\u202e") & set(text)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0s"), (59.94, "59.9s"), (61, "1m 1s"), (3700, "1h 1m"), (90000, "1d 1h"), (None, "-")],
)
def test_spans_are_shown_in_two_units(seconds: float | None, shown: str) -> None:
    run = {"run_id": "r", "status": "success", "timestamp": "2026-11-23T15:05:00Z", "duration_s": seconds}
    assert shown in render_runs([run], datetime.now(UTC))


def test_a_table_is_as_wide_as_its_cells() -> None:
    assert table(("A", "BB"), [("xyz", 1), ("", 22)]) == "A    BB\nxyz  1\n     22"


def test_problems_come_first() -> None:
    told = gather(Settings(state_path="nowhere/log.jsonl"), datetime.now(UTC))
    assert render(told, datetime.now(UTC)).splitlines()[1].startswith("  ! the service is down")
