"""The run queue: which waiting run is next, as the log goes on."""

from __future__ import annotations

import json
import queue
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queue_world import stamp

from scheduler.history import History, epoch
from scheduler.limits import Limits, Tenant
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


# -- priorities ------------------------------------------------------------------------------------------------------


def at(minutes: float) -> str:
    return stamp(60 * minutes)


def test_the_highest_priority_is_first_and_equals_come_in_their_order() -> None:
    run_queue = filled(
        request("a.1", timestamp=at(0)),
        request("b.1", timestamp=at(0), priority=-1),
        request("c.1", timestamp=at(0), priority=5),
        request("d.1", timestamp=at(0), priority=5),
    )
    assert taken(run_queue) == ["c.1", "d.1", "a.1", "b.1"]


def test_a_minute_of_waiting_is_worth_one_step_of_priority() -> None:
    run_queue = filled(
        request("old.1", timestamp=at(0)),
        request("new.1", timestamp=at(4.9), priority=5),
        request("new.2", timestamp=at(5.1), priority=5),
    )
    assert taken(run_queue) == ["new.1", "old.1", "new.2"]


def test_a_clock_that_goes_back_unnoticed_changes_no_order() -> None:
    assert taken(filled(request("a.1", timestamp=at(60)), request("b.1", timestamp=at(0)))) == ["a.1", "b.1"]


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0, 366 * 86400.0])
def test_waiting_is_counted_across_a_clock_that_is_set(jump_s: float) -> None:
    run_queue = filled(request("old.1", timestamp=at(0)))
    run_queue.apply({"event": "clock_jumped", "jump_s": jump_s})
    run_queue.apply(request("first.1", timestamp=stamp(240 + jump_s), priority=5))
    run_queue.apply({"event": "clock_jumped", "jump_s": -jump_s})
    run_queue.apply(request("late.1", timestamp=at(6), priority=5))
    assert taken(run_queue) == ["first.1", "old.1", "late.1"]


@pytest.mark.parametrize("priority", [10**9, -(10**9), True, "5", 2.5, None, [1]])
def test_a_priority_that_no_schedule_may_have_counts_as_none(priority: Any) -> None:
    run_queue = filled(request("a.1"), request("b.1", priority=priority), request("c.1", priority=1))
    assert taken(run_queue) == ["c.1", "a.1", "b.1"]


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(-100, 100)), min_size=1, max_size=30),
    st.integers(0, 10**6),
)
def test_the_order_is_that_of_priority_plus_minutes_waited_whenever_it_is_asked(
    asked: list[tuple[int, int]], later_s: int
) -> None:
    asked.sort(key=lambda each: each[0])
    run_queue = filled(
        *(request(f"r{n}.1", timestamp=stamp(at_s), priority=priority) for n, (at_s, priority) in enumerate(asked))
    )
    now_s = 5000 + later_s
    worth = {f"r{n}.1": (-60 * priority - (now_s - at_s), n) for n, (at_s, priority) in enumerate(asked)}
    assert taken(run_queue) == sorted(worth, key=worth.__getitem__)


# -- pools and tenants -----------------------------------------------------------------------------------------------

ONE = Limits(pools={"one": 1}, tenants={"small": Tenant(max_parallel=2)})


def limited(*events: Event) -> RunQueue:
    run_queue = RunQueue(ONE)
    for event in events:
        run_queue.apply(event)
    return run_queue


def test_a_full_pool_never_blocks_a_run_of_another() -> None:
    run_queue = limited(
        request("a.1", pool="one"), request("b.1", pool="one"), request("c.1"), request("d.1", pool="free")
    )
    assert taken(run_queue) == ["a.1", "c.1", "d.1"]
    assert run_queue.qsize() == 1
    run_queue.apply(begun("a.1"))
    assert run_queue.empty()
    run_queue.apply(ended("a.1"))
    assert taken(run_queue) == ["b.1"]


