"""Parked runs as a fold: whoever begins with a checkpoint, or with odd lines, goes on as if nothing had been."""

from __future__ import annotations

import json
import queue
from datetime import UTC, datetime, timedelta
from typing import Any

from scheduler.history import History
from scheduler.repeats import rerun, retry
from scheduler.run_queue import RunQueue
from scheduler.run_record import RunRecord
from scheduler.run_timers import has_news, news_events
from workers.events import Event, encode_line, stamp
from workers.ids import child_id

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def told(*events: Event) -> list[Event]:
    """Return the events as a log has them: numbered, a second apart."""
    rows = []
    for number, event in enumerate(events, 1):
        moment = (NOON + timedelta(seconds=number)).isoformat().replace("+00:00", "Z")
        rows.append({**stamp({"timestamp": moment, **event}, number, "host", 1)})
    return rows


def asked(run_id: str, **fields: Any) -> Event:
    return {"event": "run_requested", "run_id": run_id, "attempt": 1, "dag": "dags/d.yaml", "project": ".", **fields}


def started(run_id: str, **fields: Any) -> Event:
    return {"event": "run_started", "run_id": run_id, "attempt": 1, "pid": 7, "boot_id": "b", "starttime": 9, **fields}


def parked(run_id: str, *waits: Event, **fields: Any) -> Event:
    return {"event": "run_parked", "run_id": run_id, "attempt": 1, "waits": list(waits), "tasks": {}, **fields}


def ended(run_id: str, **fields: Any) -> Event:
    return {"event": "run_finished", "run_id": run_id, "attempt": 1, "status": "success", **fields}


def of_run(run_id: str) -> Event:
    return {"task_id": "w", "task_attempt": 1, "kind": "run", "since_s": 1.0, "run": run_id, "status": ["success"]}


def restored(history: History) -> History:
    """Return what a log says that begins with the checkpoint of this history."""
    lines = list(history.checkpoint())
    assert all(encode_line(stamp(line, 1, "host", 1)) for line in lines)
    again = History(json.loads(json.dumps(lines)))
    assert again.unusable == 0
    return again


def followed(events: list[Event]) -> tuple[History, RunQueue]:
    history, run_queue = History(), RunQueue()
    for event in events:
        history.apply(event)
        run_queue.follow(event, history.runs.get(str(event.get("run_id"))))
    return history, run_queue


def taken(run_queue: RunQueue) -> list[str]:
    names = []
    while not run_queue.empty():
        names.append(str(run_queue.get_nowait()["run_id"]))
    return names


# -- lines of another hand ------------------------------------------------------------------------------------------


def test_a_run_that_is_parked_no_longer_is_never_resumed_whatever_a_line_of_another_hand_has_made_of_it() -> None:
    due = [asked("a"), asked("b"), started("a"), parked("a", of_run("b")), ended("b")]
    assert [event["run_id"] for event in news_events(History(told(*due)), (), None)] == ["a"]
    for odd in (ended("a", status="failed", next_attempt=2), started("a"), ended("a")):
        history = History(told(*due, odd))
        assert not has_news(history), odd
        assert list(news_events(history, (), None)) == []


def test_a_resume_that_nobody_needs_lets_no_run_go_before_its_turn() -> None:
    first, second = (asked(f"s.{number}", schedule_id="s", overlap="queue") for number in (1, 2))
    resumed = {"event": "run_resumed", "run_id": "s.2", "attempt": 1, "reason": "news"}
    _, run_queue = followed(told(first, second, resumed))
    assert taken(run_queue) == ["s.1"]


def test_runs_that_call_each_other_parent_are_orphans_and_no_endless_tale() -> None:
    parents = {"a": "b", "b": "a", "c": "c"}
    runs = [asked(name, parent={"run_id": of, "attempt": 2, "task_id": "t"}) for name, of in parents.items()]
    history = History(told(*runs))
    assert sorted(run.run_id for run in history.children.orphans(history.runs)) == ["a", "b", "c"]
    assert sorted(run.run_id for run in history.children.of("a")) == ["a", "b"]


# -- checkpoints ----------------------------------------------------------------------------------------------------


