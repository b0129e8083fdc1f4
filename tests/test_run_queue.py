"""The run queue: which waiting run is next, as the log goes on."""

from __future__ import annotations

import queue
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.history import History, epoch
from scheduler.run_queue import RunQueue
from workers.events import Event

SOON, LATER = "2026-11-23T12:00:00Z", "2026-11-23T12:05:00Z"


def request(run_id: str, overlap: str = "skip", **fields: Any) -> Event:
    schedule_id = run_id.split(".")[0]
    event = {"event": "schedule_enqueued", "run_id": run_id, "schedule_id": schedule_id, "overlap": overlap}
    return {**event, "attempt": 1, "dag": "d.yaml", **fields}


def ended(run_id: str, **fields: Any) -> Event:
    return {"event": "run_finished", "run_id": run_id, "schedule_id": run_id.split(".")[0], "attempt": 1, **fields}


def begun(run_id: str, **fields: Any) -> Event:
    event = {"event": "run_started", "run_id": run_id, "schedule_id": run_id.split(".")[0], "attempt": 1}
    return {**event, "timestamp": SOON, "pid": 1, **fields}


def filled(*events: Event) -> RunQueue:
    run_queue = RunQueue()
    for event in events:
        run_queue.apply(event)
    return run_queue


def taken(run_queue: RunQueue) -> list[str]:
    names = []
    while not run_queue.empty():
        names.append(str(run_queue.get_nowait()["run_id"]))
    return names


def test_requests_come_out_in_the_order_they_were_put() -> None:
    run_queue = filled(request("a.1"), request("b.1"), request("a.2"))
    assert (run_queue.qsize(), taken(run_queue), run_queue.qsize()) == (3, ["a.1", "b.1", "a.2"], 0)


def test_an_empty_queue_says_so_as_the_standard_one_does() -> None:
    run_queue = RunQueue()
    assert run_queue.empty()
    with pytest.raises(queue.Empty):
        run_queue.get_nowait()


def test_what_is_put_twice_is_there_once() -> None:
    run_queue = filled(request("a.1"), request("a.1"), request("a.2", "queue"), request("a.2", "queue"))
    assert run_queue.qsize() == 2


def test_what_is_put_back_is_next() -> None:
    run_queue = filled(request("a.1"), request("b.1"))
    run_queue.put_back(run_queue.get_nowait())
    assert taken(run_queue) == ["a.1", "b.1"]


def test_a_run_that_another_process_started_or_ended_is_gone() -> None:
    run_queue = filled(request("a.1"), request("b.1"), begun("a.1"), ended("b.1"))
    assert (run_queue.empty(), run_queue.qsize()) == (True, 0)


def test_overlap_queue_holds_a_run_until_the_one_before_it_has_ended() -> None:
    run_queue = filled(
        request("a.1", "queue"), request("a.2", "queue"), request("a.3", "queue"), request("b.1", "queue")
    )
    assert taken(run_queue) == ["a.1", "b.1"]
    assert run_queue.qsize() == 2
    run_queue.apply(begun("a.1"))
    assert run_queue.empty()
    run_queue.apply(ended("a.1"))
    assert taken(run_queue) == ["a.2"]
    run_queue.apply(ended("a.2"))
    assert taken(run_queue) == ["a.3"]


def test_overlap_queue_waits_for_runs_of_another_policy_too() -> None:
    run_queue = filled(request("a.1", "allow"), begun("a.1"), request("a.2", "allow"), request("a.3", "queue"))
    assert taken(run_queue) == ["a.2"]
    run_queue.apply(ended("a.1"))
    assert taken(run_queue) == []
    run_queue.apply(ended("a.2"))
    assert taken(run_queue) == ["a.3"]


def test_overlap_allow_holds_nothing() -> None:
    assert taken(filled(request("a.1", "allow"), request("a.2", "allow"))) == ["a.1", "a.2"]


def test_a_held_run_that_is_cancelled_does_not_stop_those_behind_it() -> None:
    run_queue = filled(request("a.1", "queue"), request("a.2", "queue"), request("a.3", "queue"), ended("a.2"))
    assert taken(run_queue) == ["a.1"]
    run_queue.apply(ended("a.1"))
    assert taken(run_queue) == ["a.3"]


