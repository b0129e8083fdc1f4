"""The API keeps what its description says; and whatever goes wrong is told as a problem."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from dashboard import OPERATOR, VIEWER, Dashboard
from service import Service, WaitFor

from scheduler.web.api import ENDPOINTS, mount
from scheduler.web.endpoints import Media, properties_of
from scheduler.web.openapi import document
from scheduler.web.queries import NowQuery, RunsQuery, SchedulesQuery
from scheduler.web.views import figures, history, schedules

DOCUMENT = document(ENDPOINTS, "1.0")
EXAMPLES = {
    "run_id": "done.1",
    "schedule_id": "daily",
    "task_id": "ok",
}
# What schemathesis is told: ids that there are, and where its rules do not fit.
CONFIGURATION = """
[dictionaries]
runs = { values = ["done.1", "asks.1", "failed.1"] }
schedules = { values = ["daily", "often"] }
tasks = { values = ["ok"] }

[parameters]
"path.run_id" = { dictionary = "runs", probability = 0.8 }
"path.schedule_id" = { dictionary = "schedules", probability = 0.8 }
"path.task_id" = { dictionary = "tasks", probability = 0.8 }

[checks]
# No schema can say which cursors are those of a page: 410 is the right answer to one that is not.
positive_data_acceptance.expected-statuses = ["2xx", "304", "404", "409", "410"]

