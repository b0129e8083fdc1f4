"""Parked runs: approvals, times, other runs and runs of `dag` tasks, with services that run, die and come back."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from service import Service, WaitFor, kill9

from scheduler.audit import audit
from scheduler.durations import read_durations
from scheduler.state_store import record_event

NOTE = 'echo "$TASK_ID $ATTEMPT" >> done'


def started(service: Service, wait_for: WaitFor, **environ: str) -> subprocess.Popen[bytes]:
    process = service.start(**environ)
    wait_for(service.is_ready, what="the service")
    return process


def asked(done: subprocess.CompletedProcess[str]) -> str:
    found = re.search(r"^Requested (\S+)", done.stdout, re.MULTILINE)
    assert found, (done.stdout, done.stderr)
    return found[1]


def is_clean(service: Service, *, final: bool = True) -> bool:
    report = audit(service.log, datetime.now(UTC), lateness_s=20, final=final)
    assert not report.violations, report.violations
    return True


def done(service: Service) -> list[str]:
    file = service.root / "done"
    return file.read_text().splitlines() if file.exists() else []


def is_parked(service: Service, run_id: str) -> bool:
    told = [each["event"] for each in service.events(run_id=run_id) if each["event"].startswith("run_")]
    return told[-1:] == ["run_parked"]


def end_of(service: Service, run_id: str) -> dict[str, Any]:
    (end,) = service.events("run_finished", run_id)
    return end


def tasks_of(service: Service, run_id: str) -> dict[str, dict[str, Any]]:
    lines = (service.root / "logs" / "orchestrator_events.jsonl").read_text().splitlines()
    events = [event for event in map(json.loads, lines) if event["run_id"] == run_id]
    return {event["task_id"]: event for event in events if event["event"] in ("task_finished", "task_skipped")}


def release(service: Service, **approval: Any) -> str:
    """Write a DAG that builds, asks, and releases."""
    return service.tasks(
        "d",
        {"id": "build", "run": f'{NOTE}; echo x > "$RUN_DIR/kept"; echo n=5 >> "$TASK_OUTPUT"'},
        {"id": "ok", "approval": {"message": "Release ${tasks.build.outputs.n}?"}, "needs": ["build"], **approval},
        {"id": "go", "run": f'{NOTE}; test -e "$RUN_DIR/kept"; echo ${{tasks.ok.outputs.by}} > by', "needs": ["ok"]},
        {"id": "always", "run": NOTE, "needs": ["ok"], "trigger_rule": "all_done"},
    )


def test_a_run_that_asks_leaves_its_worker_and_goes_on_when_it_is_approved(service: Service, wait_for: WaitFor) -> None:
    started(service, wait_for, SCHED_MAX_PARALLEL="1")
    run_id = asked(service.command("trigger", release(service)))
    wait_for(lambda: is_parked(service, run_id), what="the question")
    # Its worker is free for others.
    other = service.ask(service.dag("other", "true"))
    wait_for(lambda: service.has_ended(other), what="the other run")
    status = json.loads(service.command("status", "--json").stdout)
    (question,) = status["approvals"]
    assert (question["run_id"], question["task_id"], question["message"]) == (run_id, "ok", "Release 5?")
    assert (status["queue"]["depth"], [each["run_id"] for each in status["parked"]]) == (0, [run_id])
    assert "Release 5?" in service.command("status").stdout
    shown = json.loads(service.command("show", run_id, "--json").stdout)
    tasks = {task["task_id"]: (task["status"], task["reason"]) for task in shown["tasks"]}
    assert (shown["status"], tasks["ok"], tasks["go"]) == ("parked", ("waiting", "asks: Release 5?"), ("waiting", None))
    told = service.command("approve", run_id, "--comment", "looks good")
    assert (told.returncode, told.stdout, told.stderr) == (0, f"Approved ok of {run_id}\n", "")
    wait_for(lambda: service.has_ended(run_id), what="its end")
    assert sorted(done(service)) == ["always 1", "build 1", "go 1"]
    assert re.fullmatch(r"\S+@\S+\n", (service.root / "by").read_text())
    end = end_of(service, run_id)
    assert (end["status"], end["attempt"], end["tasks"]) == ("success", 1, {"success": 4})
    assert tasks_of(service, run_id)["ok"]["outputs"]["comment"] == "looks good"
    assert service.story(run_id) == [
        "run_started 1", "run_parked 1", "run_resumed 1", "run_started 1", "run_finished 1 success",
    ]  # fmt: skip
    assert is_clean(service)


def test_a_rejected_task_fails_with_who_and_why_and_its_trigger_rules_hold(service: Service, wait_for: WaitFor) -> None:
    started(service, wait_for)
    run_id = service.ask(release(service))
    wait_for(lambda: is_parked(service, run_id), what="the question")
    told = json.loads(service.command("reject", run_id, "ok", "--comment", "not on a Friday", "--json").stdout)
    assert told["event"] == "task_rejected"
    wait_for(lambda: service.has_ended(run_id), what="its end")
    end = end_of(service, run_id)
    assert end["status"] == "failed"
    assert end["reason"].startswith("task `ok` failed: rejected by ")
    assert end["reason"].endswith(": not on a Friday")
    assert sorted(done(service)) == ["always 1", "build 1"]
    # Whoever tries what failed once more is asked once more.
    service.command("retry", run_id, "--failed")
    wait_for(lambda: len(service.events("run_parked", run_id)) == 2, what="the second question")
    service.command("approve", run_id)
    wait_for(lambda: len(service.events("run_finished", run_id)) == 2, what="the second end")
    assert sorted(done(service)) == ["always 1", "always 2", "build 1", "go 2"]
    assert is_clean(service)


@pytest.mark.parametrize(
    ("default", "status", "reason"),
    [
        ("approve", "success", None),
        ("reject", "failed", "task `ok` failed: rejected by nobody: nobody answered within 3s"),
        (None, "failed", "task `ok` timed out after 3s"),
    ],
)
def test_a_question_that_nobody_answers_in_time_has_its_default(
    service: Service, wait_for: WaitFor, default: str | None, status: str, reason: str | None
) -> None:
    approval = {"message": "Release?", **({"default": default} if default else {})}
    dag = release(service, approval=approval, timeout="3s")
    started(service, wait_for)
    run_id = service.ask(dag)
    wait_for(lambda: service.has_ended(run_id), timeout=20, what="its end")
    end = end_of(service, run_id)
    assert (end["status"], end["reason"]) == (status, reason)
    assert [each["reason"] for each in service.events("run_resumed", run_id)] == ["time"]
    assert is_clean(service)


def test_what_is_approved_while_no_service_runs_goes_on_with_the_next_one(service: Service, wait_for: WaitFor) -> None:
    process = started(service, wait_for)
    run_id = service.ask(release(service))
    wait_for(lambda: is_parked(service, run_id), what="the question")
    kill9(process)
    # The DAG of then is the one that goes on.
    (service.root / "dags" / "d.yaml").write_text('{"id": "d", "tasks": [{"id": "x", "run": "echo wrong >> done"}]}')
    told = service.command("approve", run_id)
    assert (told.returncode, told.stderr.startswith("no service runs on this log; the run goes on when")) == (0, True)
    again = service.command("approve", run_id)
    assert (again.returncode, again.stderr) == (2, f"run `{run_id}` asks for no approval\n")
    started(service, wait_for)
    wait_for(lambda: service.has_ended(run_id), what="its end")
    assert sorted(done(service)) == ["always 1", "build 1", "go 1"]
    assert is_clean(service)


def test_a_parked_run_outlives_a_stop_of_the_service_and_rotations_of_the_log(
    service: Service, wait_for: WaitFor
) -> None:
    process = started(service, wait_for, STATE_SEGMENT_SIZE="64KiB")
    run_id = service.ask(release(service))
    wait_for(lambda: is_parked(service, run_id), what="the question")
    process.terminate()
    assert process.wait(20) == 0
    assert service.events("supervisor_stopped")
    for _ in range(2):
        process = started(service, wait_for, STATE_SEGMENT_SIZE="64KiB")
        before = len(service.events("segment_started"))
        for number in range(20):
            record_event({"event": "note", "number": number, "text": "x" * 4000}, service.log)
        wait_for(lambda before=before: len(service.events("segment_started")) > before, timeout=20, what="a rotation")
        kill9(process)
    started(service, wait_for)
    assert json.loads(service.command("status", "--json").stdout)["approvals"][0]["run_id"] == run_id
    service.command("approve", run_id)
    wait_for(lambda: service.has_ended(run_id), what="its end")
    assert sorted(done(service)) == ["always 1", "build 1", "go 1"]
    assert is_clean(service)


def test_a_cancelled_run_that_is_parked_ends_at_once_and_so_do_the_runs_it_has_asked_for(
    service: Service, wait_for: WaitFor
) -> None:
    service.dag("sub", "sleep 100")
    dag = service.tasks("d", {"id": "sub", "dag": "dags/sub.yaml"}, {"id": "after", "run": NOTE, "needs": ["sub"]})
    started(service, wait_for)
    run_id = service.ask(dag)
    wait_for(lambda: is_parked(service, run_id) and service.events("run_started", f"{run_id}.sub"), what="its run")
    told = service.command("cancel", run_id)
    assert (told.returncode, told.stderr) == (0, ""), told
    lines = told.stdout.splitlines()
    assert lines[0] == f"cancelled {run_id}  it waited"
    assert lines[1].startswith(f"cancelled {run_id}.sub  ")
    assert lines[-1].endswith("sleep 100")
    assert [end_of(service, name)["status"] for name in (run_id, f"{run_id}.sub")] == ["cancelled"] * 2
    # A parent that ends otherwise takes it along, too.
    other = service.ask(dag)
    wait_for(lambda: is_parked(service, other) and service.events("run_started", f"{other}.sub"), what="its run")
    record_event({"event": "cancel_requested", "run_id": other, "reason": "a test"}, service.log)
    wait_for(lambda: service.has_ended(other, f"{other}.sub"), what="both ends")
    assert "the run that asked for it has ended" in end_of(service, f"{other}.sub")["reason"]
    assert done(service) == []
    assert is_clean(service)


def test_a_dag_task_is_a_run_of_its_own_with_params_in_and_outputs_out(service: Service, wait_for: WaitFor) -> None:
    sub = {
        "id": "sub",
        "params": {"n": 0},
        "tasks": [
            {"id": "one", "run": 'echo "m=${params.n}1" >> "$TASK_OUTPUT"'},
            {"id": "many", "foreach": [1, 2], "run": 'echo "i=$item" >> "$TASK_OUTPUT"'},
        ],
    }
    (service.root / "dags" / "sub.yaml").write_text(json.dumps(sub))
    dag = service.tasks(
        "d",
        {"id": "a", "run": 'echo n=4 >> "$TASK_OUTPUT"'},
        {"id": "sub", "dag": "dags/sub.yaml", "params": {"n": "${tasks.a.outputs.n}"}, "needs": ["a"]},
        {
            "id": "show",
            "run": ["sh", "-c", 'echo "$1 $2" > told', "-", "${tasks.sub.outputs.one}", "${tasks.sub.outputs.run_id}"],
            "needs": ["sub"],
        },
    )
    # With one worker the parent has to make room for its child.
    started(service, wait_for, SCHED_MAX_PARALLEL="1")
    run_id = service.ask(dag, tenant="acme", priority=7)
    wait_for(lambda: service.has_ended(run_id), what="its end")
    (request,) = service.events("run_requested", f"{run_id}.sub")
    assert (request["tenant"], request["priority"]) == ("acme", 7)
    assert request["parent"] == {"run_id": run_id, "attempt": 1, "task_id": "sub"}
    shown = json.loads(service.command("show", f"{run_id}.sub", "--json").stdout)
    assert shown["why"] == f"task sub of run {run_id} asked for it"
    assert (service.root / "told").read_text() == f'{{"m": "41"}} {run_id}.sub\n'
    outputs = tasks_of(service, run_id)["sub"]["outputs"]
    assert (outputs["status"], sorted(outputs)) == ("success", ["many", "one", "run_id", "status"])
    assert outputs["many"]["results"] == [{"i": "1"}, {"i": "2"}]
    assert is_clean(service)


def test_a_dag_task_fails_as_its_run_does_and_is_tried_again_as_another_run(
    service: Service, wait_for: WaitFor
) -> None:
    service.dag("sub", "echo x >> tries; test $(wc -l < tries) = 2")
    dag = service.tasks("d", {"id": "sub", "dag": "dags/sub.yaml", "retries": {"max": 1, "delay": "1s"}})
    started(service, wait_for)
    run_id = service.ask(dag)
    wait_for(lambda: service.has_ended(run_id), what="its end")
    assert end_of(service, run_id)["status"] == "success"
    assert [end_of(service, f"{run_id}.sub{tail}")["status"] for tail in ("", ".1-2")] == ["failed", "success"]
    (service.root / "tries").unlink()
    dag = service.tasks("e", {"id": "sub", "dag": "dags/sub.yaml"})
    run_id = service.ask(dag)
    wait_for(lambda: service.has_ended(run_id), what="its end")
    end = end_of(service, run_id)
    assert end["status"] == "failed"
    assert f"task `sub` failed: run {run_id}.sub ended as failed: task `t` failed: exit code 1" in end["reason"]
    assert is_clean(service)


def test_a_dag_task_that_times_out_ends_when_its_run_is_cancelled(service: Service, wait_for: WaitFor) -> None:
    service.dag("sub", "echo $$ > pid; sleep 100")
    dag = service.tasks("d", {"id": "sub", "dag": "dags/sub.yaml", "timeout": "3s"})
    started(service, wait_for)
    run_id = service.ask(dag)
    wait_for(lambda: service.has_ended(run_id), timeout=20, what="its end")
    end, child = end_of(service, run_id), end_of(service, f"{run_id}.sub")
    assert (end["status"], end["reason"]) == ("failed", "task `sub` timed out after 3s")
    assert (child["status"], "task `sub` timed out after 3s" in child["reason"]) == ("cancelled", True)
    assert child["seq"] < end["seq"]
    assert is_clean(service)


def test_a_run_waits_for_the_run_of_another_schedule_of_its_fire_time(service: Service, wait_for: WaitFor) -> None:
    service.schedule("slow", "0 9 * * *", service.dag("slow", "while [ ! -e go ]; do sleep 0.05; done"))
    wait = service.tasks("fast", {"id": "w", "wait": {"run": "slow"}}, {"id": "t", "run": NOTE, "needs": ["w"]})
    service.schedule("fast", "0 9 * * *", wait)
    service.command("tick", "--no-run", "--now", "2026-11-24T09:00:00Z")
    started(service, wait_for)
    fast, slow = "fast.20261124T0900Z", "slow.20261124T0900Z"
    wait_for(lambda: is_parked(service, fast) and service.events("run_started", slow), what="both")
    assert done(service) == []
    (service.root / "go").touch()
    wait_for(lambda: service.has_ended(fast, slow), what="both ends")
    assert end_of(service, slow)["seq"] < end_of(service, fast)["seq"]
    assert tasks_of(service, fast)["w"]["outputs"] == {"run_id": slow, "status": "success"}
    # One that has ended long before is not waited for; one with another end fails.
    late = service.ask(service.tasks("late", {"id": "w", "wait": {"run": slow, "status": ["failed"]}}))
    wait_for(lambda: service.has_ended(late), what="the late one")
    assert end_of(service, late)["reason"] == f"task `w` failed: run {slow} ended as success"
    assert service.events("run_parked", late) == []
    assert is_clean(service)


def test_a_wait_for_a_time_is_over_at_that_time_and_one_for_a_time_that_has_passed_at_once(
    service: Service, wait_for: WaitFor
) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=5)
    dag = service.tasks(
        "d",
        {"id": "at", "wait": {"time": at.isoformat()}},
        {"id": "past", "wait": {"time": "2026-01-01T00:00:00Z"}},
        {"id": "soon", "wait": {"delay": "0.3s"}},
        {"id": "t", "run": "date +%s > at", "needs": ["at"]},
    )
    started(service, wait_for)
    run_id = service.ask(dag)
    wait_for(lambda: is_parked(service, run_id), what="the wait")
    assert {name: event["status"] for name, event in tasks_of(service, run_id).items()} == {
        "past": "success",
        "soon": "success",
    }
    wait_for(lambda: service.has_ended(run_id), timeout=20, what="its end")
    assert at.timestamp() <= int((service.root / "at").read_text()) <= at.timestamp() + 3
    assert is_clean(service)


def test_the_length_of_a_run_is_its_time_at_work(service: Service, wait_for: WaitFor) -> None:
    service.schedule("s", "0 9 * * *", service.tasks("d", {"id": "w", "wait": {"delay": "4s"}}))
    service.command("tick", "--no-run", "--now", "2026-11-24T09:00:00Z")
    started(service, wait_for)
    wait_for(lambda: service.has_ended("s.20261124T0900Z"), 20, "its end")
    assert end_of(service, "s.20261124T0900Z")["duration_s"] < 2
    # So a forecast takes it to be at work for that long.
    assert read_durations(service.log)["s"].max_s < 2


def test_other_tasks_go_on_while_one_waits_and_what_is_approved_then_goes_on_at_once(
    service: Service, wait_for: WaitFor
) -> None:
    dag = service.tasks(
        "d",
        {"id": "long", "run": "while [ ! -e go ]; do sleep 0.05; done"},
        {"id": "ok", "approval": "Now?"},
        {"id": "then", "run": NOTE, "needs": ["ok"]},
    )
    started(service, wait_for)
    run_id = service.ask(dag)
    wait_for(lambda: service.events("approval_requested", run_id), what="the question")
    assert service.command("approve", run_id).returncode == 0
    wait_for(lambda: done(service) == ["then 1"], what="what needs it")
    assert not service.events("run_parked", run_id)
    (service.root / "go").touch()
    wait_for(lambda: service.has_ended(run_id), what="its end")
    assert is_clean(service)


def test_runs_by_hand_wait_in_their_own_process_and_run_their_dags_themselves(
    service: Service, wait_for: WaitFor
) -> None:
    service.dag("sub", NOTE)
    service.tasks(
        "d",
        {"id": "sub", "dag": "dags/sub.yaml"},
        {"id": "ok", "approval": "Now?", "needs": ["sub"]},
        {"id": "then", "run": NOTE, "needs": ["ok"]},
    )
    by_hand = service.launch("-m", "scheduler.cli", "run", "dags/d.yaml")
    wait_for(lambda: service.events("approval_requested"), what="the question")
    (question,) = service.events("approval_requested")
    assert done(service) == ["t 1"]
    assert service.command("approve", question["run_id"]).returncode == 0
    assert by_hand.wait(20) == 0
    assert done(service) == ["t 1", "then 1"]
    assert [end_of(service, name)["status"] for name in (question["run_id"], f"{question['run_id']}.sub")] == [
        "success"
    ] * 2
    assert is_clean(service)


def test_an_interrupted_run_by_hand_ends_the_run_of_its_dag_task(service: Service, wait_for: WaitFor) -> None:
    service.dag("sub", "echo $$ > pid; sleep 100")
    service.tasks("d", {"id": "sub", "dag": "dags/sub.yaml"})
    by_hand = service.launch("-m", "workers", "dags/d.yaml")
    wait_for(lambda: (service.root / "pid").exists(), what="the child's task")
    by_hand.terminate()
    assert by_hand.wait(20) == 1
    assert sorted(end["status"] for end in service.events("run_finished")) == ["cancelled", "cancelled"]
    assert is_clean(service)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("approve nothing", "no open run `nothing`"),
        ("approve RUM", "no open run `RUM`; did you mean `RUN`?"),
        ("approve RUN bok", "run `RUN` does not ask for `bok`; did you mean `ok`?"),
        ("approve RUN", "run `RUN` asks for several approvals; name one of no, ok"),
        ("reject RUN ok --comment " + "x" * 1001, "--comment has 1001 characters; at most 1000"),
        ("approve", "tickpool approve: the following arguments are required: RUN"),
    ],
)
def test_an_answer_that_nobody_asks_for_is_one_line_and_changes_nothing(
    service: Service, wait_for: WaitFor, words: str, told: str
) -> None:
    started(service, wait_for)
    dag = service.tasks("d", {"id": "ok", "approval": "a?"}, {"id": "no", "approval": "b?"})
    service.ask(dag, "RUN")
    wait_for(lambda: is_parked(service, "RUN"), what="the questions")
    done = service.command(*words.split())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(told)
    assert not service.events("task_approved")
    assert not service.events("task_rejected")


def test_several_who_answer_at_once_give_one_answer(service: Service, wait_for: WaitFor) -> None:
    started(service, wait_for)
    run_id = service.ask(release(service))
    wait_for(lambda: is_parked(service, run_id), what="the question")
    several = [
        service.launch("-m", "scheduler.cli", word, run_id) for word in ("approve", "reject", "approve", "reject")
    ]
    codes = sorted(each.wait(20) for each in several)
    wait_for(lambda: service.has_ended(run_id), what="its end")
    answers = service.events("task_approved") + service.events("task_rejected")
    assert (codes, len(answers)) == ([0, 2, 2, 2], 1)
    assert end_of(service, run_id)["status"] == ("success" if answers[0]["event"] == "task_approved" else "failed")
    assert is_clean(service)


def test_what_waits_for_a_secret_to_be_told_is_refused_and_a_question_shows_none(
    service: Service, wait_for: WaitFor
) -> None:
    service.environ["TOKEN"] = "s3cr3t-value"
    (service.root / "dags" / "sub.yaml").write_text(
        '{"id": "sub", "params": {"t": ""}, "tasks": [{"id": "t", "run": "true"}]}'
    )
    dag = {
        "id": "d",
        "secrets": ["TOKEN"],
        "params": {"t": "s3cr3t-value"},
        "tasks": [
            {"id": "use", "run": "true", "secrets": ["TOKEN"]},
            {"id": "ask", "approval": "Is it ${params.t}?", "timeout": "2s"},
            {"id": "sub", "dag": "dags/sub.yaml", "params": {"t": "${params.t}"}},
        ],
    }
    (service.root / "dags" / "d.yaml").write_text(json.dumps(dag))
    started(service, wait_for)
    run_id = service.ask("dags/d.yaml")
    wait_for(lambda: service.has_ended(run_id), timeout=20, what="its end")
    assert service.events("approval_requested")[0]["message"] == "Is it ***?"
    assert "its params hold a secret" in tasks_of(service, run_id)["sub"]["reason"]
    assert "s3cr3t" not in service.log.read_text()


def test_an_attempt_that_was_parked_begins_anew_when_its_worker_dies_later(service: Service, wait_for: WaitFor) -> None:
    dag = service.tasks(
        "d",
        {"id": "build", "run": NOTE},
        {"id": "ok", "approval": "Now?", "needs": ["build"]},
        {"id": "go", "run": f"{NOTE}; test $ATTEMPT = 2 || kill -9 $PPID", "needs": ["ok"]},
    )
    started(service, wait_for)
    run_id = service.ask(dag, retry_on_crash=True)
    wait_for(lambda: is_parked(service, run_id), what="the question")
    service.command("approve", run_id)
    wait_for(lambda: len(service.events("approval_requested", run_id)) == 2, what="the second question")
    wait_for(lambda: is_parked(service, run_id), what="the second park")
    service.command("approve", run_id)
    wait_for(lambda: service.has_ended(run_id), what="its end")
    assert done(service) == ["build 1", "go 1", "build 2", "go 2"]
    assert is_clean(service)
