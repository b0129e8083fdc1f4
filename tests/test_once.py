"""`--once`: one minute judged once, whoever else is there; its exit code is the outcome of its runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from service import Service, is_running, kill9

WaitFor = Callable[..., None]
WAIT = "touch up; while [ ! -e go ]; do sleep 0.02; done"


def _minutes(service: Service) -> list[str]:
    return [event["minute"] for event in service.events("schedule_enqueued")]


@pytest.mark.parametrize(("run", "code", "status"), [("true", 0, "success"), ("exit 7", 1, "failed")])
def test_the_exit_code_is_the_outcome_of_its_runs(service: Service, run: str, code: int, status: str) -> None:
    service.schedule("s", "* * * * *", service.dag("d", run))
    assert service.start("--once").wait(20) == code
    lines = service.out().splitlines()
    assert lines[:3] == ["Loaded 1 schedule(s) from schedules", "Running single tick...", "Enqueued 1 run(s)"]
    assert lines[3].split()[0] == status
    assert service.err() == ""


def test_nothing_due_starts_no_worker_and_is_well(service: Service) -> None:
    service.schedule("s", "0 0 29 2 *", service.dag("d", "true"))
    assert service.start("--once").wait(20) == 0
    assert service.out().splitlines()[-1] == "Enqueued 0 run(s)"
    assert [event["event"] for event in service.events()] == ["schedules_loaded"]


def test_ten_at_once_run_the_minute_once_and_all_end_well(service: Service) -> None:
    for name in ("a", "b"):
        service.schedule(name, "* * * * *", service.dag(name, "echo $RUN_ID >> effects"))
    all_ten = [service.start("--once") for _ in range(10)]
    assert [process.wait(60) for process in all_ten] == [0] * 10
    assert len(set(service.starts())) == len(_minutes(service))
    assert set(service.starts().values()) == {1}
    ran = (service.root / "effects").read_text("ascii").split()
    assert sorted(ran) == sorted(event["run_id"] for event in service.events("schedule_enqueued"))


@pytest.mark.parametrize(("run", "code"), [("true", 0), ("false", 1)])
def test_beside_a_service_its_minute_is_run_once_and_the_outcome_is_its_own(
    service: Service, wait_for: WaitFor, run: str, code: int
) -> None:
    others = service.dag("others", "exit 9" if code == 0 else "true")
    service.start()
    wait_for(service.is_ready)
    # The service does not know this one: it stands in a directory of its own.
    (service.root / "ci").mkdir()
    service.schedule("s", "* * * * *", service.dag("d", f"sleep 0.2; {run}"))
    (service.root / "schedules" / "s.yaml").rename(service.root / "ci" / "s.yaml")
    once = service.start("--once", "--dir", "ci")
    asked = service.ask(others)
    assert once.wait(20) == code
    wait_for(lambda: service.has_ended(asked))
    assert set(service.starts().values()) == {1}
    workers = {event["pid"] for event in service.events("run_started")}
    assert once.pid not in workers
    assert asked not in service.out()


def test_it_takes_over_when_the_service_it_waits_for_is_killed(service: Service, wait_for: WaitFor) -> None:
    held = service.dag("held", WAIT)
    supervisor = service.start(SCHED_MAX_PARALLEL="1")
    wait_for(service.is_ready)
    blocking = service.ask(held)
    wait_for((service.root / "up").exists)
    (service.root / "ci").mkdir()
    service.schedule("s", "* * * * *", service.dag("d", "true"))
    (service.root / "schedules" / "s.yaml").rename(service.root / "ci" / "s.yaml")
    once = service.start("--once", "--dir", "ci")
    wait_for(lambda: "Enqueued 1 run(s)" in service.out())
    kill9(supervisor)
    # It does not wait for the run that the killed service's worker still has.
    assert once.wait(20) == 0
    assert service.story(blocking) == ["run_started 1"]
    (service.root / "go").touch()
    wait_for(lambda: service.has_ended(blocking))
    assert set(service.starts().values()) == {1}


def test_runs_that_a_service_left_waiting_are_run_too(service: Service) -> None:
    asked = service.ask(service.dag("d", "true"))
    assert service.start("--once").wait(20) == 0
    assert service.story(asked) == ["run_started 1", "run_finished 1 success"]
    assert asked in service.out()


def test_attempts_are_made_before_it_ends(service: Service) -> None:
    service.schedule("s", "* * * * *", service.dag("d", "[ $ATTEMPT = 2 ]"), retries={"max": 2, "delay": "0s"})
    assert service.start("--once").wait(20) == 0
    (run_id,) = {event["run_id"] for event in service.events("run_started")}
    assert service.story(run_id)[-1] == "run_finished 2 success"


def test_a_moment_long_ago_does_not_date_what_happens_now(service: Service) -> None:
    service.schedule("s", "0 9 * * *", service.dag("d", "false"), retries={"max": 1, "delay": "1s"})
    words = ("-c", "from scheduler.cli import main; raise SystemExit(main())")
    process = service.launch(*words, "tick", "--dir", "schedules", "--now", "2026-01-05T09:00:10Z")
    assert process.wait(20) == 1
    first, second = service.events("run_finished")
    assert first["minute"] == "2026-01-05T09:00:00Z"
    assert abs((datetime.fromisoformat(first["retry_at"]) - datetime.now(UTC)).total_seconds()) < 60
    assert second["attempt"] == 2


def test_crashed_runs_of_a_killed_service_are_closed_in_the_present_and_do_not_count(
    service: Service, wait_for: WaitFor
) -> None:
    held = service.dag("held", WAIT)
    supervisor = service.start()
    asked, again = service.ask(held), service.ask(held, retry_on_crash=True)
    wait_for(lambda: service.events("run_started", asked) and service.events("run_started", again))
    workers = [event["pid"] for event in service.events("run_started")]
    kill9(supervisor)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    wait_for(lambda: not any(map(is_running, workers)))
    (service.root / "go").touch()
    words = ("-c", "from scheduler.cli import main; raise SystemExit(main())")
    once = service.launch(*words, "tick", "--dir", "schedules", "--now", "2026-01-05T09:00:10Z")
    assert once.wait(20) == 0
    assert service.story(asked) == ["run_started 1", "run_finished 1 crashed"]
    assert service.story(again)[1:] == ["run_finished 1 crashed", "run_started 2", "run_finished 2 success"]
    retry_at = datetime.fromisoformat(service.events("run_finished", again)[0]["retry_at"])
    assert abs((retry_at - datetime.now(UTC)).total_seconds()) < 60


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_when_it_is_stopped_its_run_is_cancelled_and_nothing_is_left(
    service: Service, wait_for: WaitFor, number: signal.Signals
) -> None:
    service.schedule("s", "* * * * *", service.dag("d", "echo $$ > pid; exec sleep 300"))
    once = service.start("--once")
    pid = service.root / "pid"
    wait_for(lambda: pid.exists() and pid.read_text("ascii").endswith("\n"))
    once.send_signal(number)
    assert once.wait(20) == 130
    assert [event["status"] for event in service.events("run_finished")] == ["cancelled"]
    assert not is_running(int(pid.read_text("ascii")))


def test_runs_of_dag_tasks_are_run_to_their_end(service: Service) -> None:
    service.dag("sub", "echo sub >> effects")
    dag = service.tasks("d", {"id": "sub", "dag": "dags/sub.yaml"}, {"id": "t", "run": "echo t >> effects"})
    service.schedule("s", "* * * * *", dag)
    assert service.start("--once", SCHED_MAX_PARALLEL="1").wait(20) == 0
    assert sorted((service.root / "effects").read_text("ascii").split()) == ["sub", "t"]
    assert [event["status"] for event in service.events("run_finished")] == ["success", "success"]


def test_a_run_that_asks_is_waited_for_in_a_line_that_says_who_is_to_answer(
    service: Service, wait_for: WaitFor
) -> None:
    service.schedule("s", "0 9 * * *", service.tasks("d", {"id": "ok", "approval": "Release?"}))
    words = ("-m", "scheduler.cli", "tick", "--dir", "schedules", "--now", "2026-11-24T09:00:00Z")
    once = service.launch(*words)
    run_id = "s.20261124T0900Z"
    wait_for(lambda: service.events("run_parked", run_id), what="the question")
    line = f"  asks      {run_id}  Release? (`tickpool approve {run_id} ok`)"
    wait_for(lambda: line in service.out().splitlines(), what="the line")
    assert once.poll() is None
    assert service.command("approve", run_id).returncode == 0
    assert once.wait(20) == 0


def test_a_run_that_waits_for_another_run_or_a_time_says_so_and_when_it_is_stopped_it_stays_parked(
    service: Service, wait_for: WaitFor
) -> None:
    waits = [{"id": "r", "wait": {"run": "other.1.20261124T0900Z"}}, {"id": "w", "wait": {"delay": "1h"}}]
    service.schedule("s", "0 9 * * *", service.tasks("d", *waits))
    words = ("-m", "scheduler.cli", "tick", "--dir", "schedules", "--now", "2026-11-24T09:00:00Z")
    once = service.launch(*words)
    run_id = "s.20261124T0900Z"
    told = f"  waits     {run_id}  for run other.1.20261124T0900Z and until "
    wait_for(lambda: told in service.out(), what="the line")
    once.send_signal(signal.SIGTERM)
    assert once.wait(20) == 130
    assert service.story(run_id) == ["run_started 1", "run_parked 1"]


def test_a_parked_run_of_others_is_not_waited_for_and_goes_on_when_it_is_due(
    service: Service, wait_for: WaitFor
) -> None:
    service.schedule("none", "0 0 1 1 *", service.tasks("d", {"id": "ok", "approval": "Release?"}))
    supervisor = service.start()
    wait_for(service.is_ready)
    asked = service.ask("dags/d.yaml")
    wait_for(lambda: service.events("run_parked", asked))
    kill9(supervisor)
    assert service.start("--once").wait(20) == 0
    assert service.story(asked) == ["run_started 1", "run_parked 1"]
    service.command("approve", asked)
    assert service.start("--once").wait(20) == 0
    assert service.story(asked)[-1] == "run_finished 1 success"
