"""A disk that refuses to flush: what was asked for is in the log all the same, and nobody asks for it twice."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest
from gated import HERE, OPERATOR, USERS, asking, bearer
from service import Service, WaitFor
from starlette.testclient import TestClient

from scheduler.web.app import build_app
from scheduler.web.tokens import Tokens
from workers.settings import Settings

TITLE = "Recorded, but not flushed to the disk"


@pytest.fixture
def client(service: Service, wait_for: WaitFor, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Who asks a dashboard whose disk flushes nothing; unless it is woken, the service looks once a minute."""
    service.schedule("x", "0 0 1 1 *", service.dag("quick", "true"))
    service.environ["SCHED_TICK_MS"] = "60000"
    service.start()
    wait_for(service.is_ready, 30, "a service")
    logs = service.log.parent
    settings = Settings(
        state_path=str(service.log), events_path=str(logs / "events.jsonl"), run_logs_dir=str(logs / "runs"),
        fsync="always",
    )  # fmt: skip
    app = build_app(settings, service.root / "schedules", Tokens(USERS), ["dash.test:8400"])
    with asking(app) as client:
        client.headers.update({**bearer(OPERATOR), "x-tickpool": "1", "origin": HERE})

        def refuse(_fd: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fdatasync", refuse)
        yield client


def ask(client: TestClient, path: str, **body: str) -> None:
    """Ask for a change, and be told that it is recorded."""
    answer = client.post(f"/api/v1{path}", json=body)
    told = answer.json()
    assert (answer.status_code, told["title"]) == (503, TITLE), told
    assert "do not ask for it again" in told["detail"]


def test_what_is_asked_of_a_schedule_is_done_and_told_as_recorded(
    client: TestClient, service: Service, wait_for: WaitFor
) -> None:
    ask(client, "/schedules/x/trigger")
    (asked,) = service.events("run_requested")
    wait_for(lambda: service.has_ended(asked["run_id"]), 30, "the run of a service that was woken")
    ask(client, "/schedules/x/pause")
    ask(client, "/schedules/x/resume")
    assert [len(service.events(name)) for name in ("schedule_paused", "schedule_resumed")] == [1, 1]


def test_what_is_asked_of_a_run_is_done_and_told_as_recorded(
    client: TestClient, service: Service, wait_for: WaitFor
) -> None:
    service.dag("quick", "sleep 300")
    ask(client, "/schedules/x/trigger")
    run_id = service.events("run_requested")[0]["run_id"]

    def has_seen(status: str) -> bool:
        answer = client.get(f"/api/v1/runs/{run_id}")
        return answer.status_code == 200 and answer.json()["status"] == status

    wait_for(lambda: has_seen("running"), 30, "the run")
    ask(client, f"/runs/{run_id}/cancel")
    wait_for(lambda: has_seen("cancelled"), 30, "its end by a service that was woken")
    service.dag("quick", "true")
    ask(client, f"/runs/{run_id}/retry", what="all")
    wait_for(lambda: has_seen("success"), 30, "the second attempt")
    assert len(service.events("cancel_requested")) == 1
    assert len(service.events("run_requested")) == 2
