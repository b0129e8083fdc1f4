"""Parked runs as a fold: whoever begins with a checkpoint, or with odd lines, goes on as if nothing had been."""

from __future__ import annotations

import copy
import json
import os
import queue
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.audit import _Auditor
from scheduler.history import History, Run
from scheduler.repeats import rerun, retry
from scheduler.run_queue import RunQueue
from scheduler.run_record import RunRecord
from scheduler.run_timers import has_news, news_events
from scheduler.state_store import record_event
from workers.events import Event, encode_line, stamp
from workers.ids import child_id
from workers.run_events import Forgotten, ended_before
from workers.run_request import next_attempt

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


def test_a_parked_run_knows_how_its_tasks_ended_though_the_clock_was_set_back_meanwhile(tmp_path: Path) -> None:
    log = tmp_path / "tasks.jsonl"
    end = {"event": "task_finished", "run_id": "a", "attempt": 1, "task_id": "t", "status": "success"}
    record_event({**end, "timestamp": "2026-11-23T11:00:00Z"}, log)
    assert list(ended_before(log, "a", 1, {"success": 1}, (), "2026-11-23T12:00:00Z")) == ["t"]
    with pytest.raises(Forgotten):
        ended_before(log, "a", 1, {"success": 1}, (), "2026-11-25T12:00:00Z")


# -- any life, cut anywhere -----------------------------------------------------------------------------------------


