"""Runs as JSON: what is told of them, what may be done with them, and by whom."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from dashboard import VIEWER, Dashboard
from service import Service, WaitFor, is_running

LONG = 'echo "$$" > pid; sleep 100 & wait'
IDS = (
    *("../../etc/passwd", "%2e%2e", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%5c..", "a%00b", "%00", "a" * 10_000),
    *("-a", ".a", "a%20b", "a%0ab", "%F0%9F%92%A5", "%ff", "nobody.knows.it"),
)


@pytest.fixture
def api(service: Service, wait_for: WaitFor, dashboard: Dashboard) -> httpx.Client:
    """A service and a dashboard that run, asked as an operator."""
    service.start()
    wait_for(service.is_ready, timeout=30, what="the service")
    return dashboard.start().client()


def ended(service: Service, dashboard: Dashboard, wait_for: WaitFor, run_id: str, status: str) -> None:
    wait_for(lambda: dashboard.has_seen(run_id, status), timeout=30, what=f"{run_id} as {status}")


def test_a_run_is_told_with_its_tasks_and_the_items_beneath_them(
    service: Service, dashboard: Dashboard, api: httpx.Client, wait_for: WaitFor
) -> None:
    dag = service.tasks(
        "d",
        {"id": "list", "run": "echo listed"},
        {"id": "load", "run": "test ${item} != b", "foreach": ["a", "b"], "needs": ["list"]},
        {"id": "after", "run": "true", "needs": ["load"]},
    )
    run_id = service.ask(dag, params={})
    ended(service, dashboard, wait_for, run_id, "failed")
    run = api.get(f"/api/v1/runs/{run_id}").json()
    assert (run["status"], run["attempt"], run["dag"]) == ("failed", 1, dag)
    assert set(run["actions"]) == {"retry", "retry_failed", "rerun"}
    tasks = api.get(f"/api/v1/runs/{run_id}/tasks").json()
    assert tasks == {"items": run["tasks"], "next_cursor": None}
    assert [(task["task_id"], task["base_id"], task["status"], task["depth"]) for task in tasks["items"]] == [
        ("list", "list", "success", 0),
        ("load", "load", "failed", 1),
        ("load[0]", "load", "success", 2),
        ("load[1]", "load", "failed", 2),
        ("after", "after", "upstream_failed", 2),
    ]
    assert tasks["items"][3]["exit_code"] == 1
    found, cursor = [], {}
    while True:
        page = api.get(f"/api/v1/runs/{run_id}/tasks", params={"limit": 2, **cursor}).json()
        found += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert found == run["tasks"]
    tag = api.get(f"/api/v1/runs/{run_id}").headers["etag"]
    assert api.get(f"/api/v1/runs/{run_id}", headers={"If-None-Match": tag}).status_code == 304


def test_the_output_comes_in_order_from_a_number_on_and_of_one_task(
    service: Service, dashboard: Dashboard, api: httpx.Client, wait_for: WaitFor
) -> None:
    dag = service.tasks("d", {"id": "a", "run": "echo one; echo two"}, {"id": "b", "run": "echo three", "needs": ["a"]})
    run_id = service.ask(dag)
    ended(service, dashboard, wait_for, run_id, "success")
    url = f"/api/v1/runs/{run_id}/log"
    log = api.get(url).json()
    assert [(each["number"], each["task_id"], each["parts"]) for each in log["lines"]] == [
        (0, "a", [["", "one"]]),
        (1, "a", [["", "two"]]),
        (2, "b", [["", "three"]]),
    ]
    assert (log["next"], log["is_over"]) == (3, True)
    assert [each["number"] for each in api.get(url, params={"after": 2}).json()["lines"]] == [2]
    assert api.get(url, params={"after": 3}).json()["lines"] == []
    assert [each["parts"][0][1] for each in api.get(url, params={"task": "b"}).json()["lines"]] == ["three"]
    found = api.get(url, params={"find": "TWO"}).json()
    assert (found["count"], found["lines"][0]["parts"]) == (1, [["found", "two"]])
    assert api.get(url, params={"task": "../a"}).status_code == 400
    assert api.get(url, params={"after": "-1"}).status_code == 400
    text = api.get(f"/runs/{run_id}/log.txt", params={"task": "a"})
    assert (text.text, text.headers["content-type"]) == ("one\ntwo\n", "text/plain; charset=utf-8")
    assert text.headers["content-disposition"].startswith("attachment")


def test_a_cancel_ends_a_run_and_its_processes_with_the_users_name(
    service: Service, dashboard: Dashboard, api: httpx.Client, wait_for: WaitFor
) -> None:
    run_id = service.ask(service.dag("d", LONG))
    wait_for(lambda: service.task_pid(run_id), what="the task")
    wait_for(lambda: dashboard.has_seen(run_id, "running"), what="the run")
    done = api.post(f"/api/v1/runs/{run_id}/cancel", json={})
    assert done.status_code == 200, done.text
    assert done.json()["message"] == f"Cancel of {run_id} asked for"
    ended(service, dashboard, wait_for, run_id, "cancelled")
    assert service.events("cancel_requested", run_id)[0]["by"] == "ann@dashboard"
    wait_for(lambda: not is_running(service.task_pid(run_id)), what="the end of the task")
    again = api.post(f"/api/v1/runs/{run_id}/cancel", json={})
    assert (again.status_code, again.json()["detail"]) == (
        409,
        f"run `{run_id}` is not open: it has ended as cancelled",
    )
    assert again.headers["content-type"] == "application/problem+json"


def test_a_retry_runs_all_or_what_failed_or_what_follows_a_task(
    service: Service, dashboard: Dashboard, api: httpx.Client, wait_for: WaitFor
) -> None:
    dag = service.tasks(
        "d",
        {"id": "a", "run": "echo a >> done"},
        {"id": "b", "run": "echo b >> done; test -e good", "needs": ["a"]},
        {"id": "c", "run": "echo c >> done"},
    )
    run_id = service.ask(dag, params={})
    url = f"/api/v1/runs/{run_id}/retry"
    ended(service, dashboard, wait_for, run_id, "failed")
    nothing = api.post(url, json={"first": "nosuch"})
    assert (nothing.status_code, nothing.json()["title"]) == (404, "No such task")
    (service.root / "good").touch()
    assert api.post(url, json={"what": "failed"}).json()["attempt"] == 2
    ended(service, dashboard, wait_for, run_id, "success")
    assert api.post(url, json={"what": "failed"}).json()["detail"].startswith("no task of run")
    assert api.post(url, json={"first": "a"}).json()["attempt"] == 3
    wait_for(lambda: "run_finished 3 success" in service.story(run_id), what="the third attempt")
    wait_for(lambda: dashboard.has_seen(run_id, "success"), what="its end")
    assert api.post(url, json={"what": "all"}).json()["attempt"] == 4
    wait_for(lambda: "run_finished 4 success" in service.story(run_id), what="the fourth attempt")
    wait_for(lambda: dashboard.has_seen(run_id, "success"), what="its end")
    assert sorted((service.root / "done").read_text().split()) == ["a", "a", "a", "b", "b", "b", "b", "c", "c"]
    assert {each["by"] for each in service.events("run_requested", run_id) if "retry_of" in each} == {"ann@dashboard"}

    def ends() -> list[str]:
        return [each["status"] for each in api.get(f"/api/v1/runs/{run_id}").json()["attempts"]]

    wait_for(lambda: ends() == ["failed", "success", "success", "success"], what="the four ends")
    assert api.get(f"/api/v1/runs/{run_id}", params={"attempt": 1}).json()["status"] == "success"
    assert api.get(f"/api/v1/runs/{run_id}", params={"attempt": 9}).status_code == 404


def test_a_run_that_is_open_is_not_retried_and_one_that_asks_nothing_is_not_answered(
    service: Service, dashboard: Dashboard, api: httpx.Client, wait_for: WaitFor
) -> None:
    run_id = service.ask(service.dag("d", LONG))
    wait_for(lambda: dashboard.has_seen(run_id, "running"), what="the run")
    for path, body, status in (
        ("retry", {}, 409),
        ("retry", {"what": "some"}, 400),
        ("retry", {"what": 3}, 400),
        ("rerun", {"like": "never"}, 400),
        ("approvals/t", {"answer": "approve"}, 409),
        ("approvals/t", {"answer": "perhaps"}, 400),
        ("approvals/t", {"answer": "approve", "comment": "x" * 1001}, 400),
        ("approvals/..%2ft", {"answer": "approve"}, 404),
    ):
        answer = api.post(f"/api/v1/runs/{run_id}/{path}", json=body)
        assert answer.status_code == status, (path, body, answer.text)
        assert answer.json()["title"]
    assert api.post(f"/api/v1/runs/{run_id}/retry", content=b"{").status_code == 400
    assert not [each for each in service.events() if each.get("by") == "ann@dashboard"]


def test_a_rerun_is_a_new_run_that_names_the_other(
    service: Service, dashboard: Dashboard, api: httpx.Client, wait_for: WaitFor
) -> None:
    dag = {"id": "d", "params": {"n": 0}, "tasks": [{"id": "t", "run": "test ${params.n} = 1"}]}
    (service.root / "dags" / "d.yaml").write_text(json.dumps(dag), "ascii")
    run_id = service.ask("dags/d.yaml", params={"n": 1})
    ended(service, dashboard, wait_for, run_id, "success")
    done = api.post(f"/api/v1/runs/{run_id}/rerun", json={"like": "was"}).json()
    assert done["location"] == f"/runs/{done['run_id']}"
    # The answer comes once the pages know of the run.
    run = api.get(f"/api/v1/runs/{done['run_id']}").json()
    assert (run["rerun_of"], run["by"], run["kind"], run["params"]) == (run_id, "ann@dashboard", "rerun", {"n": 1})
    ended(service, dashboard, wait_for, done["run_id"], "success")


def test_an_approval_is_answered_once_with_name_and_comment(
    service: Service, dashboard: Dashboard, api: httpx.Client, wait_for: WaitFor
) -> None:
    dag = service.tasks("d", {"id": "ok", "approval": "Go on?"}, {"id": "then", "run": "true", "needs": ["ok"]})
    run_id = service.ask(dag)
    wait_for(lambda: dashboard.has_seen(run_id, "parked"), timeout=20, what="the question")
    (question,) = api.get(f"/api/v1/runs/{run_id}").json()["approvals"]
    assert (question["task_id"], question["message"]) == ("ok", "Go on?")
    url = f"/api/v1/runs/{run_id}/approvals/ok"
    assert api.post(url, json={"answer": "approve", "comment": "fine"}).json()["message"] == "Approved ok"
    assert api.post(url, json={"answer": "reject"}).status_code == 409
    ended(service, dashboard, wait_for, run_id, "success")
    (event,) = service.events("task_approved", run_id)
    assert (event["by"], event["comment"]) == ("ann@dashboard", "fine")


def test_a_viewer_reads_and_changes_nothing(
    service: Service, dashboard: Dashboard, api: httpx.Client, wait_for: WaitFor
) -> None:
    run_id = service.ask(service.dag("d", "true"))
    ended(service, dashboard, wait_for, run_id, "success")
    viewer = dashboard.client(VIEWER)
    for path in ("", "/tasks", "/log"):
        assert viewer.get(f"/api/v1/runs/{run_id}{path}").status_code == 200
    for path in ("cancel", "retry", "rerun", "approvals/t"):
        assert viewer.post(f"/api/v1/runs/{run_id}/{path}", json={}).status_code == 403
        assert api.get(f"/api/v1/runs/{run_id}/{path}").status_code in (404, 405)
    assert service.story(run_id) == ["run_started 1", "run_finished 1 success"]
    assert "Retry" not in viewer.get(f"/runs/{run_id}", headers={"Accept": "text/html"}).text


def test_an_id_that_names_no_run_is_a_problem_and_opens_nothing(dashboard: Dashboard) -> None:
    dashboard.start()
    api = dashboard.client()
    for run_id in IDS:
        for path in (
            f"/runs/{run_id}",
            f"/runs/{run_id}/log.txt",
            f"/api/v1/runs/{run_id}",
            f"/api/v1/runs/{run_id}/log",
        ):
            answer = api.get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), path[:80]
        assert api.post(f"/api/v1/runs/{run_id}/cancel", json={}).status_code == 404


def test_runs_are_listed_newest_first_by_filters_and_a_cursor(
    service: Service, dashboard: Dashboard, wait_for: WaitFor
) -> None:
    for number in range(7):
        service.ask("dags/d.yaml", f"s{number % 2}.{number}", tenant="red" if number < 2 else "blue", by="x")
    dashboard.start()
    api = dashboard.client()

    def ids(**query: Any) -> list[str]:
        return [run["run_id"] for run in api.get("/api/v1/runs", params=query).json()["items"]]

    assert ids() == ["s0.6", "s1.5", "s0.4", "s1.3", "s0.2", "s1.1", "s0.0"]
    assert ids(q="S1.") == ["s1.5", "s1.3", "s1.1"]
    assert ids(tenant="red") == ["s1.1", "s0.0"]
    assert ids(kind="manual", status="queued", limit=2) == ["s0.6", "s1.5"]
    assert ids(status="failed") == ids(kind="schedule") == ids(q="nothing") == []
    page = api.get("/api/v1/runs", params={"limit": 3}).json()
    assert (page["count"], page["counts"]) == (7, {"queued": 7})
    assert ids(limit=3, cursor=page["next_cursor"]) == ["s1.3", "s0.2", "s1.1"]
    later = service.ask("dags/d.yaml", "s9.9")
    wait_for(lambda: ids(limit=1) == [later], what="a run that comes between two pages")
    assert ids(limit=3, cursor=page["next_cursor"]) == ["s1.3", "s0.2", "s1.1"]
    assert api.get("/api/v1/runs", params={"limit": 8}).json()["next_cursor"] is None
    assert api.get("/api/v1/runs", params={"cursor": "WyJuby4xIl0"}).status_code == 410
    hour = timedelta(hours=1)
    now = datetime.now(UTC)
    assert ids(since=(now + hour).isoformat()) == ids(until=(now - hour).isoformat()) == []
    assert len(ids(since=(now - hour).isoformat(), until=(now + hour).timestamp())) == 8
    for query in (
        {"kind": "no"},
        {"since": "soon"},
        {"until": "1e300"},
        {"tenant": "../x"},
        {"limit": "x"},
        {"statsu": "failed"},
    ):
        assert api.get("/api/v1/runs", params=query).status_code == 400, query


def test_a_past_state_has_what_was_open_and_paused_then(
    service: Service, dashboard: Dashboard, api: httpx.Client, wait_for: WaitFor
) -> None:
    service.schedule("s", "0 0 1 1 *", service.dag("d", "while [ ! -e go ]; do sleep 0.02; done"))
    run_id = service.ask("dags/d.yaml")
    wait_for(lambda: dashboard.has_seen(run_id, "running"), what="the run")
    assert service.command("pause", "--all", "--reason", "move").returncode == 0
    then = datetime.now(UTC)
    (service.root / "go").touch()
    wait_for(lambda: dashboard.has_seen(run_id, "success"), what="its end")
    assert service.command("resume", "--all").returncode == 0
    past = api.get("/api/v1/state", params={"at": then.isoformat()}).json()
    assert [each["run_id"] for each in past["running"]] == [run_id]
    assert [(each["schedule_id"], each["reason"]) for each in past["paused"]] == [(None, "move")]
    assert past["supervisor_pid"]
    now = api.get("/api/v1/state", params={"at": datetime.now(UTC).isoformat()}).json()
    assert (now["running"], now["paused"], now["is_on_record"]) == ([], [], True)
    assert api.get("/api/v1/state", params={"at": "2001-01-01T00:00:00Z"}).json()["is_on_record"] is False
    for at, status in (("", 400), ("soon", 400), ("2026-11-28T09:00", 400), ("2999-01-01T00:00:00Z", 404)):
        assert api.get("/api/v1/state", params={"at": at}).status_code == status, at
