"""Recovery: what is lost with a process, how that is told, and what is left of its tasks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from service import WaitFor

from scheduler.history import History, Run
from scheduler.recovery import exit_text, lost_finish, lost_runs, open_tasks, sweep_runs
from workers.event_log import EventLog
from workers.events import Event
from workers.process import Identity, identity, is_alive
from workers.run_request import marker_for

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def open_run(process: Identity | None, **fields: Any) -> Run:
    asked = {"event": "schedule_enqueued", "run_id": "s.1", "schedule_id": "s", "minute": "2026-11-23T12:00:00Z"}
    events: list[Event] = [{**asked, "attempt": 1, "dag": "d.yaml", **fields}]
    if process:
        facts = {"pid": process.pid, "boot_id": process.boot_id, "starttime": process.starttime}
        events.append(
            {"event": "run_started", "run_id": "s.1", "attempt": 1, "timestamp": "2026-11-23T12:00:01Z", **facts}
        )
    return History(events).runs["s.1"]


def test_a_run_is_lost_when_its_process_is_gone_and_not_before() -> None:
    me = identity(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", ""])
    gone = identity(child.pid)
    child.wait()
    runs = [open_run(me), open_run(gone), open_run(None)]
    assert [run.process for run in lost_runs(runs, is_alive)] == [gone]


def test_a_pid_that_is_used_again_is_another_process() -> None:
    me = identity(os.getpid())
    runs = [open_run(me._replace(starttime=me.starttime - 1)), open_run(me._replace(boot_id="another boot"))]
    assert lost_runs(runs, is_alive) == runs


@pytest.mark.parametrize(
    ("status", "fields", "again"),
    [
        ("crashed", {}, False),
        ("crashed", {"retries": {"max": 3}}, False),
        ("crashed", {"retry_on_crash": True}, True),
        ("cancelled", {"retry_on_crash": True, "retries": {"max": 3}}, False),
    ],
)
def test_a_lost_run_is_made_again_only_where_its_request_allows_it(
    status: str, fields: dict[str, Any], again: bool
) -> None:
    event = lost_finish(open_run(identity(os.getpid()), **fields), status, "gone", NOW)
    assert (event["event"], event["status"], event["reason"]) == ("run_finished", status, "gone")
    assert (event["run_id"], event["schedule_id"], event["minute"], event["attempt"]) == (
        "s.1",
        "s",
        "2026-11-23T12:00:00Z",
        1,
    )
    assert event.get("next_attempt") == (2 if again else None)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (-signal.SIGKILL, "worker 5 was killed by SIGKILL"),
        (-signal.SIGRTMIN - 1, f"worker 5 was killed by signal {signal.SIGRTMIN + 1}"),
        (3, "worker 5 ended with exit code 3"),
        (0, "worker 5 ended without a word"),
        (None, "worker 5 ended without a word"),
    ],
)
def test_the_end_of_a_worker_is_told_in_words(code: int | None, text: str) -> None:
    assert exit_text(5, code) == text


def test_a_sweep_kills_what_carries_the_marker_of_the_run_and_nothing_else(tmp_path: Path, wait_for: WaitFor) -> None:
    run = open_run(identity(os.getpid()))
    log, task_log = tmp_path / "state.jsonl", tmp_path / "tasks.jsonl"
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    mine = subprocess.Popen(
        sleeper, env={**os.environ, "TICKPOOL_RUN": marker_for(log, "s.1", 1)}, start_new_session=True
    )
    other = subprocess.Popen(sleeper, env={**os.environ, "TICKPOOL_RUN": marker_for(log, "s.1", 2)})
    try:
        wait_for(lambda: b"TICKPOOL_RUN" in Path(f"/proc/{mine.pid}/environ").read_bytes())
        assert sweep_runs(log, task_log, [run]) == 1
        # The sweep may have reaped it, and with it its exit code.
        wait_for(lambda: mine.poll() is not None, what="the end of the process")
        assert other.poll() is None
    finally:
        for process in (mine, other):
            process.kill()
            process.wait()


def test_open_tasks_are_those_of_the_run_without_an_end(tmp_path: Path) -> None:
    run = open_run(identity(os.getpid()))
    log = EventLog(tmp_path / "tasks.jsonl", fsync="off")
    fields = {"run_id": "s.1", "attempt": 1, "task_attempt": 1, "starttime": 40, "timestamp": "2026-11-23T12:00:02Z"}
    log.append(
        {
            **fields,
            "event": "task_started",
            "task_id": "before",
            "timestamp": "2026-11-23T11:00:00Z",
            "run_id": "r",
            "pid": 1,
        }
    )
    log.append({**fields, "event": "task_started", "task_id": "a", "pid": 10})
    log.append({**fields, "event": "task_started", "task_id": "b", "pid": 11})
    log.append({**fields, "event": "task_started", "task_id": "c", "pid": 12, "run_id": "other"})
    log.append({**fields, "event": "task_finished", "task_id": "a"})
    log.close()
    assert open_tasks(tmp_path / "tasks.jsonl", [run]) == {(11, 40)}
    assert open_tasks(tmp_path / "tasks.jsonl", []) == set()
