"""Of the attempts of a run: how long the present one takes, and none is told that nothing is on record of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gated import HTML, OPERATOR, bearer
from service import WaitFor
from starlette.testclient import TestClient

from scheduler.state_store import StateStore
from workers.event_log import EventLog
from workers.events import time_of
from workers.segments import list_segments

OF = {"run_id": "r.1", "schedule_id": "s", "dag": "d.yaml"}
ASKED = {"event": "schedule_enqueued", **OF, "minute": "2026-11-20T05:00:00Z", "timestamp": "2026-11-20T05:00:00Z"}
STARTED = {"event": "run_started", **OF, "pid": 7, "starttime": 1, "boot_id": "b"}
FAILED = {"event": "run_finished", **OF, "status": "failed", "duration_s": 5, "timestamp": "2026-11-20T05:00:06Z"}
FIRST = {"attempt": 1, "timestamp": "2026-11-20T05:00:01Z"}
SECOND = {"attempt": 2, "timestamp": "2026-11-25T05:00:00Z"}
RETRIED = {"event": "run_requested", **OF, **SECOND, "retry_of": 1, "by": "ann"}


def write(directory: Path, *segments: list[dict[str, Any]]) -> None:
    """Write a state log in segments, of which only the last is kept."""
    store = StateStore(EventLog(directory / "logs" / "state.jsonl", fsync="off"))
    for number, events in enumerate(segments):
        if number:
            assert store.rotate(0)
        store.commit(lambda _, events=events: events)  # type: ignore[misc]
    store.close()
    for segment in list_segments(directory / "logs" / "state.jsonl")[:-1]:
        segment.path.unlink()


def row(client: TestClient, wait_for: WaitFor) -> dict[str, Any]:
    by = bearer(OPERATOR)
    wait_for(lambda: client.get("/api/v1/runs?status=running", headers=by).json()["items"], 20, "the run as it is")
    (found,) = client.get("/api/v1/runs", headers=by).json()["items"]
    return dict(found)


@pytest.mark.parametrize("again", [RETRIED, None], ids=["by hand", "by itself"])
def test_a_run_that_runs_again_has_taken_what_its_present_attempt_has(
    tmp_path: Path, client: TestClient, wait_for: WaitFor, again: dict[str, Any] | None
) -> None:
    end = {**FAILED, "attempt": 1, **({} if again else {"next_attempt": 2})}
    parked = {"event": "run_parked", **OF, "attempt": 2, "waits": [], "timestamp": "2026-11-25T05:00:10Z"}
    events = [ASKED, {**STARTED, **FIRST}, end, *([again] if again else []), {**STARTED, **SECOND}, parked]
    events += [{"event": "run_resumed", **OF, "attempt": 2}, {**STARTED, "attempt": 2, "resumed": True}]
    write(tmp_path, events)
    found = row(client, wait_for)
    assert found["status"] == "running"
    assert (found["started_s"], found["attempt_s"]) == (time_of(FIRST["timestamp"]), time_of(SECOND["timestamp"]))
    page = client.get("/history", headers={**bearer(OPERATOR), **HTML}).text
    assert f'data-since="{found["attempt_s"]}"' in page


@pytest.mark.parametrize("again", [RETRIED, None], ids=["by hand", "by itself"])
def test_an_attempt_whose_segment_was_pruned_is_not_told_of(
    tmp_path: Path, client: TestClient, wait_for: WaitFor, again: dict[str, Any] | None
) -> None:
    first = [ASKED, {**STARTED, **FIRST}, {**FAILED, "attempt": 1, **({} if again else {"next_attempt": 2})}]
    write(tmp_path, first, [*([again] if again else []), {**STARTED, **SECOND}])
    assert row(client, wait_for)["attempt"] == 2
    by = bearer(OPERATOR)
    assert [each["attempt"] for each in client.get("/api/v1/runs/r.1", headers=by).json()["attempts"]] == [2]
    assert client.get("/api/v1/runs/r.1?attempt=1", headers=by).status_code == 404
    assert client.get("/api/v1/runs/r.1?attempt=2", headers=by).status_code == 200
