"""Lines that make no sense are passed over by every fold of the dashboard, and every page is there."""

from __future__ import annotations

import asyncio
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from gated import HTML, OPERATOR, app_in, asking, bearer, paths
from loops import run_async
from odd_lines import made_events, nonsense
from service import WaitFor
from starlette.testclient import TestClient

from scheduler.web.feed import Feed
from scheduler.web.task_grid import TaskGrid
from workers.events import encode_line, stamp
from workers.settings import Settings

# The pages of a run and of a schedule are those of the good lines among the odd ones.
RUN, SCHEDULE = "good.1", "nightly"
GOOD: list[dict[str, Any]] = [
    {"event": "schedules_loaded", "specs": {SCHEDULE: {"cron": "0 5 * * *", "dag": "d.yaml", "enabled": True}}},
    {"event": "schedule_enqueued", "run_id": RUN, "schedule_id": SCHEDULE, "minute": "2026-11-23T05:00:00Z"},
    {"event": "run_started", "run_id": RUN, "schedule_id": SCHEDULE, "attempt": 1, "pid": 7, "starttime": 1,
     "boot_id": "b"},
    {"event": "run_finished", "run_id": RUN, "schedule_id": SCHEDULE, "attempt": 1, "status": "success",
     "duration_s": 1.5},
]  # fmt: skip
TASKS: list[dict[str, Any]] = [
    {"event": "task_started", "run_id": RUN, "task_id": "t", "attempt": 1, "task_attempt": 1},
    {"event": "task_finished", "run_id": RUN, "task_id": "t", "attempt": 1, "task_attempt": 1, "status": "success"},
]
RESTORED = {"run_id": "kept.1", "request": {"run_id": "kept.1"}, "status": "queued"}
# Each of them has ended the feed once.
FATAL = [
    {"event": "checkpoint", "run": {**RESTORED, "run_id": ["x"]}},
    {"event": "checkpoint", "run": {**RESTORED, "attempt": {}}},
    {"event": "checkpoint", "run": {**RESTORED, "attempt": "x"}},
    {"event": "schedules_loaded", "specs": {}, "removed": [[]]},
    {"event": "checkpoint", "schedules": [[{}, 1]]},
    {"event": "run_started", "run_id": RUN, "attempt": 1, "timestamp": "9999-12-31T23:59:59-23:59"},
]
PARKED = {"run_id": "parked.1", "attempt": 1}


def line(event: dict[str, Any], seq: int = 1) -> bytes:
    return encode_line(stamp(event, seq, "h", 7))


def fed(directory: Path) -> Feed:
    """Return a feed that has read both logs of a directory."""
    feed = Feed(Settings(state_path=f"{directory}/state.jsonl", events_path=f"{directory}/tasks.jsonl"))

    async def read() -> None:
        following = asyncio.create_task(feed.run())
        while not (feed.is_caught_up or following.done()):
            await asyncio.sleep(0)
        following.cancel()

    run_async(read())
    return feed


@pytest.mark.parametrize("event", FATAL, ids=json.dumps)
def test_a_line_that_cannot_be_used_is_passed_over(tmp_path: Path, event: dict[str, Any]) -> None:
    (tmp_path / "state.jsonl").write_bytes(line(event) + b"".join(map(line, GOOD)))
    feed = fed(tmp_path)
    assert feed.is_caught_up
    assert feed.problem == ""
    assert feed.index.by_id[RUN].status == "success"
    assert feed.ends.ended == {"success": 1}


def test_a_line_that_was_altered_is_not_believed(tmp_path: Path) -> None:
    end, asked = line(GOOD[-1]), {"event": "run_requested", "run_id": "forged.1", "dag": "d.yaml"}
    died = {"event": "worker_exited", "worker_pid": 1, "reason": "r", "run_id": RUN}
    altered = [
        end.replace(b'"success"', b'"timeout"'),
        line(asked).replace(b"forged.1", b"forged.2"),
        line(died).replace(b'"reason":"r"', b'"reason":"s"'),
        line({"event": "drain_started", "by": "ann"}).replace(b"ann", b"bob"),
    ]
    (tmp_path / "state.jsonl").write_bytes(b"".join([*map(line, GOOD[:3]), *altered]))
    said = [line(TASKS[0]), line(TASKS[1]).replace(b'"success"', b'"failed"')]
    (tmp_path / "tasks.jsonl").write_bytes(b"".join(said))
    feed = fed(tmp_path)
    row = feed.index.by_id[RUN]
    assert (row.status, row.ended_s, len(feed.index.rows)) == ("running", None, 1)
    assert (feed.ends.ended, list(feed.incidents.deaths)) == ({}, [])
    assert feed.index.at_work == {RUN: {"t": pytest.approx(row.started_s, abs=60)}}
    assert TaskGrid(tmp_path / "tasks.jsonl").of([row])[0].tasks == {"t": "running"}
    assert feed.corrupt == len(altered)


def test_a_return_within_a_line_moves_no_place(tmp_path: Path) -> None:
    texts = [b'{"a":"\r"}\r\n', *map(line, GOOD)]
    (tmp_path / "state.jsonl").write_bytes(b"".join(texts))
    span = fed(tmp_path).index.by_id[RUN].span
    assert span is not None
    assert (span.start.offset, span.end.offset) == (len(texts[0]) + len(texts[1]), sum(map(len, texts)))


