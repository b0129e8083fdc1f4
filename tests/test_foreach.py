"""Tasks with `foreach`: one instance an item, what they come to together, and the items that are run again."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service import Service, WaitFor

from scheduler.audit import audit
from workers.ids import base_of, instance_id, pack, unpack
from workers.runner import run_dag


def ran(root: Path, *tasks: dict[str, Any], **dag: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run a DAG of these tasks; return what it came to and its events."""
    (root / "dags").mkdir(exist_ok=True)
    (root / "dags" / "d.yaml").write_text(json.dumps({"id": "d", "tasks": tasks, **dag}))
    events: list[dict[str, Any]] = []
    return run_dag(Path("dags/d.yaml"), project=root, record=events.append), events


def ended(events: list[dict[str, Any]]) -> dict[str, str]:
    return {each["task_id"]: each["status"] for each in events if each["event"] == "task_finished"}


def test_each_item_is_a_task_of_its_own_and_the_whole_has_their_outputs_in_order(tmp_path: Path) -> None:
    told, events = ran(
        tmp_path,
        {"id": "load", "foreach": ["eu", "a b", 'q"$(x)'], "run": 'echo "got=$item $TASK_ID" >> "$TASK_OUTPUT"'},
        {"id": "show", "run": ["echo", "${tasks.load.outputs.count}"], "needs": ["load"]},
    )
    assert told["status"] == "success"
    assert told["tasks"]["load"]["outputs"] == {
        "count": 3,
        "success": 3,
        "failed": 0,
        "skipped": 0,
        "results": [{"got": "eu load[0]"}, {"got": "a b load[1]"}, {"got": 'q"$(x) load[2]'}],
    }
    assert sorted(told["tasks"]) == ["load", "show"]
    names = [each["task_id"] for each in events if each["event"] == "task_started"]
    assert (names[0], sorted(names)) == ("load", ["load", "load[0]", "load[1]", "load[2]", "show"])
    logs = tmp_path / "logs" / "runs" / told["run_id"] / "1"
    assert (logs / "show.1.log").read_text() == "3\n"


def test_an_item_that_is_a_mapping_is_taken_apart_by_name_in_every_place(tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text("def show(x):\n    return repr(x)\n")
    items = [{"name": "eu", "n": 2}, {"name": "us", "n": 3}]
    told, _ = ran(
        tmp_path,
        {
            "id": "load",
            "foreach": items,
            "run": ["sh", "-c", 'echo "x=$A $1" >> "$TASK_OUTPUT"', "-", "${item.name} ${item.n} ${item}"],
            "env": {"A": "${item.name}-${item.n}"},
        },
        {"id": "call", "foreach": items, "call": "show:show", "args": {"x": "${item.n}"}},
    )
    assert [each["x"] for each in told["tasks"]["load"]["outputs"]["results"]] == [
        'eu-2 eu 2 {"name": "eu", "n": 2}',
        'us-3 us 3 {"name": "us", "n": 3}',
    ]
    assert told["tasks"]["call"]["outputs"]["results"] == [{"result": "2"}, {"result": "3"}]


@pytest.mark.parametrize(
    ("output", "count"), [("list=[1, 2, 3]", 3), ('list=["a"]', 1), ('{"list": [1, [2], {"a": 3}, null]}', 4)]
)
def test_the_items_may_be_an_output_a_list_or_a_text_that_is_one(tmp_path: Path, output: str, count: int) -> None:
    told, _ = ran(
        tmp_path,
        {"id": "find", "run": f"printf '%s' '{output}' > \"$TASK_OUTPUT\""},
        {"id": "load", "foreach": "${tasks.find.outputs.list}", "run": "true", "needs": ["find"]},
    )
    assert (told["status"], told["tasks"]["load"]["outputs"]["count"]) == ("success", count)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("list=abc", "`foreach` is the text 'abc', and no list in JSON"),
        (f"list={'[' * 20_000}", f"`foreach` is the text '{'[' * 80}', and no list in JSON"),
        ("list=3", "`foreach` is 3, and no list"),
        ('list={"a": 1}', '`foreach` is {"a": 1}, and no list'),
        ("other=1", "unknown reference `tasks.find.outputs.list`; did you mean `tasks.find.outputs.other`?"),
    ],
)
def test_what_is_no_list_fails_the_task_with_one_line(tmp_path: Path, output: str, reason: str) -> None:
    told, _ = ran(
        tmp_path,
        {"id": "find", "run": f"echo '{output}' > \"$TASK_OUTPUT\""},
        {"id": "load", "foreach": "${tasks.find.outputs.list}", "run": "true", "needs": ["find"]},
        {"id": "after", "run": "true", "needs": ["load"]},
    )
    statuses = {name: each["status"] for name, each in told["tasks"].items()}
    assert statuses == {"find": "success", "load": "failed", "after": "upstream_failed"}
    assert told["tasks"]["load"]["reason"] == reason


