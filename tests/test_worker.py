"""One worker's work on one request: the claim, the run, the end on record."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from workers.lock import Lock, LockTimeout
from workers.run_context import Stop
from workers.run_request import marker_for, next_attempt
from workers.segments import LogReader, Position
from workers.settings import Settings
from workers.worker import Executor

START = Position(1, 0)
NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        state_path=str(tmp_path / "state.jsonl"),
        events_path=str(tmp_path / "events.jsonl"),
        run_logs_dir=str(tmp_path / "runs"),
        lock_timeout_s=0.05,
    )


@pytest.fixture
def stop() -> Any:
    stop = Stop()
    yield stop
    stop.close()


def _request(root: Path, run: str = "true", **fields: Any) -> dict[str, Any]:
    (root / "d.yaml").write_text(json.dumps({"id": "d", "tasks": [{"id": "t", "run": run}]}), "ascii")
    return {"run_id": "r1", "attempt": 1, "dag": "d.yaml", "project": str(root), **fields}


def _events(settings: Settings) -> list[dict[str, Any]]:
    reader = LogReader(Path(settings.state_path))
    events = reader.read()
    reader.close()
    return events


def _story(settings: Settings) -> list[str]:
    return [event["event"] for event in _events(settings)]


def test_a_run_has_its_start_and_its_end_on_record(settings: Settings, stop: Stop, tmp_path: Path) -> None:
    request = _request(tmp_path, schedule_id="s", minute="2026-11-23T09:00:00Z")
    result = Executor(settings).execute(request, stop, START)
    started, finished = _events(settings)
    of_run = {"run_id": "r1", "schedule_id": "s", "minute": "2026-11-23T09:00:00Z", "attempt": 1}
    assert of_run.items() <= started.items()
    assert of_run.items() <= finished.items()
    assert (started["pid"], finished["status"], finished["tasks"]) == (os.getpid(), "success", {"success": 1})
    assert (result.status, result.unrecorded) == ("success", None)
    assert {"starttime", "boot_id"} <= started.keys()


def test_an_attempt_is_claimed_once(settings: Settings, stop: Stop, tmp_path: Path) -> None:
    request = _request(tmp_path, "echo x >> effects")
    statuses = [Executor(settings).execute(request, stop, START).status for _ in range(3)]
    assert statuses == ["success", "refused", "refused"]
    assert (tmp_path / "effects").read_text("ascii") == "x\n"
    assert _story(settings) == ["run_started", "run_finished"]


def test_an_earlier_attempt_is_refused_once_a_later_one_was_claimed(
    settings: Settings, stop: Stop, tmp_path: Path
) -> None:
    assert Executor(settings).execute(_request(tmp_path, attempt=2), stop, START).status == "success"
    assert Executor(settings).execute(_request(tmp_path), stop, START).status == "refused"


def test_what_was_handed_out_before_another_service_led_is_left_to_it(
    settings: Settings, stop: Stop, tmp_path: Path
) -> None:
    log = settings.state_log()
    log.append({"event": "supervisor_started", "starttime": 1, "boot_id": "b"})
    reader = LogReader(Path(settings.state_path))
    reader.read()
    assert Executor(settings).execute(_request(tmp_path), stop, START).status == "refused"
    assert Executor(settings).execute(_request(tmp_path), stop, reader.position).status == "success"
    # Whoever makes a run by itself needs no leader.
    by_hand = {**_request(tmp_path), "run_id": "r2", "event": "run_requested"}
    assert Executor(settings).execute(by_hand, stop, ask_first=True).status == "success"
    reader.close()
    log.close()


def test_a_request_and_its_claim_can_be_one_append(settings: Settings, stop: Stop, tmp_path: Path) -> None:
    request = _request(tmp_path, event="run_requested")
    Executor(settings).execute(request, stop, ask_first=True)
    assert _story(settings) == ["run_requested", "run_started", "run_finished"]


def test_a_worker_that_was_told_to_stop_claims_nothing_more(settings: Settings, stop: Stop, tmp_path: Path) -> None:
    stop.request("the worker was told to stop")
    result = Executor(settings).execute(_request(tmp_path), stop, START)
    assert (result.status, result.reason) == ("unclaimed", "the worker was told to stop")
    assert _story(settings) == []


def test_a_run_that_cannot_be_claimed_has_no_effect(settings: Settings, stop: Stop, tmp_path: Path) -> None:
    lock = Lock(Path(settings.state_path + ".lock"))
    lock.acquire(1)
    try:
        with pytest.raises(LockTimeout):
            Executor(settings).execute(_request(tmp_path, "touch effect"), stop, START)
    finally:
        lock.close()
    assert not (tmp_path / "effect").exists()


def test_an_end_that_the_log_will_not_take_is_handed_to_the_caller(
    settings: Settings, stop: Stop, tmp_path: Path
) -> None:
    lock = Lock(Path(settings.state_path + ".lock"))
    executor = Executor(settings, on_task_event=lambda event: lock.acquire(1) if "status" in event else None)
    try:
        result = executor.execute(_request(tmp_path), stop, START)
    finally:
        lock.close()
    assert result.status == "success"
    assert result.unrecorded is not None
    assert _story(settings) == ["run_started"]
    assert executor.record_end(result.unrecorded)
    assert _story(settings) == ["run_started", "run_finished"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"dag": None}, "its request names no DAG: `dag` is None"),
        ({"dag": "absent.yaml"}, "absent.yaml: cannot be read: No such file or directory"),
        ({"params": {"x": 1}}, "has no param `x`"),
        ({"run_id": "../x"}, "run_id '../x' cannot be used; "),
    ],
)
def test_a_request_that_cannot_be_run_fails_with_the_reason(
    settings: Settings, stop: Stop, tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    result = Executor(settings).execute(_request(tmp_path) | fields, stop, START)
    assert result.status == "failed"
    assert reason in str(result.reason)
    assert _story(settings) == ["run_started", "run_finished"]


def test_a_reason_without_end_is_cut(settings: Settings, stop: Stop, tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text("def main():\n    raise ValueError('x' * 100_000)\n", "ascii")
    request = _request(tmp_path)
    (tmp_path / "d.yaml").write_text('{"id": "d", "tasks": [{"id": "t", "call": "long:main"}]}', "ascii")
    result = Executor(settings).execute(request, stop, START)
    assert result.unrecorded is None
    assert len(str(_events(settings)[-1]["reason"])) <= 4000


def test_a_changed_dag_is_read_again(settings: Settings, stop: Stop, tmp_path: Path) -> None:
    executor = Executor(settings)
    statuses = [
        executor.execute(_request(tmp_path, run, run_id=run_id), stop, START).status
        for run_id, run in (("a", "true"), ("b", "true"), ("c", "false"), ("d", "true"))
    ]
    assert statuses == ["success", "success", "failed", "success"]


def test_a_task_log_that_cannot_be_written_loses_no_run(settings: Settings, stop: Stop, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").mkdir()
    assert Executor(settings).execute(_request(tmp_path), stop, START).status == "success"
    assert _story(settings) == ["run_started", "run_finished"]


def test_a_failed_run_is_followed_by_the_attempts_its_request_allows(
    settings: Settings, stop: Stop, tmp_path: Path
) -> None:
    request = _request(tmp_path, "false", retries={"max": 1, "delay_s": 60})
    executor = Executor(settings)
    executor.execute(request, stop, START)
    executor.execute({**request, "attempt": 2}, stop, START)
    first, second = (event for event in _events(settings) if event["event"] == "run_finished")
    assert first["next_attempt"] == 2
    wait = datetime.fromisoformat(first["retry_at"]) - datetime.fromisoformat(first["timestamp"])
    assert 58 <= wait.total_seconds() <= 61
    assert "next_attempt" not in second


@pytest.mark.parametrize(
    ("request_fields", "status", "attempt"),
    [
        ({"retries": {"max": 2}}, "failed", 2),
        ({"retries": {"max": 2}, "attempt": 2}, "timeout", 3),
        ({"retries": {"max": 2}, "attempt": 3}, "failed", None),
        ({"retries": {"max": 2}}, "success", None),
        ({"retries": {"max": 2}}, "cancelled", None),
        ({"retries": {"max": 2}}, "crashed", None),
        ({"retry_on_crash": True}, "crashed", 2),
        ({"retry_on_crash": True, "attempt": 2}, "crashed", None),
        ({"retry_on_crash": True, "retries": {"max": 3}, "attempt": 3}, "crashed", 4),
        ({"retry_on_crash": True}, "failed", None),
        ({"retries": 3}, "failed", None),
        ({"retries": {"max": "two"}}, "failed", None),
        ({"retries": {"max": 2, "delay_s": 1e300}}, "failed", None),
        ({"retries": {"max": 2, "backoff": float("nan"), "delay_s": 1}, "attempt": 2}, "failed", None),
    ],
)
def test_the_next_attempt_is_what_the_request_allows(
    request_fields: dict[str, Any], status: str, attempt: int | None
) -> None:
    allowed = next_attempt({"run_id": "r", **request_fields}, status, NOW)
    assert allowed.get("next_attempt") == attempt
    assert ("retry_at" in allowed) == (attempt is not None)


def test_the_mark_of_a_run_tells_its_log_its_run_and_its_attempt(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    mark: Callable[..., str] = marker_for
    assert mark(link / "log", "r", 1) == mark(tmp_path / "log", "r", 1)
    others = {mark(tmp_path / "log", "r", 2), mark(tmp_path / "log", "q", 1), mark(tmp_path / "other", "r", 1)}
    assert len(others | {mark(tmp_path / "log", "r", 1)}) == 4
