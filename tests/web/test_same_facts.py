"""The dashboard tells of the service and of a run what the commands tell, key by key."""

from __future__ import annotations

import json
from typing import Any

from dashboard import Dashboard
from service import Service, WaitFor

# What moves on between two looks.
MOVING = {"cpu_s", "cpu_percent", "rss_bytes", "uptime_s", "elapsed_s"}


def told(service: Service, *words: str) -> Any:
    return json.loads(service.command(*words, "--json").stdout)


def still(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key not in MOVING}


def within(facts: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return of `more` what `facts` names."""
    assert facts.keys() <= more.keys()
    return {key: more[key] for key in facts}


def test_the_page_now_tells_of_the_service_what_status_tells(
    service: Service, dashboard: Dashboard, wait_for: WaitFor
) -> None:
    sleeper = service.dag("sleeper", "sleep 60")
    service.start()
    wait_for(service.is_ready, what="the service")
    api = dashboard.start().client()
    asking = service.ask(service.tasks("ask", {"id": "ok", "approval": "Go on?"}))
    wait_for(lambda: dashboard.has_seen(asking, "parked"), timeout=20, what="the question")
    running = service.ask(sleeper)
    wait_for(lambda: dashboard.has_seen(running, "running"), timeout=20, what="the run")
    assert service.command("drain", "--reason", "move").returncode == 0
    # The processes are looked up once a second.
    wait_for(
        lambda: (
            api.get("/api/v1/now").json()["drain"]
            and any(e["run_id"] for e in api.get("/api/v1/now").json()["workers"])
        ),
        what="the drain and the run",
    )
    now, status = api.get("/api/v1/now").json(), told(service, "status")
    for key in ("health", "problems", "approvals", "drain"):
        assert now[key] == status[key], key
    assert (now["health"], now["drain"]["reason"]) == ("degraded", "move")
    assert [each["run_id"] for each in now["approvals"]] == [asking]
    assert still(now["supervisor"]) == still(status["supervisor"])
    assert len(now["workers"]) == len(status["workers"]) == 2
    for shown, worker in zip(now["workers"], status["workers"], strict=True):
        assert still(within(worker, shown)) == still(worker)


def test_a_page_of_a_run_tells_what_show_tells(service: Service, dashboard: Dashboard, wait_for: WaitFor) -> None:
    first = {"id": "a", "run": 'echo n=1 >> "$TASK_OUTPUT"'}
    run_id = service.ask(service.tasks("d", first, {"id": "b", "run": "exit 1", "needs": ["a"]}), by="x@y")
    service.start()
    api = dashboard.start().client()
    wait_for(lambda: dashboard.has_seen(run_id, "failed"), timeout=20, what="its end")
    run, shown = api.get(f"/api/v1/runs/{run_id}").json(), told(service, "show", run_id)
    run["tasks"] = [within(task, more) for task, more in zip(shown["tasks"], run["tasks"], strict=True)]
    assert within(shown, run) == shown