class Life:
    """Runs that live as a log could tell it: each step is what some process might do next, if there is such a thing."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.history, self.queue, self.auditor = History(), RunQueue(), _Auditor(3600.0, keeps_outcomes=False)
        self.asked = 0
        self.now = NOON
        self.tell({"event": "supervisor_started", "starttime": 1, "boot_id": "b", "max_parallel": 100})

    def tell(self, event: Event) -> None:
        """Append an event, a second later."""
        self.now += timedelta(seconds=1)
        moment = self.now.isoformat().replace("+00:00", "Z")
        line = stamp({"timestamp": moment, "pid": 1, **event}, len(self.events) + 1, "host", 1)
        self.events.append(line)
        self.history.apply(line)
        follow(line, self.history, self.queue, self.now)
        self.auditor._apply(line)

    def step(self, act: str, number: int, other: int) -> None:
        """Do one thing, with a run that these numbers choose."""
        runs = self.history.runs
        if act == "ask":
            self.ask(
                {"schedule_id": f"s{number % 2}", "overlap": ["allow", "queue"][number % 2], "priority": other % 3}
            )
        by_status = {"start": "queued", "resume": "parked", "answer": "parked", "cancel": None, "skip": None}
        fit = [run for run in runs.values() if by_status.get(act, "running") in (None, run.status)]
        if not fit or act in ("ask", "skip"):
            return
        run = fit[number % len(fit)]
        fields = {"run_id": run.run_id, "schedule_id": run.schedule_id or None, "attempt": run.attempt}
        if act == "start" and run.cancel is None and self.may_start(run):
            resumed = {"resumed": True} if run.parked is not None else {}
            self.tell(
                {
                    "event": "run_started",
                    **fields,
                    "pid": 100 + len(self.events),
                    "boot_id": "b",
                    "starttime": 9,
                    **resumed,
                }
            )
        elif act == "child":
            parent = {"run_id": run.run_id, "attempt": run.attempt, "task_id": "t"}
            self.ask({"parent": parent})
        elif act == "question":
            self.tell({"event": "approval_requested", **fields, "task_id": f"q{other % 3}", "message": "?"})
        elif act == "answer" and run.questions:
            self.tell({"event": "task_approved", **fields, "task_id": sorted(run.questions)[0], "by": "a@b"})
        elif act == "park" and run.cancel is None:
            self.park(run, fields, other)
        elif act == "resume" and (run.is_due or self.is_time(run)) and run.cancel is None:
            self.tell({"event": "run_resumed", **fields, "reason": "news" if run.is_due else "time"})
        elif act == "cancel":
            self.cancel(run, fields, other)
        elif act in ("end", "fail") and run.cancel is None:
            self.end(run, fields, act)

    def ask(self, more: Event) -> None:
        self.asked += 1
        terms = {"retry_on_crash": True, "retries": {"max": 9, "delay_s": 3}}
        self.tell({**asked(f"r{self.asked}"), **terms, **more})

    def may_start(self, run: Run) -> bool:
        return run.run_id in taken(copy.deepcopy(self.queue))

    def is_time(self, run: Run) -> bool:
        until = (run.parked or {}).get("until")
        return until is not None and datetime.fromisoformat(until) <= self.now

    def park(self, run: Run, fields: Event, other: int) -> None:
        """Park a run on what it asks, on its open children, and on any open run, or until a time."""
        waits = [{"task_id": name, "task_attempt": 1, "kind": "approval", "since_s": 1.0} for name in run.questions]
        waits += [of_run(child.run_id) | {"kind": "dag"} for child in self.history.children.of(run.run_id)]
        open_runs = [name for name in self.history.runs if name != run.run_id]
        waits += [of_run(open_runs[other % len(open_runs)])] if open_runs and other % 2 else []
        until = None if waits and other % 3 else (self.now + timedelta(seconds=3)).isoformat()
        self.tell({"event": "run_parked", **fields, "waits": waits, "until": until, "tasks": {}})

    def cancel(self, run: Run, fields: Event, other: int) -> None:
        if run.cancel is None:
            self.tell({"event": "cancel_requested", "run_id": run.run_id, "by": "a@b"})
        if run.status != "running" or other % 2:
            end = {"event": "run_finished", **fields, "status": "cancelled", "reason": "cancelled: asked for by a@b"}
            self.tell({**end, **({"tasks": {}} if run.status == "running" else {})})

    def end(self, run: Run, fields: Event, act: str) -> None:
        end: Event = {"event": "run_finished", **fields, "status": "success", "tasks": {"success": 1}}
        if act == "fail":
            end |= {"status": "failed", "reason": "task `t` failed", "tasks": {"failed": 1}}
            end |= next_attempt(run.next_request(), "failed", self.now)
        self.tell(end)


def follow(event: Event, history: History, run_queue: RunQueue, now: datetime) -> None:
    # A service wakes when a time has come, so before what comes then.
    run_queue.wake(now.timestamp())
    run_queue.follow(event, history.runs.get(str(event.get("run_id"))))
    run_queue.wake(now.timestamp())


def order_of(run_queue: RunQueue, history: History) -> list[str]:
    """Return in which order the runs go that were never held back for another of their schedule.

    When one that was held back got in line stands in no line of the log.
    """
    names = taken(copy.deepcopy(run_queue))
    return [name for name in names if history.runs[name].request.get("overlap") != "queue"]


ACTS = ["ask", "ask", "start", "start", "start", "child", "question", "answer", "park", "park", "resume", "resume"]
ACTS += ["cancel", "end", "fail", "skip"]
STEPS = st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 11), st.integers(0, 11)), min_size=10, max_size=80)


@settings(max_examples=int(os.environ.get("TICKPOOL_EXAMPLES", "200")), deadline=None)
@given(steps=STEPS, cut=st.integers(0, 80))
def test_whoever_begins_with_a_checkpoint_knows_what_the_others_know(
    steps: list[tuple[str, int, int]], cut: int
) -> None:
    life = Life()
    for act in steps[:cut]:
        life.step(*act)
    history, run_queue = restored(life.history), RunQueue()
    run_queue.load(history.runs.values())
    run_queue.wake(life.now.timestamp())
    rows = [stamp({"timestamp": NOON.isoformat(), **row}, 1, "host", 1) for row in life.history.checkpoint()]
    for row in ({"event": "segment_started", "timestamp": NOON.isoformat()}, *rows):
        life.auditor._apply(json.loads(json.dumps(row)))
    for act in [("skip", 0, 0), *steps[cut:]]:
        place = len(life.events)
        life.step(*act)
        for event in life.events[place:]:
            history.apply(event)
            follow(event, history, run_queue, life.now)
        assert history.runs == life.history.runs
        assert list(history.runs) == list(life.history.runs)
        assert {run.run_id for run in history.parked.due()} == {run.run_id for run in life.history.parked.due()}
        orphans = [{run.run_id for run in each.children.orphans(each.runs)} for each in (history, life.history)]
        assert orphans[0] == orphans[1]
        assert order_of(run_queue, history) == order_of(life.queue, life.history)
        assert set(taken(copy.deepcopy(run_queue))) == set(taken(copy.deepcopy(life.queue)))
        assert run_queue.qsize() == life.queue.qsize()
        assert run_queue._at_work._places == life.queue._at_work._places
        assert run_queue._active == life.queue._active
        book = life.auditor.runs
        assert {name: book._status(name, run) for name, run in book.open.items()} == {
            name: run.status for name, run in history.runs.items()
        }
    assert [str(each) for each in life.auditor.ledger.violations] == []
    assert (history.unusable, life.history.unusable) == (0, 0)
