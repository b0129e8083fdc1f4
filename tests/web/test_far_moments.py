"""Moments at the ends of the calendar, where the server's clock has no such year: what others write is shown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gated import HTML, OPERATOR, app_in, asking, bearer
from service import WaitFor

from scheduler.state_store import record_event

ENDS = ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00")


@pytest.fixture(params=["Pacific/Kiritimati", "America/Los_Angeles"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The zone of this process, far to the east or the west of UTC."""
    with monkeypatch.context() as changed:
        changed.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


def test_pages_tell_of_moments_that_the_clock_of_the_server_does_not_reach(
    zone: str, tmp_path: Path, wait_for: WaitFor
) -> None:
    (tmp_path / "logs").mkdir()
    log = tmp_path / "logs" / "state.jsonl"
    spec = {"cron": "0 9 * * *", "dag": "d.yaml", "enabled": True}
    record_event({"event": "schedules_loaded", "specs": {"s": spec}}, log)
    record_event({"event": "schedule_paused", "schedule_id": "s", "by": "x", "until": ENDS[1]}, log)
    for number, moment in enumerate(ENDS):
        run = {"run_id": f"s.{number}", "schedule_id": "s", "attempt": 1, "timestamp": moment}
        record_event(
            {"event": "schedule_enqueued", "minute": moment, "not_before": moment, "dag": "d.yaml", **run}, log
        )
        record_event({"event": "schedule_skipped", "schedule_id": "s", "minute": moment, "reason": "paused"}, log)
        if number % 2 == 0:
            record_event({"event": "run_finished", "status": "failed", "duration_s": 1.0, **run}, log)
    waits = [{"kind": "time", "task_id": f"t{number}", "due_s": due_s} for number, due_s in enumerate((1e300, "x"))]
    record_event({"event": "run_requested", "run_id": "parked.1", "attempt": 1, "dag": "d.yaml"}, log)
    record_event({"event": "run_started", "run_id": "parked.1", "attempt": 1, "pid": 1}, log)
    record_event({"event": "run_parked", "run_id": "parked.1", "attempt": 1, "waits": waits}, log)
    with asking(app_in(tmp_path)) as client:
        headers = {**HTML, **bearer(OPERATOR)}
        wait_for(lambda: "parked.1" in client.get("/history", headers=headers).text, what="all that was written")
        for path in ("/", "/schedules", "/schedules/s", "/history", *(f"/runs/s.{n}" for n in range(4))):
            answer = client.get(path, headers=headers)
            assert answer.status_code == 200, (zone, path)
        assert "until 9999-12-31 " in client.get("/schedules", headers=headers).text
        for path in ("/metrics", "/api/v1/now", "/api/v1/runs", "/api/v1/schedules", "/api/v1/schedules/s"):
            assert client.get(path, headers=bearer(OPERATOR)).status_code == 200, (zone, path)