def test_more_items_than_are_allowed_fail_the_task_and_none_of_them_runs(tmp_path: Path) -> None:
    (tmp_path / "many.py").write_text("def find():\n    return {'list': list(range(1001))}\n")
    told, events = ran(
        tmp_path,
        {"id": "find", "call": "many:find"},
        {"id": "load", "foreach": "${tasks.find.outputs.list}", "run": "true", "needs": ["find"]},
    )
    assert told["tasks"]["load"]["reason"] == "`foreach` has 1001 items; at most 1000"
    assert "load[0]" not in ended(events)


def test_no_items_at_all_skip_the_task_and_what_needs_it(tmp_path: Path) -> None:
    told, _ = ran(
        tmp_path,
        {"id": "load", "foreach": [], "run": "true"},
        {"id": "after", "run": "true", "needs": ["load"]},
        {"id": "always", "run": "true", "needs": ["load"], "trigger_rule": "all_done"},
    )
    statuses = {name: each["status"] for name, each in told["tasks"].items()}
    assert statuses == {"load": "skipped", "after": "skipped", "always": "success"}
    assert told["status"] == "success"


def test_items_that_fail_fail_the_whole_with_their_names_after_all_have_ended(tmp_path: Path) -> None:
    told, events = ran(
        tmp_path,
        {"id": "load", "foreach": [0, 1, 2, 3, 4], "run": 'exit "$item"', "skip_on_exit_code": [2]},
        {"id": "after", "run": "true", "needs": ["load"]},
    )
    assert told["reason"] == (
        "task `load` failed: 3 of 5 items failed: load[1] exit code 1, load[3] exit code 3, load[4] exit code 4"
    )
    assert ended(events) == {
        "load[0]": "success", "load[1]": "failed", "load[2]": "skipped", "load[3]": "failed", "load[4]": "failed",
        "load": "failed",
    }  # fmt: skip
    summary = told["tasks"]["load"]["outputs"]
    assert (summary["success"], summary["failed"], summary["skipped"]) == (1, 3, 1)
    assert told["tasks"]["after"]["status"] == "upstream_failed"


def test_each_item_has_its_own_retries_and_timeout(tmp_path: Path) -> None:
    told, events = ran(
        tmp_path,
        {
            "id": "load",
            "foreach": ["good", "late", "slow"],
            "run": 'test "$item" = good || test "$TASK_ATTEMPT" = 2 -a "$item" = late || sleep 100',
            "retries": {"max": 1},
            "timeout": "0.5s",
        },
    )
    tries = [(each["task_id"], each["task_attempt"]) for each in events if each["event"] == "task_started"]
    assert sorted(tries)[1:] == [("load[0]", 1), ("load[1]", 1), ("load[1]", 2), ("load[2]", 1), ("load[2]", 2)]
    assert ended(events) == {"load[0]": "success", "load[1]": "success", "load[2]": "timeout", "load": "failed"}
    assert told["reason"] == "task `load` failed: 1 of 3 items failed: load[2] timed out after 500ms"


@pytest.mark.parametrize(("own", "most"), [(2, 2), (1, 1), (None, 3), (9, 3)])
def test_no_more_items_run_at_once_than_the_task_and_its_dag_allow(tmp_path: Path, own: int | None, most: int) -> None:
    limit = {"max_parallel": own} if own else {}
    script = "echo + >> log; sleep 0.1; echo - >> log"
    ran(tmp_path, {"id": "load", "foreach": list(range(8)), "run": script, **limit}, max_parallel_tasks=3)
    at_once = highest = 0
    for sign in (tmp_path / "log").read_text().split():
        at_once += 1 if sign == "+" else -1
        highest = max(highest, at_once)
    assert highest == most


def test_results_too_many_for_an_event_are_left_out_of_the_summary(tmp_path: Path) -> None:
    told, _ = ran(
        tmp_path,
        {
            "id": "load",
            "foreach": [1, 2, 3],
            "run": 'printf "x=" > "$TASK_OUTPUT"; head -c 15000 /dev/zero | tr "\\0" y >> "$TASK_OUTPUT"',
        },
    )
    assert told["tasks"]["load"]["outputs"] == {"count": 3, "success": 3, "failed": 0, "skipped": 0}


def test_a_cancelled_run_ends_its_items_and_begins_no_more(tmp_path: Path, wait_for: WaitFor, service: Service) -> None:
    task = {"id": "load", "foreach": [1, 2, 3, 4], "run": "echo x >> n; sleep 100", "max_parallel": 2}
    dag = service.tasks("d", task)
    service.start()
    wait_for(service.is_ready, what="the service")
    run_id = service.ask(dag)
    wait_for(lambda: (service.root / "n").exists() and (service.root / "n").read_text() == "x\nx\n", what="two items")
    assert service.command("cancel", run_id).returncode == 0
    (end,) = service.events("run_finished")
    assert (end["status"], end["tasks"]) == ("cancelled", {"cancelled": 1})
    assert (service.root / "n").read_text() == "x\nx\n"


