"""The public face of the state log."""

from __future__ import annotations

import json
import logging
import multiprocessing
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import log_processes
import pytest

from scheduler.history import History
from scheduler.state_store import StateStore, index_by, last_events, last_runs, record_event
from workers.event_log import EventLog
from workers.events import InvalidEvent

REQUEST = {"event": "run_requested", "run_id": "r.1", "attempt": 1, "dag": "dags/x.yaml"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "down" / "state.jsonl"


def test_record_and_read_events(path: Path) -> None:
    recorded = record_event({"event": "run_started", "run_id": "r.1"}, path)
    record_event({"event": "run_finished", "run_id": "r.1", "status": "success"}, path)
    events = last_runs(path=path)
    assert [event["event"] for event in events] == ["run_started", "run_finished"]
    assert events[0] == recorded
    assert [json.loads(line) for line in path.read_text("ascii").splitlines()] == events


def test_last_runs_respects_limit(path: Path) -> None:
    for number in range(30):
        record_event({"event": "tested", "number": number}, path)
    assert [event["number"] for event in last_runs(5, path)] == [25, 26, 27, 28, 29]
    assert len(last_runs(path=path)) == 20
    assert len(last_runs(100, path)) == 30
    assert last_runs(0, path) == []
    assert last_runs(-1, path) == []


def test_empty_file_returns_empty_list(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.touch()
    assert last_runs(path=path) == []


def test_missing_file_returns_empty_list(path: Path) -> None:
    assert last_runs(path=path) == []
    assert not path.parent.exists()


def test_corrupted_lines_skipped(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record_event({"event": "first"}, path)
    with path.open("ab") as file:
        file.write(b'not json\n{"half":\n[1, 2]\n\n\0\0\n')
    record_event({"event": "second"}, path)
    with caplog.at_level(logging.WARNING):
        assert [event["event"] for event in last_runs(path=path)] == ["first", "second"]
    assert "skipped 4 corrupt line(s)" in caplog.text


def test_auto_adds_timestamp(path: Path) -> None:
    stamped = record_event({"event": "tested"}, path)["timestamp"]
    assert stamped.endswith("Z")
    assert datetime.fromisoformat(stamped).utcoffset() is not None
    own = record_event({"event": "tested", "timestamp": "2020-01-01T00:00:00Z"}, path)
    assert own["timestamp"] == last_runs(1, path)[0]["timestamp"] == "2020-01-01T00:00:00Z"


def test_index_by_groups_events(path: Path) -> None:
    for run_id, name in (("a", "started"), ("b", "started"), ("a", "finished")):
        record_event({"event": name, "run_id": run_id}, path)
    record_event({"event": "supervisor_started"}, path)
    groups = index_by("run_id", path=path)
    assert {key: [event["event"] for event in events] for key, events in groups.items()} == {
        "a": ["started", "finished"],
        "b": ["started"],
    }


def test_index_by_respects_limit(path: Path) -> None:
    for number in range(150):
        record_event({"event": "tested", "parity": number % 2}, path)
    assert sum(map(len, index_by("parity", path=path).values())) == 100
    assert {key: len(events) for key, events in index_by("parity", 5, path).items()} == {1: 3, 0: 2}


def test_index_by_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.touch()
    assert index_by("run_id", path=path) == {}
    assert index_by("run_id", path=tmp_path / "missing.jsonl") == {}


def test_index_by_takes_values_that_cannot_be_keys(path: Path) -> None:
    record_event({"event": "tested", "key": {"minute": "m", "schedule_id": "s"}}, path)
    record_event({"event": "tested", "key": [1]}, path)
    assert list(index_by("key", path=path)) == ['{"minute": "m", "schedule_id": "s"}', "[1]"]


def test_concurrent_writes_append_correctly(path: Path) -> None:
    def write(name: str) -> None:
        for number in range(25):
            record_event({"event": "tested", "by": name, "number": number}, path)

    processes = [log_processes.start(log_processes.append_many, str(path), f"p{n}", 300) for n in range(3)]
    threads = [threading.Thread(target=write, args=(f"t{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log_processes.finish(*processes)
    events = last_runs(10_000, path)
    assert [event["seq"] for event in events] == list(range(1, 3 * 300 + 3 * 25 + 1))
    for name, count in [("p0", 300), ("p1", 300), ("p2", 300), ("t0", 25), ("t1", 25), ("t2", 25)]:
        assert [event["number"] for event in events if event["by"] == name] == list(range(count))


def test_the_path_comes_from_the_environment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_STORE_PATH", str(path))
    record_event({"event": "tested"})
    assert [event["event"] for event in last_runs()] == ["tested"]
    assert list(index_by("event")) == ["tested"]
    assert path.exists()


def test_an_event_that_is_no_json_is_refused_and_the_log_stays_clean(path: Path) -> None:
    with pytest.raises(InvalidEvent, match="event `tested` cannot be recorded"):
        record_event({"event": "tested", "value": multiprocessing.get_context}, path)
    assert last_runs(path=path) == []


def test_events_are_read_across_rotated_segments(path: Path) -> None:
    record_event({"event": "old"}, path)
    log = EventLog(path)
    log.rotate(0, lambda _new: [])
    record_event({"event": "new"}, path)
    found = [event["event"] for event in last_events(path)]
    assert (found[0], found[-1]) == ("new", "old")
    assert [event["event"] for event in last_runs(path=path) if event["event"] != "segment_started"] == ["old", "new"]


# -- the store that decides ------------------------------------------------------------------------------------------


def test_a_commit_decides_on_what_others_wrote_a_moment_ago(path: Path) -> None:
    store = StateStore(EventLog(path, fsync="off"))
    record_event(REQUEST, path)

    def decide(history: History) -> Sequence[Mapping[str, Any]]:
        return [{"event": "tested"}] if history.is_waiting("r.1", 1) else []

    assert [event["event"] for event in store.commit(decide)] == ["tested"]
    store.close()


def test_a_commit_is_in_the_history_once(path: Path) -> None:
    store = StateStore(EventLog(path, fsync="off"))
    seen: list[str] = []
    store.follow(lambda event: seen.append(event["event"]))
    store.commit(lambda _history: [REQUEST, {"event": "tested"}])
    store.refresh()
    assert seen == ["run_requested", "tested"]
    assert list(store.history.runs) == ["r.1"]
    store.close()


def test_a_rotation_keeps_the_open_runs_for_whoever_opens_the_log_next(path: Path) -> None:
    store = StateStore(EventLog(path, fsync="off"))
    store.commit(lambda _history: [REQUEST, *[{"event": "tested"}] * 5])
    assert store.rotate(1)
    store.refresh()
    assert not store.rotate(1)
    store.close()
    fresh = StateStore(EventLog(path, fsync="off"))
    fresh.refresh()
    assert fresh.history.is_waiting("r.1", 1)
    fresh.close()


def test_what_a_rotation_repeats_is_not_among_the_last_events(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    store = StateStore(EventLog(log))
    store.commit(lambda _: [{"event": "run_requested", "run_id": f"r{n}", "dag": "d"} for n in range(5)])
    assert store.rotate(1)
    store.commit(lambda _: [{"event": "run_requested", "run_id": "r5", "dag": "d"}])
    store.close()
    assert [event["run_id"] for event in last_runs(4, log)] == ["r2", "r3", "r4", "r5"]
    assert list(index_by("event", 100, log)) == ["run_requested"]
