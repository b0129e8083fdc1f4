"""Retry and rerun: a further attempt of a run that has ended, and a new run like it."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from service import Service, WaitFor, kill9

from scheduler.audit import audit
from scheduler.repeats import kept_tasks
from scheduler.state_store import record_event
from workers.dag import Dag, Task
from workers.run_events import Kept
from workers.runner import run_dag


def started(service: Service, wait_for: WaitFor, **environ: str) -> subprocess.Popen[bytes]:
    process = service.start(**environ)
    wait_for(service.is_ready, what="the service")
    return process


def asked(done: subprocess.CompletedProcess[str]) -> str:
    found = re.search(r"^Requested (\S+)", done.stdout, re.MULTILINE)
    assert found, (done.stdout, done.stderr)
    return found[1]


def is_clean(service: Service) -> bool:
    report = audit(service.log, datetime.now(UTC), lateness_s=120)
    assert not report.violations, report.violations
    return True


def done(service: Service) -> list[str]:
    return [" ".join(line.split()[:2]) for line in (service.root / "done").read_text().splitlines()]


def test_a_retry_of_what_failed_runs_that_and_what_needs_it_with_the_outputs_of_before(
    service: Service, wait_for: WaitFor
) -> None:
    service.tasks(
        "etl",
        {"id": "extract", "run": 'echo "extract $ATTEMPT $FIRE_TIME" >> done; echo "n=$$" >> "$TASK_OUTPUT"'},
        {
            "id": "load",
            "run": 'echo "load $ATTEMPT $FIRE_TIME" >> done; echo ${tasks.extract.outputs.n} >> n; test -e good',
            "needs": ["extract"],
        },
        {"id": "report", "run": 'echo "report $ATTEMPT $FIRE_TIME" >> done', "needs": ["load"]},
        {"id": "other", "run": 'echo "other $ATTEMPT $FIRE_TIME" >> done'},
    )
    service.schedule("s", "* * * * *", "dags/etl.yaml", params={})
    service.command("tick", "--now", "2026-11-24T09:00:00Z")
    run_id = "s.20261124T0900Z"
    assert service.story(run_id)[-1] == "run_finished 1 failed"
    (service.root / "schedules" / "s.yaml").unlink()
    service.schedule("never", "0 0 1 1 *", "dags/etl.yaml")
    started(service, wait_for)
    (service.root / "good").touch()
    told = service.command("retry", run_id, "--failed", "--wait")
    assert (told.returncode, told.stdout.splitlines()[0]) == (0, f"Requested {run_id} attempt 2")
    assert service.story(run_id)[-2:] == ["run_started 2", "run_finished 2 success"]
    assert sorted(done(service)) == ["extract 1", "load 1", "load 2", "other 1", "report 2"]
    lines = (service.root / "done").read_text().splitlines()
    assert {line.split()[2] for line in lines} == {"2026-11-24T09:00:00Z"}
    first, second = (service.root / "n").read_text().split()
    assert first == second
    (end,) = (each for each in service.events("run_finished") if each["attempt"] == 2)
    assert (end["schedule_id"], end["minute"], end["tasks"]) == ("s", "2026-11-24T09:00:00Z", {"success": 4})
    again = service.command("retry", run_id, "--failed")
    assert (again.returncode, again.stderr) == (
        2,
        f"no task of run `{run_id}` has failed; leave out --failed, or name --from TASK\n",
    )
    assert service.command("retry", run_id, "--from", "report", "--wait").returncode == 0
    assert done(service)[-1] == "report 3"
    assert service.command("retry", run_id, "--wait").returncode == 0
    assert sorted(done(service)[-4:]) == ["extract 4", "load 4", "other 4", "report 4"]
    assert is_clean(service)


def test_a_retry_asked_for_while_no_service_runs_waits_for_one_and_keeps_its_outputs(
    service: Service, wait_for: WaitFor
) -> None:
    dag = service.tasks(
        "d", {"id": "a", "run": "echo x >> a"}, {"id": "b", "run": "echo x >> b; test -e good", "needs": ["a"]}
    )
    process = started(service, wait_for)
    run_id = service.ask(dag)
    wait_for(lambda: service.has_ended(run_id), what="the first attempt")
    kill9(process)
    (service.root / "good").touch()
    told = service.command("retry", run_id, "--failed")
    assert told.stderr == "no service runs on this log; the run waits for one\n"
    second = service.command("retry", run_id)
    assert (second.returncode, second.stderr) == (2, f"run `{run_id}` has not ended; `tickpool cancel` ends it\n")
    started(service, wait_for)
    wait_for(lambda: "run_finished 2 success" in service.story(run_id), what="the second attempt")
    assert ((service.root / "a").read_text(), (service.root / "b").read_text()) == ("x\n", "x\nx\n")
    assert is_clean(service)


def test_several_who_retry_one_run_at_once_give_it_one_attempt(service: Service, wait_for: WaitFor) -> None:
    started(service, wait_for)
    run_id = service.ask(service.dag("d", "echo x >> x; false"))
    wait_for(lambda: service.has_ended(run_id), what="the first attempt")
    several = [service.launch("-m", "scheduler.cli", "retry", run_id, "--wait") for _ in range(4)]
    codes = sorted(each.wait(20) for each in several)
    attempts = service.starts()
    assert set(attempts.values()) == {1}
    assert codes.count(1) == len(attempts) - 1 >= 1
    assert set(codes) <= {1, 2}
    assert is_clean(service)


def test_a_service_killed_at_a_retry_neither_loses_nor_repeats_it(service: Service, wait_for: WaitFor) -> None:
    process = started(service, wait_for)
    dag = service.tasks(
        "d",
        {"id": "a", "run": "echo x >> a"},
        {"id": "b", "run": 'echo x >> b; test "$ATTEMPT" = 1 && exit 1; sleep 1', "needs": ["a"]},
    )
    run_id = service.ask(dag)
    wait_for(lambda: service.has_ended(run_id), what="the first attempt")
    service.command("retry", run_id, "--failed")
    wait_for(lambda: "run_started 2" in service.story(run_id), what="the second attempt")
    kill9(process)
    started(service, wait_for)
    wait_for(lambda: "run_finished 2 success" in service.story(run_id), what="its end")
    assert ((service.root / "a").read_text(), (service.root / "b").read_text()) == ("x\n", "x\nx\n")
    assert is_clean(service)


def test_a_rerun_is_a_new_run_with_the_definition_of_today_or_as_it_was(service: Service, wait_for: WaitFor) -> None:
    dag = {"id": "d", "params": {"who": "a"}, "tasks": [{"id": "t", "run": 'echo "old ${params.who} $FIRE_TIME" >> o'}]}
    (service.root / "dags" / "d.yaml").write_text(json.dumps(dag))
    service.schedule("s", "* * * * *", "dags/d.yaml", params={"who": "b"}, priority=1)
    service.command("tick", "--now", "2026-11-24T09:00:00Z")
    run_id = "s.20261124T0900Z"
    dag["tasks"] = [{"id": "t", "run": 'echo "new ${params.who} $FIRE_TIME" >> o'}]
    (service.root / "dags" / "d.yaml").write_text(json.dumps(dag))
    service.schedule("s", "0 0 1 1 *", "dags/d.yaml", params={"who": "c"}, priority=2)
    started(service, wait_for)
    today = service.command("rerun", run_id, "--wait")
    as_was = service.command("rerun", run_id, "--as-was", "--wait")
    again = service.command("rerun", asked(as_was), "--as-was", "--wait")
    assert [each.returncode for each in (today, as_was, again)] == [0, 0, 0], (today, as_was, again)
    assert (service.root / "o").read_text().splitlines() == [
        f"{text} b 2026-11-24T09:00:00Z" for text in ("old", "new", "old", "old")
    ]
    first, second, _ = service.events("run_requested")
    assert (first["priority"], second["priority"], second["rerun_of"]) == (2, 1, run_id)
    assert all(each["for_schedule"] == "s" and "schedule_id" not in each for each in (first, second))
    assert asked(today).startswith("s.manual.")
    assert is_clean(service)


def test_a_copy_of_a_dag_that_was_altered_is_not_run(service: Service, wait_for: WaitFor) -> None:
    started(service, wait_for)
    run_id = service.ask(service.dag("d", "true"))
    wait_for(lambda: service.has_ended(run_id), what="the run")
    (copy,) = (service.root / "logs" / "runs" / ".dags").iterdir()
    copy.write_text(copy.read_text().replace("true", "touch ill"))
    told = service.command("rerun", run_id, "--as-was", "--wait")
    assert (told.returncode, "it is not as it was written" in told.stdout) == (1, True)
    assert not (service.root / "ill").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("retry nobody", "no run `nobody`; allowed: asked.1, gone.1"),
        ("retry asked.1 --from lod", "DAG `d` has no task `lod`; did you mean `load`?\n"),
        ("rerun gone.1", "run `gone.1` cannot be repeated: there is no schedule `gone` any more; --as-was runs it"),
        (
            "rerun hidden.1",
            "run `hidden.1` cannot be repeated: its params are on record as `***`; trigger it with -p\n",
        ),
        ("rerun hand.1", "run `hand.1` cannot be repeated: its request is not on record any more\n"),
        ("rerun gone.1 --as-was", "run `gone.1` cannot be repeated: no copy of its DAG was kept; leave out --as-was\n"),
    ],
)
def test_what_cannot_be_repeated_is_told_in_a_line(service: Service, words: str, told: str) -> None:
    dag = service.tasks("d", {"id": "load", "run": "true"})
    ends: list[dict[str, Any]] = [
        {"run_id": "asked.1", "dag": dag},
        {"run_id": "gone.1", "dag": dag, "for_schedule": "gone"},
        {"run_id": "hidden.1", "dag": dag, "params": {"token": "***"}},
        {"run_id": "hand.1"},
    ]
    for fields in ends:
        record_event({"event": "run_requested", "attempt": 1, "project": str(service.root), **fields}, service.log)
        end = {"run_id": fields["run_id"], "attempt": 1, "status": "cancelled", "reason": "start_deadline"}
        record_event({"event": "run_finished", **end}, service.log)
    done = service.command(*words.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert len(service.events()) == 2 * len(ends)


def word(status: str, event: str = "task_finished") -> dict[str, Any]:
    return {"event": event, "status": status}


DAG = Dag(
    "d",
    (
        Task("a", "true"),
        Task("b", "true", needs=("a",)),
        Task("c", "true", needs=("b",), trigger_rule="all_done"),
        Task("d", "true", needs=("a",), skip_on_exit_code=(9,)),
        Task("e", "true", needs=("d",)),
    ),
)


@pytest.mark.parametrize(
    ("words", "first", "kept"),
    [
        ({"a": word("success"), "b": word("failed"), "c": word("success"), "d": word("skipped")}, None, "a d"),
        ({"a": word("success"), "b": word("success"), "c": word("success"), "d": word("success")}, None, "a b c d"),
        ({name: word("success") for name in "abcde"}, "b", "a d e"),
        ({name: word("success") for name in "abcde"}, "a", ""),
        ({"a": word("success", "task_kept"), "b": word("success", "task_kept"), "c": word("failed")}, None, "a b"),
        ({"a": word("skipped", "task_skipped"), "b": word("success")}, None, ""),
        ({}, None, ""),
    ],
)
def test_what_has_ended_well_is_kept_unless_something_it_needs_runs_again(
    words: dict[str, Any], first: str | None, kept: str
) -> None:
    assert kept_tasks(DAG, words, first) == set(kept.split())


def test_kept_tasks_do_not_run_and_count_for_trigger_rules_as_they_ended(tmp_path: Path) -> None:
    file = tmp_path / "dags" / "d.yaml"
    file.parent.mkdir()
    tasks = [
        {"id": "a", "run": "touch a"},
        {"id": "b", "run": "echo ${tasks.a.outputs.n} > b", "needs": ["a"]},
        {"id": "s", "run": "touch s"},
        {"id": "t", "run": "touch t", "needs": ["s"]},
        {"id": "u", "run": "touch u", "needs": ["s"], "trigger_rule": "all_skipped"},
    ]
    file.write_text(json.dumps({"id": "d", "tasks": tasks}))
    events: list[dict[str, Any]] = []
    kept = {"a": Kept("success", {"n": 7}), "s": Kept("skipped", {}), "gone": Kept("success", {})}
    result = run_dag(file, kept=kept, record=events.append)
    assert {name: task["status"] for name, task in result["tasks"].items()} == {
        "a": "success",
        "b": "success",
        "s": "skipped",
        "t": "skipped",
        "u": "success",
    }
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["b", "u"]
    assert (tmp_path / "b").read_text() == "7\n"
    assert [event["task_id"] for event in events if event["event"] == "task_kept"] == ["a", "s"]


@pytest.mark.parametrize(
    ("fields", "is_fine"),
    [
        ({"retry_of": 1, "attempt": 2, "by": "a@b"}, True),
        ({"retry_of": 1, "attempt": 2}, False),
        ({"retry_of": 1, "attempt": 3, "by": "a@b"}, False),
        ({"attempt": 2, "by": "a@b"}, False),
    ],
)
def test_the_audit_takes_an_ended_run_up_again_only_where_somebody_asked_for_its_next_attempt(
    tmp_path: Path, fields: dict[str, Any], is_fine: bool
) -> None:
    log = tmp_path / "state.jsonl"
    request = {"event": "run_requested", "run_id": "r.1", "dag": "d.yaml"}
    record_event({**request, "attempt": 1, "start_by": "2026-11-24T09:00:00Z"}, log)
    end = {"event": "run_finished", "run_id": "r.1", "attempt": 1, "status": "cancelled", "reason": "start_deadline"}
    record_event(end, log)
    record_event({**request, **fields}, log)
    texts = [each.text for each in audit(log, datetime.now(UTC)).violations]
    assert texts == ([] if is_fine else ["run `r.1` is asked for again"])