def retried(service: Service, wait_for: WaitFor, run_id: str, *words: str) -> list[str]:
    """Retry a run; return what it has done since."""
    before = len((service.root / "done").read_text().splitlines())
    done = service.command("retry", run_id, *words, "--wait")
    assert re.search("attempt", done.stdout), done
    return sorted((service.root / "done").read_text().splitlines()[before:])


def test_a_retry_of_what_failed_runs_the_items_that_failed_and_no_other(service: Service, wait_for: WaitFor) -> None:
    dag = service.tasks(
        "d",
        {"id": "find", "run": 'echo find >> done; cat items > "$TASK_OUTPUT"'},
        {
            "id": "load",
            "foreach": "${tasks.find.outputs.list}",
            "run": 'echo "$item" >> done; echo "r=$item" >> "$TASK_OUTPUT"; test -e good || test "$item" != us',
            "needs": ["find"],
        },
        {
            "id": "after",
            "run": ["sh", "-c", 'echo "$1" >> done', "-", "${tasks.load.outputs.results}"],
            "needs": ["load"],
        },
    )
    (service.root / "items").write_text('{"list": ["eu", "us", "apac"]}')
    service.start()
    wait_for(service.is_ready, what="the service")
    run_id = service.ask(dag)
    wait_for(lambda: service.has_ended(run_id), what="its end")
    (service.root / "good").touch()
    results = '[{"r": "eu"}, {"r": "us"}, {"r": "apac"}]'
    assert retried(service, wait_for, run_id, "--failed") == [results, "us"]
    (request,) = (each for each in service.events("run_requested") if each.get("retry_of"))
    assert request["kept"] == ["find", "load[0]", "load[2]"]
    assert retried(service, wait_for, run_id, "--from", "load[2]") == [results, "apac"]
    assert retried(service, wait_for, run_id, "--from", "load") == [results, "apac", "eu", "us"]
    assert len(retried(service, wait_for, run_id, "--from", "find")) == 5
    wrong = service.command("retry", run_id, "--from", "load[3]")
    assert (wrong.returncode, wrong.stderr) == (2, "DAG `d` has no task `load[3]`; did you mean `load[2]`?\n")
    report = audit(service.log, datetime.now(UTC), lateness_s=60, final=True)
    assert not report.violations


def test_an_item_that_is_another_one_by_now_is_not_kept(service: Service, wait_for: WaitFor) -> None:
    task = {"id": "load", "run": 'echo "$item" >> done; test "$item" != bad'}
    dag = service.tasks("d", {**task, "foreach": ["a", "b", "bad"]})
    service.start()
    wait_for(service.is_ready, what="the service")
    run_id = service.ask(dag)
    wait_for(lambda: service.has_ended(run_id), what="its end")
    service.tasks("d", {**task, "foreach": ["a", "c", "good"]})
    assert retried(service, wait_for, run_id, "--failed") == ["c", "good"]


def test_the_items_of_a_parked_run_are_neither_lost_nor_run_again(service: Service, wait_for: WaitFor) -> None:
    dag = service.tasks(
        "d",
        {"id": "ask", "foreach": ["a", "b"], "approval": "${item}?"},
        {"id": "load", "foreach": [1, 2, 3], "run": 'echo "$item" >> done; test "$item" != 2'},
        {"id": "sub", "foreach": [{"n": 5}, {"n": 6}], "dag": "dags/sub.yaml", "params": {"n": "${item.n}"}},
    )
    (service.root / "dags" / "sub.yaml").write_text(
        json.dumps({"id": "sub", "params": {"n": 0}, "tasks": [{"id": "t", "run": "echo ${params.n} >> done"}]})
    )
    service.start()
    wait_for(service.is_ready, what="the service")
    run_id = service.ask(dag)
    wait_for(lambda: len(service.events("approval_requested")) == 2, what="the questions")
    wait_for(lambda: service.has_ended(f"{run_id}.sub.0", f"{run_id}.sub.1"), what="the runs")
    assert service.command("approve", run_id, "ask[1]").returncode == 0
    assert service.command("reject", run_id).returncode == 0
    wait_for(lambda: service.has_ended(run_id), what="its end")
    assert sorted((service.root / "done").read_text().split()) == ["1", "2", "3", "5", "6"]
    (end,) = service.events("run_finished", run_id)
    assert end["tasks"] == {"failed": 2, "success": 1}
    report = audit(service.log, datetime.now(UTC), lateness_s=60, final=True)
    assert not report.violations


@given(st.sets(st.tuples(st.sampled_from(["a", "b.c", "d-e"]), st.none() | st.integers(0, 40))))
def test_ids_of_instances_written_shortly_are_read_as_they_were(named: set[tuple[str, int | None]]) -> None:
    names = {base if number is None else instance_id(base, number) for base, number in named}
    assert unpack(pack(names)) == names
    assert {base_of(name) for name in names} == {base for base, _ in named}


def test_a_thousand_instances_are_written_in_one_word() -> None:
    assert pack(instance_id("load", number) for number in range(1000)) == ["load[0-999]"]
