"""Whatever tasks, files, people and events say is text on every page: a real service, and a browser that tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from dashboard import Dashboard
from playwright.sync_api import Browser, Page
from service import Service, WaitFor

from scheduler.state_store import record_event
from scheduler.web.pages import MENU

# It breaks out of text, an attribute in either quotes, a title, a script, a textarea, an SVG, a comment, a template.
EVIL = (
    "\"'><img src=x class=evil onerror=alert(1)><script class=evil>alert(2)</script></title></textarea></select></svg>"
    "<svg class=evil onload=alert(3)>--><a class=evil href=javascript:alert(4)>{{7*191}}{%raw%}\\"
)
# What counts time and moves through a stream is no place for it either.
LINES = f"{EVIL}\ndata: x\n\nevent: change\ndata: {EVIL}"
SHELL = EVIL.replace("'", "'\\''")


@pytest.fixture
def hostile(service: Service, wait_for: WaitFor, dashboard: Dashboard) -> Dashboard:
    """A service whose files, runs, people and events say the worst they may."""
    say = f"printf '%s\\n' '{SHELL}'; printf '\\033[31m%s\\033[0m\\n' '{SHELL}'"
    (service.root / "out.json").write_text(json.dumps({"a": EVIL, EVIL: "b", "c": {EVIL: [EVIL]}}), "ascii")
    dag = {
        "id": "evil", "params": {"p": EVIL, "q": {"k": EVIL}, "n": 1},
        "tasks": [
            {"id": "say", "run": f"{say}; cat out.json > $TASK_OUTPUT"},
            {"id": "fail", "run": f"{say} >&2; exit 3", "needs": ["say"]},
            {"id": "item", "run": "echo ${item}", "foreach": [EVIL, "b"]},
            {"id": "call", "call": "evil:fail"},
            {"id": "ask", "approval": {"message": EVIL}},
        ],
    }  # fmt: skip
    (service.root / "evil.py").write_text(f"def fail():\n    raise RuntimeError({EVIL!r})\n", "utf-8")
    (service.root / "dags" / "evil.yaml").write_text(json.dumps(dag), "ascii")
    service.schedule("evil", "0 0 1 1 *", "dags/evil.yaml", description=EVIL, params={"p": EVIL})
    service.schedule("odd", "0 0 1 1 *", f"dags/{EVIL.replace('/', '')[:60]}.yaml")
    # A name of a file holds everything but a slash.
    (service.root / "schedules" / f"{EVIL.replace('/', '_')[:120]}.yaml").write_text(
        json.dumps([{EVIL: EVIL}]), "ascii"
    )
    service.start()
    wait_for(service.is_ready, 30, "a service")
    dashboard.start("--allow-host", "x")
    client = dashboard.client()
    asked = client.post("/api/v1/schedules/evil/trigger", json={"params": {"p": EVIL, "q": {EVIL: EVIL}}})
    assert asked.status_code == 200, asked.text
    run = asked.json()["run_id"]
    wait_for(lambda: client.get("/api/v1/now").json()["approvals"], 30, "the question")
    assert client.post("/api/v1/schedules/evil/pause", json={"reason": EVIL, "until": "2h"}).status_code == 200
    for event in forged(service, run):
        record_event(event, service.log)
    dashboard.run = run  # type: ignore[attr-defined]
    return dashboard


def forged(service: Service, run: str) -> Iterator[dict[str, Any]]:
    """Yield events that who may write the log may write."""
    now = service.events()[-1]["timestamp"]
    for name in (EVIL, LINES, "forged"):
        asked = {"run_id": name, "attempt": 1, "dag": "dags/evil.yaml", "project": str(service.root), "by": EVIL}
        yield {"event": "run_requested", **asked, "tenant": EVIL, "params": {EVIL: EVIL}, "schedule_id": EVIL}
        yield {"event": "run_started", "run_id": name, "attempt": 1, "pid": 1, "schedule_id": EVIL}
        yield {"event": "run_finished", "run_id": name, "attempt": 1, "status": EVIL, "reason": LINES, "duration_s": 1}
    yield {"event": "run_finished", "run_id": "forged", "attempt": 1, "status": "failed", "reason": LINES}
    yield {"event": "schedule_skipped", "schedule_id": "evil", "minute": now, "reason": EVIL, "open_run": EVIL}
    yield {"event": "schedule_missed", "schedule_id": "evil", "from": now, "to": now, "count": 2, "reason": EVIL}
    yield {"event": "schedule_paused", "tenant": EVIL, "by": EVIL, "reason": EVIL}
    yield {"event": "schedule_paused", "schedule_id": EVIL, "by": LINES, "reason": LINES}
    yield {"event": "drain_started", "by": EVIL, "reason": EVIL}
    yield {"event": "worker_exited", "worker_pid": 1, "reason": LINES, "run_id": EVIL}
    yield {"event": "schedule_invalid", "file": EVIL, "line": 1, "col": 1, "reason": LINES, "load": EVIL}
    yield {
        "event": "approval_requested",
        "run_id": run,
        "attempt": 1,
        "task_id": EVIL,
        "message": LINES,
        "default": EVIL,
    }
    spec = {"cron": "* * * * *", "timezone": EVIL, "enabled": True, "dag": EVIL, "tenant": EVIL}
    yield {"event": "schedules_loaded", "specs": {EVIL: spec}, "removed": []}


def watched(page: Page) -> list[str]:
    """Return a list of what a page does that only code of somebody else would have it do."""
    told: list[str] = []

    def dialog(each: Any) -> None:
        told.append(f"dialog: {each.message}")
        each.dismiss()

    page.on("dialog", dialog)
    # What the policy stops was in the page.
    page.on("console", lambda each: told.append(each.text) if "Content Security Policy" in each.text else None)
    page.on("request", lambda each: told.append(each.url) if each.url.endswith("/x") else None)
    return told


def test_no_word_of_others_is_more_than_text_on_any_page(
    hostile: Dashboard, browser: Browser, service: Service, wait_for: WaitFor
) -> None:
    page = hostile.page(browser)
    told = watched(page)
    run = hostile.run  # type: ignore[attr-defined]
    query = "?q=%22%3E%3Cimg%20class=evil%20src=x%3E"
    places = [
        *(path for path, _, _ in MENU), f"/runs/{run}", f"/runs/{run}?task=say&find=%3Cimg", "/runs/forged",
        "/schedules/evil", "/schedules/odd", f"/history{query}", f"/schedules{query}", "/history?status=failed",
        "/history?at=" + service.events()[-1]["timestamp"], "/history?status=%3Cimg%20class=evil%3E",
        f"/nothing{query}", "/nothing/%3Cimg%20class=evil%20src=x%3E", "/runs/%3Cimg%20class=evil%3E",
        "/schedules/%22%3E%3Cimg%20class=evil%3E",
        f"/?window={query}", f"/login?next={query}",
    ]  # fmt: skip
    shown = 0
    for place in places:
        page.goto(f"{hostile.url}{place}")
        for _ in range(2):
            # The second look is at what the stream has put in place of the first.
            assert page.locator(".evil").count() == 0, place
            text = page.locator("body").inner_text()
            assert "1337" not in text, place
            shown += "onerror=alert(1)" in text
            if not page.locator("[data-live]").count():
                break
            with page.expect_response(page.url) as fresh:
                record_event({"event": "schedule_paused", "tenant": "t", "by": EVIL, "reason": EVIL}, service.log)
            fresh.value.finished()
            page.evaluate("new Promise((done) => setTimeout(done, 50))")
        assert not told, place
        assert not page.errors, place  # type: ignore[attr-defined]
    assert shown >= 8
    page.context.close()


def test_what_is_not_a_page_is_never_taken_for_one(hostile: Dashboard) -> None:
    client, run = hostile.client(), hostile.run  # type: ignore[attr-defined]
    text = client.get(f"/runs/{run}/log.txt", params={"task": "say"})
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert text.headers["content-disposition"].startswith("attachment; ")
    assert (text.headers["x-content-type-options"], EVIL in text.text) == ("nosniff", True)
    for path in (
        "/now",
        "/runs",
        f"/runs/{run}",
        f"/runs/{run}/log",
        "/schedules",
        "/schedules/evil",
        "/health",
        "/runs/%3Cb",
    ):
        answer = client.get(f"/api/v1{path}", headers={"Accept": "text/html"})
        assert answer.headers["content-type"] in ("application/json", "application/problem+json")
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_line_of_the_stream_stays_one_line(hostile: Dashboard, service: Service) -> None:
    with hostile.client().stream(
        "GET", "/stream", headers={"Last-Event-ID": LINES.split("\n", maxsplit=1)[0]}
    ) as stream:
        for event in forged(service, "x"):
            record_event(event, service.log)
        said = ""
        for chunk in stream.iter_text():
            said += chunk
            if said.count("event: change") >= 2:
                break
    for line in said.splitlines():
        assert line.partition(":")[0] in ("retry", "id", "event", "data", ""), line
        if line.startswith("data: "):
            assert set(json.loads(line.removeprefix("data: "))) == {"seq", "runs", "schedules"}
