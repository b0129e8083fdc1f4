"""The public API as a program uses it: parse, load, tick, drain."""

from __future__ import annotations

import json
import multiprocessing
import queue
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from scheduler import drain_queue, load_schedules, parse_cron, tick_once
from scheduler.state_store import last_runs

NOW = datetime(2026, 11, 23, 9, 0, 30, tzinfo=UTC)


def at(hour: int, minute: int) -> datetime:
    return datetime(2026, 11, 23, hour, minute, tzinfo=UTC)


@pytest.fixture(params=["queue.Queue", "multiprocessing.Queue"])
def run_queue(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "queue.Queue":
        yield queue.Queue()
        return
    shared = multiprocessing.get_context("forkserver").Queue()
    yield shared
    shared.close()
    shared.join_thread()


Project = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Make a project of DAGs `name` -> shell text, each with a schedule of its name; return its schedules directory."""
    monkeypatch.setenv("STATE_STORE_PATH", str(tmp_path / "logs" / "state.jsonl"))
    monkeypatch.setenv("ORCH_EVENTS_PATH", str(tmp_path / "logs" / "events.jsonl"))
    monkeypatch.setenv("RUN_LOGS_DIR", str(tmp_path / "logs" / "runs"))

    def make(cron: str = "* * * * *", enabled: bool = True, **commands: str) -> Path:
        for place in ("schedules", "dags"):
            (tmp_path / place).mkdir(exist_ok=True)
        for name, command in commands.items():
            (tmp_path / "dags" / f"{name}.yaml").write_text(f"id: {name}\ntasks:\n  - id: t\n    run: {command}\n")
            entry = {"id": name, "cron": cron, "dag": f"dags/{name}.yaml", "tenant": "local-dev", "enabled": enabled}
            (tmp_path / "schedules" / f"{name}.yaml").write_text(json.dumps([entry]))
        return tmp_path / "schedules"

    return make


def names(events: list[dict[str, Any]]) -> list[str]:
    return [str(event["event"]) for event in events]


def test_parse_cron_every_5_minutes() -> None:
    matches = parse_cron("*/5 * * * *")
    assert [minute for minute in range(60) if matches(at(9, minute))] == list(range(0, 60, 5))


def test_parse_cron_wildcard() -> None:
    matches = parse_cron("* * * * *")
    assert all(matches(at(9, 0) + timedelta(minutes=minute)) for minute in range(0, 2 * 1440, 7))


def test_parse_cron_specific_hour() -> None:
    matches = parse_cron("0 9 * * *")
    assert [hour for hour in range(24) if matches(at(hour, 0))] == [9]
    assert not matches(at(9, 1))


def test_tick_once_enqueues_matching_schedule(project: Project, run_queue: Any) -> None:
    schedules = load_schedules(project(cron="0 9 * * *", report="true"))
    [request] = tick_once(NOW, schedules, run_queue)
    assert run_queue.get(timeout=10) == request
    assert (request["event"], request["schedule_id"], request["minute"], request["tenant"]) == (
        "schedule_enqueued",
        "report",
        "2026-11-23T09:00:00Z",
        "local-dev",
    )
    assert last_runs()[-1] == request


def test_tick_once_skips_non_matching(project: Project, run_queue: Any) -> None:
    schedules = load_schedules(project(cron="0 10 * * *", report="true"))
    assert tick_once(NOW, schedules, run_queue) == []
    assert (run_queue.empty(), last_runs()) == (True, [])


def test_tick_once_skips_disabled(project: Project, run_queue: Any) -> None:
    schedules = load_schedules(project(enabled=False, report="true"))
    assert tick_once(NOW, schedules, run_queue) == []
    assert (run_queue.empty(), last_runs()) == (True, [])


def test_tick_once_deduplicates_same_minute(project: Project, run_queue: Any) -> None:
    schedules = load_schedules(project(report="true"))
    asked = [tick_once(NOW + timedelta(seconds=s), schedules, run_queue) for s in (0, 0, 29)]
    assert [len(requests) for requests in asked] == [1, 0, 0]
    assert names(last_runs()) == ["schedule_enqueued"]


def test_drain_queue_executes_runs(project: Project, run_queue: Any, tmp_path: Path) -> None:
    schedules = load_schedules(project(a="echo a > a.txt", b="echo b > b.txt"))
    requests = tick_once(NOW, schedules, run_queue)
    ends = drain_queue(run_queue)
    assert [(end["run_id"], end["schedule_id"], end["status"]) for end in ends] == [
        (request["run_id"], request["schedule_id"], "success") for request in requests
    ]
    assert [(tmp_path / f"{name}.txt").read_text() for name in ("a", "b")] == ["a\n", "b\n"]
    assert sorted(names(last_runs())) == ["run_finished"] * 2 + ["run_started"] * 2 + ["schedule_enqueued"] * 2


def test_drain_queue_respects_max_parallel(project: Project, run_queue: Any) -> None:
    tick_once(NOW, load_schedules(project(**dict.fromkeys("abcde", "sleep 0.2"))), run_queue)
    assert [end["status"] for end in drain_queue(run_queue, max_parallel=2)] == ["success"] * 5
    running, most = 0, 0
    for event in last_runs(100):
        running += {"run_started": 1, "run_finished": -1}.get(str(event["event"]), 0)
        most = max(most, running)
    assert (running, most) == (0, 2)


def test_drain_queue_handles_failures(project: Project, run_queue: Any) -> None:
    schedules = load_schedules(project(bad="exit 3", good="true", killed="kill -9 $$"))
    tick_once(NOW, schedules, run_queue)
    ends = {end["schedule_id"]: end["status"] for end in drain_queue(run_queue)}
    assert ends == {"bad": "failed", "good": "success", "killed": "failed"}


def test_drain_queue_clears_queue(project: Project, run_queue: Any) -> None:
    tick_once(NOW, load_schedules(project(a="true", b="true")), run_queue)
    assert len(drain_queue(run_queue)) == 2
    assert (run_queue.empty(), drain_queue(run_queue)) == (True, [])
