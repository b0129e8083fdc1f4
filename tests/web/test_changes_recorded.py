"""Each change that the dashboard makes is an event of the log with the user in it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from dashboard import OPERATOR, VIEWER, Dashboard
from gated import app_in, paths
from service import Service, WaitFor

# They change nothing that is on record: who asks, and what the dashboard has read.
UNRECORDED = {"/login", "/logout", "/api/v1/health/audit"}


def test_each_change_is_recorded_with_the_user_and_no_route_changes_anything_else(
    service: Service, dashboard: Dashboard, wait_for: WaitFor
) -> None:
    service.tasks("asks", {"id": "x", "approval": "Go on?"})
    service.schedule("x", "0 0 * * *", service.dag("quick", "true"))
    service.schedule("asks", "0 0 1 1 *", "dags/asks.yaml")
    service.start()
    wait_for(service.is_ready, 30, "a service")
    client = dashboard.start().client()
    viewer = dashboard.client(VIEWER)
    made: dict[str, tuple[str, str]] = {}

    def change(path: str, event: str, place: str, **body: Any) -> dict[str, Any]:
        """Make a change by a path of the table; a viewer tries before, and nothing of that is on record."""
        asked = "/api/v1" + place
        before = len(service.events())
        assert viewer.post(asked, json=body).status_code == 403
        assert not [each for each in service.events()[before:] if "vic" in str(each)]
        # Nor does who asks say who it is.
        answer = client.post(asked, json=body, headers={"X-User": "root", "X-Forwarded-User": "root"})
        assert answer.status_code == 200, (asked, answer.text)
        found = [each for each in service.events()[before:] if each["event"] == event and "by" in each]
        assert found, asked
        assert {each["by"] for each in found} == {"ann@dashboard"}, asked
        made["/api/v1" + path] = (event, found[0]["by"])
        return answer.json()  # type: ignore[no-any-return]

    def ended(run: str) -> Callable[[], bool]:
        return lambda: service.has_ended(run) and dashboard.has_seen(run, "success", "failed", "cancelled")

    def waits(run: str) -> Callable[[], bool]:
        return lambda: any(each["run_id"] == run for each in client.get("/api/v1/now").json()["approvals"])

    change("/schedules/x/pause", "schedule_paused", "/schedules/x/pause", reason="r")
    change("/schedules/x/resume", "schedule_resumed", "/schedules/x/resume")
    day = f"{datetime.now(UTC) - timedelta(days=3):%Y-%m-%d}"
    change("/schedules/x/backfill", "backfill_requested", "/schedules/x/backfill", **{"from": day})
    run = change("/schedules/x/trigger", "run_requested", "/schedules/x/trigger")["run_id"]
    wait_for(ended(run), 30, "a run")
    change("/runs/x/retry", "run_requested", f"/runs/{run}/retry", what="all")
    change("/runs/x/rerun", "run_requested", f"/runs/{run}/rerun", like="today")
    for path, event, words in (
        ("/runs/x/approvals/x", "task_approved", {"answer": "approve"}),
        ("/runs/x/cancel", "cancel_requested", {}),
    ):
        asking = client.post("/api/v1/schedules/asks/trigger").json()["run_id"]
        wait_for(waits(asking), 30, "a question")
        change(path, event, path.replace("/runs/x", f"/runs/{asking}"), **words)
        wait_for(ended(asking), 30, "its end")
    posts = {path for path, methods in paths(app_in(service.root).routes) if "POST" in methods}
    assert set(made) | UNRECORDED == posts
    assert OPERATOR not in str(service.events())