def test_a_tenant_that_has_all_it_may_have_never_blocks_another() -> None:
    run_queue = limited(*(request(f"s{n}.1", tenant="small") for n in range(4)), request("o.1", tenant="other"))
    assert sorted(taken(run_queue)) == ["o.1", "s0.1", "s1.1"]
    run_queue.apply(ended("s0.1"))
    assert taken(run_queue) == ["s2.1"]


def test_what_is_put_back_or_forgotten_gives_up_its_slot() -> None:
    run_queue = limited(request("a.1", pool="one"), request("b.1", pool="one"))
    run_queue.put_back(run_queue.get_nowait())
    first = run_queue.get_nowait()
    assert (first["run_id"], run_queue.empty()) == ("a.1", True)
    run_queue.forget(first)
    assert taken(run_queue) == ["b.1"]


def test_what_is_put_back_is_next_among_other_tenants_too() -> None:
    run_queue = filled(request("x.1", tenant="x"), request("y.1", tenant="y"), request("x.2", tenant="x"))
    run_queue.put_back(run_queue.get_nowait())
    assert taken(run_queue) == ["x.1", "y.1", "x.2"]


def test_what_is_at_work_is_not_taken_again() -> None:
    run_queue = filled(request("a.1"), request("b.1"))
    run_queue.get_nowait()
    run_queue.apply(begun("b.1"))
    for name in ("a.1", "b.1"):
        run_queue.put(request(name))
    assert (run_queue.empty(), run_queue.qsize()) == (True, 0)


def test_a_run_that_comes_again_has_no_claim_to_its_old_place() -> None:
    run_queue = filled(request("a.1"), request("b.1"))
    run_queue.put_later(request("a.1", attempt=2), SOON)
    run_queue.wake(epoch(SOON))
    assert (taken(run_queue), run_queue.qsize()) == (["b.1", "a.1"], 0)


def test_a_run_between_its_attempts_takes_no_slot() -> None:
    run_queue = limited(request("a.1", pool="one"), request("b.1", pool="one"))
    retried = run_queue.get_nowait()
    run_queue.apply(begun("a.1"))
    run_queue.apply(ended("a.1", next_attempt=2))
    run_queue.put_later({**retried, "attempt": 2}, LATER)
    assert taken(run_queue) == ["b.1"]
    run_queue.wake(epoch(LATER))
    assert run_queue.empty()
    run_queue.apply(ended("b.1"))
    assert run_queue.get_nowait()["attempt"] == 2


def test_a_run_that_a_process_makes_itself_takes_no_slot() -> None:
    asked = {"event": "run_requested", "run_id": "hand.1", "attempt": 1, "pid": 9, "pool": "one"}
    by_hand = limited(asked, begun("hand.1", pid=9), request("a.1", pool="one"))
    by_worker = limited(asked, begun("hand.1", pid=10), request("a.1", pool="one"))
    assert (taken(by_hand), taken(by_worker)) == (["a.1"], [])


def test_smaller_limits_cancel_nothing_and_start_nothing_until_there_is_room() -> None:
    run_queue = filled(*(request(f"r{n}.1", pool="p") for n in range(4)))
    run_queue.apply({"event": "limits_loaded", "pools": {"p": 3}, "tenants": {}})
    assert taken(run_queue) == ["r0.1", "r1.1", "r2.1"]
    run_queue.apply({"event": "limits_loaded", "pools": {"p": 1}, "tenants": {"x": {"of_tomorrow": 1}}})
    for number in range(2):
        run_queue.apply(ended(f"r{number}.1"))
        assert run_queue.empty()
    run_queue.apply(ended("r2.1"))
    assert taken(run_queue) == ["r3.1"]


def test_limits_that_make_no_sense_change_nothing() -> None:
    run_queue = limited(request("a.1", pool="one"), request("b.1", pool="one"))
    for pools in ({"one": 0}, {"one": "2"}, [], 7):
        run_queue.apply({"event": "limits_loaded", "pools": pools, "tenants": {}})
    assert taken(run_queue) == ["a.1"]