[[operations]]
include-operation-id = "trigger"
# Which params there are, the DAG says.
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "409"]
"""


@pytest.fixture
def api(service: Service, dashboard: Dashboard, wait_for: WaitFor) -> httpx.Client:
    """A dashboard on a log with schedules and with runs that ended well, ended badly and ask; no service runs now."""
    (service.root / "dags" / "d.yaml").write_text(
        json.dumps({"id": "d", "params": {"region": "eu", "days": 7}, "tasks": [{"id": "t", "run": "echo one"}]}),
        "ascii",
    )
    service.schedule("daily", "30 6 * * *", "dags/d.yaml")
    service.schedule("often", "*/5 * * * *", "dags/d.yaml", tenant="other")
    supervisor = service.start()
    wait_for(service.is_ready, timeout=30, what="the service")
    service.ask("dags/d.yaml", "done.1", params={"region": "eu", "days": 1})
    service.ask(service.dag("f", "false"), "failed.1")
    service.ask(service.tasks("q", {"id": "ok", "approval": "Go on?"}), "asks.1")
    wait_for(lambda: service.has_ended("done.1", "failed.1"), timeout=30, what="the runs")
    wait_for(lambda: service.events("run_parked", "asks.1"), timeout=30, what="the question")
    supervisor.terminate()
    supervisor.wait(20)
    client = dashboard.start().client()
    wait_for(lambda: client.get("/api/v1/schedules/daily").status_code == 200, what="the schedules")
    return client


def reads() -> list[tuple[str, str]]:
    """Return the name and the address of each read but the stream."""
    return [
        (each.name, "/api/v1" + re.sub(r"{(\w+)}", lambda found: EXAMPLES[found[1]], each.path))
        for each in ENDPOINTS
        if each.method == "GET" and Media("text/event-stream") not in each.tells
    ]


def test_every_route_is_described_and_every_description_is_complete() -> None:
    routes = {(route.path, method.lower()) for route in mount().routes for method in route.methods - {"HEAD"}}  # type: ignore[attr-defined]
    operations = {(path, method): each for path, item in DOCUMENT["paths"].items() for method, each in item.items()}
    assert routes == operations.keys()
    names = [each["operationId"] for each in operations.values()]
    assert len(set(names)) == len(names) == len(ENDPOINTS)
    groups = {each["name"] for each in DOCUMENT["tags"]}
    for place, operation in operations.items():
        assert operation["summary"], place
        assert set(operation["tags"]) <= groups, place
        for each in operation["parameters"]:
            assert "$ref" in each or each["description"], (place, each)
            if each.get("in") == "path":
                assert each["schema"]["pattern"], place
        assert {"200", "400", "401"} <= operation["responses"].keys()
        if "requestBody" in operation:
            name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            body = DOCUMENT["components"]["schemas"][name]
            assert body["additionalProperties"] is False
            assert all(field.get("description") for field in body["properties"].values()), name


def test_what_a_query_may_name_is_what_the_views_know() -> None:
    def names(kind: Any, field: str) -> tuple[str, ...]:
        return tuple(properties_of(kind)[field]["enum"])

    assert sorted(names(NowQuery, "window")) == sorted(figures.WINDOWS)
    assert sorted(names(RunsQuery, "status")) == sorted(history.STATUSES)
    assert sorted(names(RunsQuery, "kind")) == sorted(history.KINDS)
    assert sorted(names(SchedulesQuery, "status")) == sorted(schedules.STATUSES)
    assert sorted(names(SchedulesQuery, "sort")) == sorted(schedules.SORTS)


def test_who_has_an_answer_already_is_told_so(api: httpx.Client, wait_for: WaitFor) -> None:
    for name, path in reads():
        params = {"at": api.get("/api/v1/now").json()["at_s"]} if name == "state" else {}

        def is_known(path: str = path, params: dict[str, Any] = params) -> bool:
            first = api.get(path, params=params)
            assert first.status_code == 200, (path, first.text)
            tag = first.headers["etag"]
            again = api.get(path, params=params, headers={"If-None-Match": f'"x", {tag}'})
            assert again.status_code in (200, 304)
            assert again.status_code == 200 or (again.headers["etag"], again.content) == (tag, b"")
            return again.status_code == 304

        # What is told of a moment is another after a second.
        wait_for(is_known, what=f"an answer of {path} that stays")
        assert api.get(path, params=params, headers={"If-None-Match": 'W/"x"'}).status_code == 200


def test_an_answer_is_another_once_the_log_has_brought_something(
    service: Service, api: httpx.Client, wait_for: WaitFor
) -> None:
    tags = {path: api.get(path).headers["etag"] for path in ("/api/v1/runs", "/api/v1/events")}
    service.ask("dags/d.yaml", "later.1")
    wait_for(lambda: api.get("/api/v1/runs/later.1").status_code == 200, what="the run")
    for path, tag in tags.items():
        assert api.get(path, headers={"If-None-Match": tag}).status_code == 200, path


def test_whatever_goes_wrong_is_told_as_a_problem(dashboard: Dashboard) -> None:
    dashboard.start()
    api, viewer = dashboard.client(), dashboard.client(VIEWER)
    no_one = {"authorization": ""}
    html = {"accept": "text/html"}
    answers = {
        400: api.get("/api/v1/runs?limit=0"),
        401: httpx.get(f"{dashboard.url}/api/v1/runs", headers=no_one),
        403: viewer.post("/api/v1/schedules/daily/pause", json={}),
        404: api.get("/api/v1/nothing", headers=html),
        405: api.post("/api/v1/runs", json={}),
        410: api.get("/api/v1/runs?cursor=x"),
        413: api.post("/api/v1/schedules/daily/pause", content=b" " * 70_000),
        415: api.post("/api/v1/schedules/daily/pause", data={"reason": "form"}),
        421: api.get("/api/v1/runs", headers={"host": "evil.test"}),
    }
    for status, answer in answers.items():
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        told = answer.json()
        assert (told["status"], told.keys()) == (status, {"type", "title", "status", "detail"})
        assert told["title"]
        assert told["detail"]
    assert set(answers[405].headers["allow"].split(", ")) == {"GET", "HEAD"}
    for path in ("/api/v1/", "/api/v1/runs/", "/api/v1/runs/x/nothing", "/api/v2/runs"):
        assert api.get(path).headers["content-type"] == "application/problem+json", path


def test_a_body_that_cannot_be_used_is_told_by_what_and_where(api: httpx.Client) -> None:
    cases: list[tuple[str, object, str]] = [
        ("runs/done.1/retry", {"waht": "all"}, "`waht` is not known; did you mean `what`?"),
        ("runs/done.1/retry", {"what": 3}, "`what`: expected `str`, got `int`; it is `all` or `failed`; `first`"),
        ("runs/asks.1/approvals/ok", {}, "`answer` is missing: `approve` or `reject`"),
        ("schedules/daily/trigger", {"texts": {"days": 3}}, "`texts[...]`: expected `str`, got `int`"),
        ("schedules/daily/trigger", {"at": "0001-01-01T00:00:00+14:00"}, "write an ISO 8601 time with its zone"),
        ("schedules/daily/backfill", {"from": "2026-01-01", "max_parallel": "2"}, "a whole number, 1 to 1000"),
        ("schedules/daily/trigger", {"at": "9999-12-31T23:59:59Z"}, "before the year 9999"),
        ("schedules/daily/pause", {"until": "soon"}, "a duration such as 7d"),
        ("schedules/daily/pause", {"until": "9999-01-01T00:00:00Z"}, "before the year 9999"),
        ("schedules/daily/pause", {"until": f"{365 * 7973}d"}, "before the year 9999"),
        ("schedules/daily/pause", [], "Expected `object`, got `array`"),
    ]
    for path, body, detail in cases:
        answer = api.post(f"/api/v1/{path}", json=body)
        assert (answer.status_code, detail in answer.json()["detail"]) == (400, True), answer.text


def test_a_program_learns_whose_token_it_has(api: httpx.Client, dashboard: Dashboard) -> None:
    assert api.get("/api/v1/me").json() == {"name": "ann", "role": "operator"}
    assert dashboard.client(VIEWER).get("/api/v1/me").json() == {"name": "vic", "role": "viewer"}


def test_the_description_is_the_one_that_is_served(api: httpx.Client) -> None:
    assert api.get("/api/v1/openapi.json").json() == json.loads(json.dumps(DOCUMENT))


@pytest.mark.timeout(400)
def test_schemathesis_finds_nothing_in_the_api_that_its_description_does_not_say(
    api: httpx.Client, dashboard: Dashboard, tmp_path: Path
) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION, "ascii")
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", "schemathesis.toml"),
        *("run", f"{dashboard.url}/api/v1/openapi.json", "-H", f"Authorization: Bearer {OPERATOR}"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", "3", "--seed", "7", "--continue-on-failure"),
        # Wrong tokens lock their address out, after which nobody is asked for one: test_gate.py walks all routes.
        *("--exclude-checks", "ignored_auth"),
        # It does not end: test_events_api.py.
        *("--exclude-path", "/events/stream"),
    ]
    found = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]
    # All but the stream, and the description itself, which it has read.
    assert f"Tested: {len(ENDPOINTS) - 2}\n" in found.stdout
