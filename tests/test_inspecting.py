"""show, diff, stats and the filters of runs, against a service that runs."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest
from service import Service, WaitFor, is_running, kill9

from scheduler.state_store import StateStore, record_event
from workers.event_log import EventLog


@pytest.fixture
def served(service: Service, wait_for: WaitFor) -> Service:
    """A directory with a service at work, and the DAGs `etl` and `slow`."""
    service.tasks(
        "etl",
        {"id": "extract", "run": 'echo rows=3 >> "$TASK_OUTPUT"; echo "got 3"'},
        {"id": "load", "run": "test -e good", "needs": ["extract"], "retries": {"max": 1}},
        {"id": "report", "run": "true", "needs": ["load"]},
        {"id": "other", "run": "true"},
    )
    service.dag("slow", "touch began; while [ ! -e go ]; do sleep 0.05; done")
    service.schedule("s", "0 0 1 1 *", "dags/etl.yaml")
    service.start()
    wait_for(service.is_ready, what="the service")
    return service


def asked(done: subprocess.CompletedProcess[str]) -> str:
    found = re.search(r"^(?:Requested|Run) (\S+)", done.stdout, re.MULTILINE)
    assert found, (done.stdout, done.stderr)
    return found[1]


def shown(service: Service, *words: str) -> dict[str, Any]:
    """Return what `show --json` prints."""
    done = service.command("show", *words, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def text(service: Service, *words: str) -> str:
    done = service.command(*words)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def has_begun(service: Service) -> bool:
    """Say whether the start of a task is on record."""
    log = service.root / "logs" / "orchestrator_events.jsonl"
    return log.exists() and b'"task_started"' in log.read_bytes()


# -- show -------------------------------------------------------------------------------------------------------------


def test_a_run_is_shown_with_its_tasks_as_a_tree_and_why_it_ran(served: Service) -> None:
    run_id = asked(served.command("trigger", "s", "--wait"))
    (request,) = served.events("run_requested")
    run = shown(served, run_id)
    assert (run["status"], run["why"]) == ("failed", f"triggered by {request['by']} for schedule s")
    assert (run["schedule_id"], run["tenant"], run["dag"]) == ("s", "test", "dags/etl.yaml")
    tree = [(task["task_id"], task["depth"], task["status"], task["tries"]) for task in run["tasks"]]
    assert tree == [
        ("extract", 0, "success", 1),
        ("load", 1, "failed", 2),
        ("report", 2, "upstream_failed", 0),
        ("other", 0, "success", 1),
    ]
    extract, load = run["tasks"][:2]
    assert (extract["outputs"], extract["exit_code"], load["exit_code"]) == ({"rows": "3"}, 0, 1)
    assert 0 <= extract["after_s"] <= load["after_s"]
    assert extract["cpu_s"] >= 0
    assert extract["max_rss_kib"] > 1000
    told = text(served, "show", run_id)
    lines = told.splitlines()
    assert lines[0] == f"{run_id}  failed"
    (row,) = (line for line in lines if line.startswith("  load "))
    assert row.split()[:4] == ["load", "failed", "2", "1"]
    assert "=" in row
    assert "extract  rows=3" in told
    assert "reason     task `load` failed: exit code 1" in told


def test_a_retried_run_shows_both_attempts_and_what_was_kept(served: Service) -> None:
    run_id = asked(served.command("trigger", "s", "--wait"))
    (served.root / "good").touch()
    assert served.command("retry", run_id, "--failed", "--wait").returncode == 0
    run = shown(served, run_id)
    assert (run["status"], run["attempt"], len(run["attempts"])) == ("success", 2, 2)
    assert re.fullmatch(r"attempt 1 was retried by \S+, 2 task\(s\) kept", run["why"])
    assert [(task["task_id"], task["status"]) for task in run["tasks"]] == [
        ("extract", "kept"), ("load", "success"), ("report", "success"), ("other", "kept"),
    ]  # fmt: skip
    assert run["tasks"][0]["outputs"] == {"rows": "3"}
    first = shown(served, run_id, "--attempt", "1")
    assert (first["attempt"], first["status"], first["reason"]) == (1, "success", "task `load` failed: exit code 1")
    assert first["tasks"][1]["status"] == "failed"
    done = served.command("show", run_id, "--attempt", "3")
    assert (done.returncode, done.stderr) == (2, f"run `{run_id}` has no attempt 3; it has 1, 2\n")
    again = asked(served.command("rerun", run_id, "--wait"))
    assert shown(served, again)["why"].startswith(f"run {run_id} was run again by ")


def test_an_open_run_shows_what_runs_and_what_waits_and_a_queued_one_for_how_long(
    served: Service, wait_for: WaitFor
) -> None:
    service = served
    dag = service.tasks("two", {"id": "a", "run": "touch began; sleep 100"}, {"id": "b", "run": "true", "needs": ["a"]})
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    later = asked(service.command("trigger", dag, "--at", at))
    run_id = asked(service.command("trigger", dag))
    wait_for(lambda: has_begun(service), what="the task")
    run = shown(service, run_id)
    assert (run["status"], [task["status"] for task in run["tasks"]]) == ("running", ["running", "waiting"])
    assert run["duration_s"] >= run["tasks"][0]["duration_s"] >= 0
    assert (run["attempts"][0]["ended_at"], run["attempts"][0]["worker_pid"] > 0) == (None, True)
    waits = shown(service, later)
    assert (waits["status"], waits["waited_s"], waits["duration_s"]) == ("queued", 0.0, None)
    assert [task["status"] for task in waits["tasks"]] == ["waiting", "waiting"]
    assert "(in 59m)" in text(service, "show", later)
    assert service.command("cancel", run_id).returncode == 0
    assert [task["status"] for task in shown(service, run_id)["tasks"]] == ["cancelled", "cancelled"]


def test_a_run_whose_worker_died_shows_what_it_never_ended_and_the_retry_that_waits(
    served: Service, wait_for: WaitFor
) -> None:
    retries = {"max": 1, "delay_s": 3600}
    run_id = served.ask("dags/slow.yaml", retry_on_crash=True, retries=retries)
    wait_for(lambda: has_begun(served), what="the task")
    (start,) = served.events("run_started")
    kill9(psutil.Process(start["pid"]))
    wait_for(lambda: bool(served.events("run_finished")), what="its end")
    run = shown(served, run_id, "--attempt", "1")
    assert (run["attempts"][0]["status"], run["tasks"][0]["status"]) == ("crashed", "unfinished")
    run = shown(served, run_id)
    assert (run["status"], run["attempt"], run["tasks"][0]["status"]) == ("queued", 2, "waiting")
    assert run["why"] == "the attempt before ended as crashed, and another was allowed"


def test_an_open_run_whose_process_is_gone_says_so(service: Service, wait_for: WaitFor) -> None:
    process = service.start()
    wait_for(service.is_ready, what="the service")
    run_id = service.ask(service.dag("slow", "touch began; sleep 100"))
    wait_for((service.root / "began").exists, what="the task")
    assert shown(service, run_id)["reason"] is None
    workers = service.workers(process)
    for each in (process, *workers):
        kill9(each)
    wait_for(lambda: not any(is_running(worker.pid) for worker in workers), what="the end of the workers")
    run = shown(service, run_id)
    assert (run["status"], run["reason"]) == ("running", "its process is gone; the next service gives it its end")


def test_every_kind_of_run_says_why_it_ran(served: Service, wait_for: WaitFor) -> None:
    (served.root / "good").touch()
    by_hand = asked(served.command("run", "dags/etl.yaml"))
    assert shown(served, by_hand)["why"] == "run by hand"
    # Half an hour from now on either side: the clock passes no fire time meanwhile.
    now = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=30)
    cron = f"{now.minute} * * * *"
    served.schedule("often", cron, "dags/etl.yaml", on_deadline="dags/etl.yaml", deadline="1h", catchup="all",
                    overlap="queue")  # fmt: skip
    served.schedule("next", cron, "dags/etl.yaml")
    entry = [{"id": "next", "after": "often", "dag": "dags/etl.yaml"}]
    (served.root / "schedules" / "next.yaml").write_text(json.dumps(entry))
    wait_for(lambda: "Loaded 3 schedule(s)" in served.out(), what="the schedules")
    first, last = (now - timedelta(hours=2)).isoformat(), now.isoformat()
    done = served.command("backfill", "often", "--from", first, "--until", last)
    assert done.returncode == 0, done.stderr
    (slot, _) = [event["run_id"] for event in served.events("run_requested") if event.get("backfill")]
    assert re.fullmatch(r"backfill often\.backfill\.\S+ by \S+", shown(served, slot)["why"])
    assert shown(served, slot)["schedule_id"] == "often"
    tick = json.loads(text(served, "tick", "--now", (now + timedelta(hours=1)).isoformat(), "--json"))
    (run_id,) = [run["run_id"] for run in tick["runs"]]
    assert shown(served, run_id)["why"] == "schedule often was due"
    wait_for(lambda: any(e["schedule_id"] == "next" for e in served.events("schedule_enqueued")), what="what follows")
    (follower,) = [e["run_id"] for e in served.events("schedule_enqueued") if e["schedule_id"] == "next"]
    assert shown(served, follower)["why"] == f"schedule next follows {run_id}"
    late = served.ask("dags/etl.yaml", "x.deadline", for_run="x")
    wait_for(lambda: served.has_ended(late), what="the run")
    assert shown(served, late)["why"] == "run x missed its deadline"


def test_a_run_without_its_request_is_shown_from_a_checkpoint(served: Service, wait_for: WaitFor) -> None:
    dag = json.loads((served.root / "dags" / "slow.yaml").read_text()) | {"params": {"text": ""}}
    (served.root / "dags" / "long.yaml").write_text(json.dumps(dag))
    run_id = served.ask("dags/long.yaml", params={"text": "x" * 30_000})
    short = served.ask("dags/slow.yaml")
    wait_for(lambda: len(served.events("run_started")) == 2 and has_begun(served), what="the starts")
    store = StateStore(EventLog(served.log))
    store.refresh()
    assert store.rotate(0)
    store.close()
    for old in served.log.parent.glob(f"{served.log.name}.0*"):
        old.unlink()
    for name in (run_id, short):
        run = shown(served, name)
        assert (run["status"], run["attempts"][0]["started_at"] is not None) == ("running", True)
        assert (run["dag"][:5], run["tasks"][0]["task_id"]) == ("dags/", "t")
    (served.root / "go").touch()
    wait_for(lambda: len(json.loads(text(served, "runs", "--json"))) == 2, what="the ends")
    assert [shown(served, name)["status"] for name in (run_id, short)] == ["success", "success"]


# -- diff -------------------------------------------------------------------------------------------------------------


def test_two_runs_are_compared_with_the_lines_of_their_dags(served: Service) -> None:
    first = asked(served.command("trigger", "dags/etl.yaml", "--wait"))
    assert text(served, "diff", first, first) == "Nothing differs\n"
    file = served.root / "dags" / "etl.yaml"
    file.write_text(json.dumps(json.loads(file.read_text()), indent=1).replace("rows=3", "rows=4"))
    (served.root / "good").touch()
    second = asked(served.command("trigger", "dags/etl.yaml", "--wait"))
    found = json.loads(text(served, "diff", first, second, "--json"))
    values = {row["what"]: row["values"] for row in found["differences"]}
    assert found["runs"] == [first, second]
    assert values["status"] == ["failed", "success"]
    assert values["load.status"] == ["failed", "success"]
    assert values["extract.outputs"] == [{"rows": "3"}, {"rows": "4"}]
    assert "other.status" not in values
    assert any(line.startswith("+") and "rows=4" in line for line in found["dag_diff"])
    told = text(served, "diff", first, second)
    assert re.search(r"^load\.status +failed +success$", told, re.MULTILINE)
    assert f"--- dags/etl.yaml of {first}" in told
    done = served.command("diff", first, second[:-1])
    assert (done.returncode, done.stderr) == (2, f"no run `{second[:-1]}`; did you mean `{second}`?\n")


def test_a_log_that_names_a_file_elsewhere_as_a_version_does_not_get_it_read(service: Service) -> None:
    copies = service.root / "logs" / "runs" / ".dags"
    copies.mkdir(parents=True)
    (service.root / "logs" / "secret.yaml").write_text("password: 1\n")
    (copies / "0123456789abcdef.yaml").write_text("id: d\n")
    for run_id, version in (("a", "../../secret"), ("b", "0123456789abcdef")):
        record_event({"event": "run_requested", "run_id": run_id, "attempt": 1, "dag": "dags/d.yaml"}, service.log)
        started = {"event": "run_started", "run_id": run_id, "attempt": 1, "pid": 1, "dag_version": version}
        record_event(started, service.log)
    told = text(service, "diff", "a", "b")
    assert "dag_version" in told
    assert "password" not in told
    assert text(service, "show", "a").startswith("a  running\n")


# -- stats ------------------------------------------------------------------------------------------------------------


def test_stats_count_what_came_due_by_itself_once_as_it_ended_last(served: Service, wait_for: WaitFor) -> None:
    served.schedule("t", "* * * * *", "dags/etl.yaml")
    wait_for(lambda: len([e for e in served.events("run_finished") if e["schedule_id"] == "t"]) == 1, what="a run of t")
    (served.root / "schedules" / "t.yaml").unlink()
    wait_for(lambda: bool([e for e in served.events("schedules_loaded") if e.get("removed")]), what="its removal")
    (row,) = json.loads(text(served, "stats", "t", "--json"))
    assert (row["runs"], row["success_rate"], row["ended"]) == (1, 0.0, {"failed": 1})
    (served.root / "good").touch()
    (end,) = [event for event in served.events("run_finished") if event["schedule_id"] == "t"]
    assert served.command("retry", end["run_id"], "--wait").returncode == 0
    assert served.command("rerun", end["run_id"], "--as-was", "--wait").returncode == 0
    (row,) = json.loads(text(served, "stats", "t", "--json"))
    assert (row["runs"], row["success_rate"], row["ended"], row["by_operator"]) == (1, 1.0, {"success": 1}, 1)
    assert row["duration_s"]["p50"] == row["duration_s"]["p99"] == row["trend"][0]
    assert 0 <= row["lateness_s"]["p50"] < 60
    told = text(served, "stats")
    assert re.search(r"^t +1 +100\.0% ", told, re.MULTILINE)
    assert told.splitlines()[1].endswith("█")
    assert text(served, "stats", "s") == "No runs yet\n"
    assert text(served, "stats", "t", "--since", "9998-12-31T00:00:00Z") == "No runs yet\n"
    done = served.command("stats", "tt")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "no schedule `tt`; did you mean `t`?\n")


# -- runs -------------------------------------------------------------------------------------------------------------


def test_runs_are_those_of_a_schedule_a_tenant_a_time(served: Service) -> None:
    served.schedule("dags_own", "0 0 1 1 *", "dags/etl.yaml", tenant="acme")
    (served.root / "good").touch()
    by_hand, of_s = asked(served.command("run", "dags/etl.yaml")), asked(served.command("trigger", "s", "--wait"))
    of_acme = asked(served.command("trigger", "dags_own", "--wait"))

    def ids(*words: str) -> list[str]:
        return [run["run_id"] for run in json.loads(text(served, "runs", *words, "--json"))]

    assert ids() == [of_acme, of_s, by_hand]
    assert ids("--schedule", "s") == [of_s]
    assert ids("--tenant", "acme") == [of_acme]
    assert ids("--tenant", "default") == [by_hand]
    assert ids("--tenant", "acme", "--schedule", "s") == []
    assert ids("--since", "1h") == [of_acme, of_s, by_hand]
    assert ids("--since", "2999-01-01T00:00:00Z") == []
    assert ids("--status", "crashed", "--schedule", "s") == []
    head, row, *_ = text(served, "runs").splitlines()
    assert head.split() == ["RUN", "STATUS", "ENDED", "AGE", "TOOK", "REASON"]
    assert re.search(r" success +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +\d+s +\d\.\ds$", row)


def test_runs_are_those_of_schedules_that_have_a_tag_now(served: Service, wait_for: WaitFor) -> None:
    def ids(*words: str) -> list[str]:
        return [run["run_id"] for run in json.loads(text(served, "runs", *words, "--json"))]

    def is_known() -> bool:
        return served.command("runs", "--tag", "billing").returncode == 0

    of_s = asked(served.command("trigger", "s", "--wait"))
    served.schedule("t", "0 0 1 1 *", "dags/etl.yaml", tags=["billing", "nightly"])
    wait_for(is_known, what="the tags")
    (served.root / "good").touch()
    of_t = asked(served.command("trigger", "t", "--wait"))
    asked(served.command("run", "dags/etl.yaml"))
    assert ids("--tag", "billing") == ids("--tag", "nightly", "--status", "success") == [of_t]
    assert ids("--tag", "billing", "--schedule", "s") == []
    served.schedule("s", "0 0 1 1 *", "dags/etl.yaml", tags=["billing"])
    wait_for(lambda: ids("--tag", "billing") == [of_t, of_s], what="the other's runs")
    done = served.command("runs", "--tag", "biling")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "no tag `biling`; did you mean `billing`?\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("runs --schedule ss", "no schedule `ss`; did you mean `s`?"),
        ("runs --tenant tets", "no tenant `tets`; did you mean `test`?"),
        ("runs --tag x", "no tag `x`; there is none"),
        (
            "runs --since soon",
            "--since 'soon': write a duration such as 7d, or an ISO 8601 time with its zone, such as",
        ),
        ("runs --statsu failed", "tickpool: unrecognized arguments: --statsu failed; did you mean `--status`?"),
        ("stats --since x", "--since 'x': write a duration"),
        ("show", "tickpool show: the following arguments are required: RUN"),
        ("show ../s", "no run `../s`: none is on record"),
        ("show s.1", "no run `s.1`: none is on record"),
        ("diff s.1 s.2", "no run `s.1`: none is on record"),
        ("cancel --schedule ss", "no schedule `ss`; did you mean `s`?"),
        ("shwo s.1", "tickpool: unknown command `shwo`; did you mean `show`?"),
    ],
)
def test_what_nobody_knows_is_told_in_a_line_with_the_nearest(served: Service, words: str, told: str) -> None:
    done = served.command(*words.split())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(told)


def test_the_output_of_an_ended_run_that_was_removed_is_no_unknown_run(served: Service) -> None:
    run_id = asked(served.command("trigger", "dags/etl.yaml", "--wait"))
    assert text(served, "logs", run_id, "extract") == "extract | got 3\n"
    subprocess.run(["rm", "-r", served.root / "logs" / "runs" / run_id], check=True)
    done = served.command("logs", run_id)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"run {run_id}: no output\n")