# -- what waits for a time or for a turn ------------------------------------------------------------------------------


def test_a_request_is_held_until_its_not_before() -> None:
    run_queue = filled(request("a.1", not_before=LATER), request("b.1"))
    assert taken(run_queue) == ["b.1"]
    assert run_queue.next_wake() == epoch(LATER)
    run_queue.wake(epoch(LATER))
    assert taken(run_queue) == ["a.1"]


def test_a_turn_comes_before_a_not_before() -> None:
    run_queue = filled(request("a.1", "queue"), request("a.2", "queue", not_before=LATER), request("a.3", "queue"))
    assert taken(run_queue) == ["a.1"]
    run_queue.apply(ended("a.1"))
    assert (taken(run_queue), run_queue.next_wake()) == ([], epoch(LATER))
    run_queue.wake(epoch(LATER))
    assert taken(run_queue) == ["a.2"]
    run_queue.apply(ended("a.2"))
    assert taken(run_queue) == ["a.3"]


def test_a_replacement_starts_when_what_it_replaces_has_ended() -> None:
    run_queue = filled(request("a.1", "replace"), begun("a.1"), request("a.2", "replace"), request("a.3", "replace"))
    run_queue.apply(ended("a.2", status="cancelled"))
    assert run_queue.empty()
    run_queue.apply(ended("a.1", status="cancelled"))
    assert taken(run_queue) == ["a.3"]


@pytest.mark.parametrize("where", ["ready", "held", "later", "handed"])
def test_a_cancel_takes_a_run_out_wherever_it_waits(where: str) -> None:
    fields = {"not_before": LATER} if where == "later" else {}
    events = [request("a.0", "queue")] if where == "held" else []
    run_queue = limited(*events, request("a.1", "queue", pool="one", **fields), request("a.2", "queue", pool="one"))
    if where in ("held", "handed"):
        run_queue.get_nowait()
    run_queue.apply(ended("a.1", status="cancelled"))
    if where == "held":
        run_queue.apply(ended("a.0"))
    assert taken(run_queue) == ["a.2"]
    run_queue.wake(epoch(LATER))
    assert (run_queue.qsize(), run_queue.next_wake()) == (0, None)


def test_the_queue_says_what_a_run_waits_for() -> None:
    run_queue = limited(
        *(request(f"p{n}.1", pool="one") for n in range(2)),
        *(request(f"s{n}.1", tenant="small") for n in range(3)),
        request("l.1", not_before=LATER),
        request("q.1", "queue"),
        request("q.2", "queue"),
    )
    taken(run_queue)
    run_queue.apply(request("w.1"))
    assert {name: run_queue.why_waiting(name) for name in ("p0.1", "p1.1", "s2.1", "l.1", "q.2", "w.1")} == {
        "p0.1": "",
        "p1.1": "pool `one` has 1 slot, taken by p0.1",
        "s2.1": "tenant `small` may have 2 run(s) at work, and has s0.1, s1.1",
        "l.1": "it is held until 2026-11-23T12:05:00Z",
        "q.2": "an older run of its schedule is open: q.1",
        "w.1": "it waits for a worker",
    }


# -- whatever happens ------------------------------------------------------------------------------------------------

POOLS, TENANTS = [None, "p", "q"], ["x", "y", "z"]
SOME = Limits(pools={"p": 1, "q": 2}, tenants={"x": Tenant(max_parallel=2, weight=3)})
FEWER = Limits(pools={"p": 1, "q": 1}, tenants={"x": Tenant(max_parallel=1)})