def test_what_the_feed_stumbles_over_is_logged_and_told_and_the_feed_goes_on(
    tmp_path: Path, wait_for: WaitFor, caplog: pytest.LogCaptureFixture
) -> None:
    written(tmp_path, [])
    app, by = app_in(tmp_path), bearer(OPERATOR)
    feed = app.state.desk.feed
    feed.ends = None  # a fault in the code of a fold
    with asking(app) as client:
        wait_for(lambda: client.get("/api/v1/now", headers=by).json()["is_caught_up"], 30, "the whole log")
        health = client.get("/api/v1/health", headers=by).json()
        assert [text for text in health["problems"] if "AttributeError" in text and "passed over" in text]
        assert [text for text in client.get("/api/v1/now", headers=by).json()["problems"] if "AttributeError" in text]
        with open(tmp_path / "logs" / "state.jsonl", "ab") as log:
            log.write(line({"event": "run_requested", "run_id": "later.1", "dag": "d.yaml"}))
        wait_for(lambda: client.get("/api/v1/runs/later.1", headers=by).status_code == 200, 30, "the next run")
        wait_for(lambda: not client.get("/api/v1/health", headers=by).json()["audit"]["is_pending"], 30, "the audit")
    (told,) = {each.message for each in caplog.records if each.exc_info}
    assert told == "the dashboard passed over a part of the logs"


def test_a_log_that_cannot_be_read_at_first_is_followed_once_it_can(tmp_path: Path, wait_for: WaitFor) -> None:
    state = tmp_path / "logs" / "state.jsonl"
    state.mkdir(parents=True)
    app, by = app_in(tmp_path), bearer(OPERATOR)
    with asking(app) as client:
        wait_for(lambda: app.state.desk.feed.problem, 30, "the problem")
        assert "not a regular file" in app.state.desk.feed.problem
        state.rmdir()
        state.write_bytes(b"".join(map(line, GOOD)))
        wait_for(lambda: client.get(f"/api/v1/runs/{RUN}", headers=by).status_code == 200, 30, "the run")
        assert app.state.desk.feed.problem == ""


def written(directory: Path, odd: list[bytes]) -> None:
    logs = directory / "logs"
    logs.mkdir()
    for name, good in (("state", GOOD), ("events", TASKS)):
        (logs / f"{name}.jsonl").write_bytes(b"".join([*(each + b"\n" for each in odd), *map(line, good)]))


def every_page_is_there(client: TestClient, wait_for: WaitFor) -> None:
    """Ask for every page and every part of the API, for the run and the schedule that there are."""
    by = bearer(OPERATOR)
    wait_for(lambda: client.get("/api/v1/now", headers=by).json()["is_caught_up"], 30, "the whole log")
    assert client.get(f"/api/v1/runs/{RUN}", headers=by).json()["status"] == "success"
    asked = [path for path, methods in paths(client.app.routes) if "GET" in methods and "stream" not in path]
    asked += ["/history?at=1795000000", "/?window=30d", "/schedules/s", "/runs/p.20261123T1100Z"]
    for path in asked:
        name = RUN if path.startswith(("/runs/x", "/api/v1/runs/x")) else SCHEDULE
        answer = client.get(path.replace("/x", f"/{name}", 1), headers={**by, **HTML})
        assert answer.status_code < 500, (path, answer.text)
    # What these two work out in a process of their own is to be over before the application is.
    wait_for(lambda: not client.get("/api/v1/health", headers=by).json()["audit"]["is_pending"], 30, "the audit")
    wait_for(lambda: not client.get("/api/v1/forecast", headers=by).json()["is_pending"], 30, "the forecast")


@pytest.mark.parametrize(
    "odd",
    [
        {"waits": {"a": 1}},
        {"waits": 1},
        {"waits": [{"task_id": "w", "kind": "time", "due_s": 1e308}]},
        {"waits": [{"task_id": "w", "kind": "time", "due_s": True}, 1, None, {}, {}]},
        {"waits": [{"task_id": {}, "kind": [], "run": {}, "due_s": -1e18}]},
    ],
    ids=json.dumps,
)
def test_a_run_that_was_parked_by_another_hand_spoils_no_page(
    tmp_path: Path, wait_for: WaitFor, odd: dict[str, Any]
) -> None:
    events = [
        {"event": "run_requested", **PARKED, "dag": "d.yaml"},
        {"event": "run_started", **PARKED, "pid": 7, "starttime": 1, "boot_id": "b"},
        {"event": "run_parked", **PARKED, "tasks": {}, **odd},
    ]
    written(tmp_path, [line(each).rstrip() for each in events])
    with asking(app_in(tmp_path)) as client:
        every_page_is_there(client, wait_for)


def test_a_task_without_a_name_and_moments_beyond_all_years_spoil_no_page(tmp_path: Path, wait_for: WaitFor) -> None:
    late = {"event": "schedule_skipped", "schedule_id": SCHEDULE, "minute": "9999-12-31T23:59:59-23:59", "reason": "r"}
    asked = {"event": "run_requested", "run_id": "late.1", "timestamp": "9999-12-31T23:59:59-23:59"}
    nameless = {"event": "task_started", "run_id": RUN, "task_id": "", "attempt": 1, "task_attempt": 1}
    written(tmp_path, [line(each).rstrip() for each in (late, asked, nameless)])
    with asking(app_in(tmp_path)) as client:
        every_page_is_there(client, wait_for)


@pytest.mark.parametrize("number", range(4))
def test_every_page_is_there_on_a_log_of_odd_lines(tmp_path: Path, wait_for: WaitFor, number: int) -> None:
    seed = int(os.environ.get("TICKPOOL_FUZZ_SEED") or random.randrange(1 << 32))
    print(f"seed {seed}")
    chance = random.Random(seed)
    templates = [stamp(each, 7, "h", 7) for each in (*made_events(RUN), *GOOD, *TASKS)]
    written(tmp_path, [nonsense(templates, chance) for _ in range(400)])
    app = app_in(tmp_path)
    with asking(app) as client:
        every_page_is_there(client, wait_for)
        assert app.state.desk.feed.problem == ""