def test_a_retry_keeps_its_turn_and_waits_for_its_time() -> None:
    run_queue = filled(request("a.1", "queue"), request("a.2", "queue"), begun("a.1"))
    run_queue.apply(ended("a.1", next_attempt=2))
    run_queue.put_later(request("a.1", "queue", attempt=2), LATER)
    assert (run_queue.empty(), run_queue.qsize(), run_queue.next_wake()) == (True, 2, epoch(LATER))
    run_queue.wake(epoch(LATER) - 1)
    assert run_queue.empty()
    run_queue.wake(epoch(LATER))
    assert run_queue.get_nowait()["attempt"] == 2
    assert (run_queue.empty(), run_queue.next_wake()) == (True, None)
    run_queue.apply(ended("a.1", attempt=2))
    assert taken(run_queue) == ["a.2"]


def test_a_retry_without_a_time_may_start_at_once() -> None:
    run_queue = filled(request("a.1", "queue"), begun("a.1"), ended("a.1", next_attempt=2), request("a.2", "queue"))
    run_queue.put_later(request("a.1", "queue", attempt=2), None)
    assert taken(run_queue) == ["a.1"]


def test_a_retry_that_is_cancelled_never_wakes_and_frees_its_turn() -> None:
    run_queue = filled(request("a.1", "queue"), begun("a.1"), ended("a.1", next_attempt=2), request("a.2", "queue"))
    run_queue.put_later(request("a.1", "queue", attempt=2), LATER)
    run_queue.apply(ended("a.1", attempt=2))
    assert run_queue.next_wake() is None
    run_queue.wake(epoch(LATER))
    assert taken(run_queue) == ["a.2"]


def test_two_retries_of_one_moment_are_both_woken() -> None:
    run_queue = RunQueue()
    for name in ("a.1", "a.1", "b.1"):
        run_queue.put_later(request(name), SOON)
    run_queue.wake(epoch(SOON))
    assert sorted(taken(run_queue)) == ["a.1", "b.1"]


def test_a_restart_refills_the_queue_from_the_history() -> None:
    events = [request("a.1", "queue"), begun("a.1"), request("a.2", "queue"), request("b.1"), request("c.1")]
    events += [begun("c.1"), ended("c.1", next_attempt=2, retry_at=LATER), request("d.1", "queue"), begun("d.1")]
    events += [request("d.2", "queue"), ended("d.1", next_attempt=2, retry_at=LATER)]
    run_queue = RunQueue()
    run_queue.load(History(events).runs.values())
    assert run_queue.qsize() == 5
    assert taken(run_queue) == ["b.1"]
    run_queue.wake(epoch(LATER))
    assert sorted(taken(run_queue)) == ["c.1", "d.1"]
    run_queue.apply(ended("a.1"))
    run_queue.apply(ended("d.1", attempt=2))
    assert taken(run_queue) == ["a.2", "d.2"]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "start", "end", "retry", "get", "back", "wake"]), st.integers(0, 5)),
        max_size=40,
    )
)
def test_no_run_is_lost_and_two_of_overlap_queue_never_run_at_once(steps: list[tuple[str, int]]) -> None:
    run_queue, waiting, out, running = RunQueue(), set[str](), dict[str, Event](), set[str]()
    asked, moment = 0, epoch(SOON)
    for kind, number in steps:
        if kind == "put":
            asked += 1
            run_queue.apply(request(f"s.{asked}", "queue"))
            waiting.add(f"s.{asked}")
        elif kind == "get" and not run_queue.empty():
            item = run_queue.get_nowait()
            out[str(item["run_id"])] = item
            assert len(out) + len(running) == 1
        elif kind == "back" and out:
            run_queue.put_back(out.popitem()[1])
        elif kind == "start" and out:
            name, _ = out.popitem()
            waiting.discard(name)
            running.add(name)
            run_queue.apply(begun(name))
        elif kind in ("end", "retry") and running:
            name = running.pop()
            run_queue.apply(ended(name, **({"next_attempt": 2} if kind == "retry" else {})))
            if kind == "retry":
                run_queue.put_later(request(name, "queue", attempt=2), SOON)
                waiting.add(name)
        elif kind == "end" and waiting - out.keys():
            name = sorted(waiting - out.keys())[number % len(waiting - out.keys())]
            waiting.discard(name)
            run_queue.apply(ended(name))
        elif kind == "wake":
            run_queue.wake(moment)
        assert run_queue.qsize() == len(waiting - out.keys())
    run_queue.wake(moment)
    # Whatever was done, one may start unless one is on its way.
    assert not run_queue.empty() or not waiting or out or running