class Played:
    """A queue and a history that follow the same log, and who is at work by the log and by what was handed out."""

    def __init__(self) -> None:
        self.history = History()
        self.queue = RunQueue()
        self.places: dict[str, tuple[str, str | None]] = {}
        self.out: dict[str, Event] = {}
        self.append({"event": "limits_loaded", **SOME.as_event()})

    def append(self, event: Event) -> None:
        event.setdefault("timestamp", SOON)
        self.history.apply(event)
        self.queue.apply(event)
        assert self.history.unusable == 0

    def at_work(self) -> list[str]:
        return [*self.out, *(name for name, run in self.history.runs.items() if run.status == "running")]

    def may_start(self) -> set[str]:
        """Return which runs may start, by the rules alone."""
        limits, at_work = self.history.limits, [self.places[name] for name in self.at_work()]
        found = set()
        for name, run in self.history.runs.items():
            tenant, pool = self.places[name]
            is_held = run.request["overlap"] == "queue" and self.history.open_runs(run.schedule_id)[0] is not run
            most = limits.max_parallel(tenant) or 99
            slots = limits.pools.get(pool or "", 99)
            used, had = sum(p == pool for _, p in at_work), sum(t == tenant for t, _ in at_work)
            if run.status == "queued" and name not in self.out and not is_held and used < slots and had < most:
                found.add(name)
        return found

    def step(self, kind: str, number: int) -> None:
        at_work = sorted(self.history.runs)
        if kind == "ask":
            name = f"s{number % 4}.{len(self.places)}"
            place = self.places[name] = (TENANTS[number % 3], POOLS[number % 7 % 3])
            fields = {"tenant": place[0], "priority": number % 5} | ({"pool": place[1]} if place[1] else {})
            self.append(request(name, "queue" if number % 4 == 3 else "allow", **fields))
        elif kind == "get" and not self.queue.empty():
            item = self.queue.get_nowait()
            self.out[str(item["run_id"])] = item
        elif kind == "back" and self.out:
            self.queue.put_back(self.out.pop(sorted(self.out)[number % len(self.out)]))
        elif kind == "start" and self.out:
            item = self.out.pop(sorted(self.out)[number % len(self.out)])
            self.append({**begun(item["run_id"]), "boot_id": "b", "starttime": 1})
        elif kind == "end" and at_work:
            name = at_work[number % len(at_work)]
            self.out.pop(name, None)
            self.append(ended(name, duration_s=float(number)))
        elif kind == "limits":
            self.append({"event": "limits_loaded", **(SOME if number % 2 else FEWER).as_event()})

    def check(self) -> None:
        """The next run is one that may start, and there is one whenever one may."""
        may = self.may_start()
        assert self.queue.empty() is not bool(may)
        assert self.queue.qsize() == sum(
            r.status == "queued" and n not in self.out for n, r in self.history.runs.items()
        )
        if may:
            item = self.queue.get_nowait()
            assert item["run_id"] in may
            self.queue.put_back(item)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "get", "get", "back", "start", "end", "limits"]), st.integers(0, 99)
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_limits_are_kept_and_no_worker_waits_while_a_run_may_start(steps: list[tuple[str, int]]) -> None:
    played = Played()
    for kind, number in steps:
        played.step(kind, number)
        played.check()


@settings(max_examples=100, deadline=None)
@given(STEPS, STEPS)
def test_a_queue_that_is_loaded_from_a_checkpoint_goes_on_within_the_limits(
    before: list[tuple[str, int]], after: list[tuple[str, int]]
) -> None:
    played = Played()
    for kind, number in before:
        played.step(kind, number)
    # What was handed out by a service that died was never started.
    played.out.clear()
    played.history = History(json.loads(json.dumps(list(played.history.checkpoint()))))
    played.queue = RunQueue(played.history.limits)
    played.queue.load(played.history.runs.values())
    played.check()
    for kind, number in after:
        played.step(kind, number)
        played.check()
    for _ in range(len(played.history.runs) * 3):
        for kind in ("get", "start", "end"):
            played.step(kind, 0)
    assert played.history.runs == {}
    assert played.queue.qsize() == 0