def test_a_parked_run_whose_questions_fill_two_lines_fits_in_a_checkpoint_and_comes_back_whole() -> None:
    text = "x" * 30_000
    waits = [{"task_id": name, "task_attempt": 1, "kind": "approval", "since_s": 1.0, "message": text} for name in "pq"]
    questions = [
        {"event": "approval_requested", "run_id": "a", "attempt": 1, "task_id": name, "message": text} for name in "pq"
    ]
    history = History(told(asked("a", schedule_id="s", params={"x": text}), asked("b"), started("a"), *questions))
    history.apply(told(parked("a", *waits, of_run("b")))[0])
    again = restored(history)
    assert again.runs == history.runs
    again.apply(told(ended("b"))[0])
    assert [run.run_id for run in again.parked.due()] == ["a"]


def test_a_child_whose_request_fills_a_line_is_known_as_a_child_after_a_checkpoint() -> None:
    child = asked("a.t", params={"x": "x" * 40_000}, parent={"run_id": "a", "attempt": 1, "task_id": "t"})
    history = restored(History(told(asked("a"), started("a"), child)))
    assert not has_news(history)
    history.apply(told(ended("a", status="crashed"))[0])
    assert [event["run_id"] for event in news_events(history, (), None)] == ["a.t"]


def test_a_resumed_run_waits_after_a_restart_as_it_did_before() -> None:
    of_s = {"schedule_id": "s", "minute": "2026-11-23T12:00:00Z"}
    events = told(
        asked("s.1", overlap="queue", **of_s),
        started("s.1", **of_s),
        parked("s.1", of_run("other"), **of_s),
        asked("s.2", overlap="allow", **of_s),
        started("s.2", **of_s),
        asked("b"),
        ended("other"),
        {"event": "run_resumed", "run_id": "s.1", "attempt": 1, "reason": "news"},
        asked("c"),
    )
    history, before = followed(events)
    after = RunQueue()
    after.load(restored(history).runs.values())
    # Its turn is its own, though another of its schedule runs, and it counts as waiting since it was asked for.
    assert taken(before) == taken(after) == ["s.1", "b", "c"]


def test_a_restart_hands_out_no_run_twice() -> None:
    history, _ = followed(told(asked("a"), started("a"), parked("a", of_run("b"))))
    run_queue = RunQueue()
    run_queue.load(restored(history).runs.values())
    assert run_queue.empty()
    try:
        run_queue.get_nowait()
    except queue.Empty:
        return
    raise AssertionError("a parked run was handed out")


# -- repeats --------------------------------------------------------------------------------------------------------


def test_a_repeat_of_the_run_of_a_dag_task_is_nobodys_child() -> None:
    parent = {"run_id": "a", "attempt": 1, "task_id": "t"}
    record = RunRecord("a.t", told(asked("a.t", parent=parent), started("a.t"), ended("a.t", status="failed")))
    for request in (retry(record, (), "a@b"), rerun(record, {}, NOON, "a@b")):
        assert "parent" not in request
        history = History(told(asked("a"), *record.events, ended("a"), request))
        assert not has_news(history)


def test_the_run_of_a_task_is_never_called_as_the_one_that_tells_of_a_deadline() -> None:
    assert [child_id("s.1", "load", *numbers) for numbers in ((1, 1), (2, 1))] == ["s.1.load", "s.1.load.2-1"]
    assert child_id("s.1", "deadline", 1, 1) != "s.1.deadline"


def test_no_two_tasks_and_no_two_of_their_attempts_ask_for_a_run_of_one_name() -> None:
    tasks = ["load", "load-2", "load[2]", "load.2", "a", "a.b", "b", "1-2", "a.1-2", "2", "load[21]", "load.2.1-2"]
    direct = [("s.1", task, attempt, tried) for task in tasks for attempt, tried in ((1, 1), (1, 2), (2, 1))]
    # A run of a run has tasks of these names, too.
    below = [(child_id(*each), task, 1, 1) for each in direct for task in tasks]
    names = [child_id(*each) for each in (*direct, *below)]
    assert len(set(names)) == len(names)
