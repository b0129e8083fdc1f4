"""The fold of the state log: what is open, what is judged, and the checkpoint that stands for both."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.checkpoint import in_lines
from scheduler.history import History, epoch
from scheduler.reload import record_configuration
from scheduler.schedules import Configuration
from scheduler.state_store import StateStore
from workers.event_log import EventLog
from workers.events import MAX_LINE, Event, decode_line, encode_line, iso
from workers.process import Identity
from workers.segments import LogReader

BASE = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def minute(index: int) -> str:
    return iso(BASE + timedelta(minutes=index))


def at(index: int) -> datetime:
    return BASE + timedelta(minutes=index)


def enqueued(index: int = 0, name: str = "s", **fields: Any) -> Event:
    event = {"event": "schedule_enqueued", "schedule_id": name, "minute": minute(index), "run_id": f"{name}.{index}"}
    return {**event, "attempt": 1, "dag": "dags/a.yaml", **fields}


def started(run_id: str, attempt: int = 1, **fields: Any) -> Event:
    event = {"event": "run_started", "run_id": run_id, "schedule_id": run_id.split(".")[0], "attempt": attempt}
    return {**event, "timestamp": minute(0), "pid": 7, "boot_id": "b", "starttime": 9, **fields}


def finished(run_id: str, attempt: int = 1, **fields: Any) -> Event:
    event = {"event": "run_finished", "run_id": run_id, "schedule_id": run_id.split(".")[0], "attempt": attempt}
    return {**event, "status": "success", **fields}


def skipped(index: int, name: str = "s") -> Event:
    return {"event": "schedule_skipped", "schedule_id": name, "minute": minute(index), "reason": "overlap"}


def missed(first: int, last: int, name: str = "s") -> Event:
    return {"event": "schedule_missed", "schedule_id": name, "from": minute(first), "to": minute(last)}


def loaded(since: int | None = 0, *names: str, **fields: Any) -> Event:
    spec = {"cron": "* * * * *", "timezone": "UTC", "enabled": True, "dag": "dags/a.yaml"}
    when = {} if since is None else {"since": minute(since)}
    return {"event": "schedules_loaded", **when, "specs": dict.fromkeys(names, spec), **fields}


def jumped(to: int) -> Event:
    return {"event": "clock_jumped", "from": minute(0), "to": minute(to), "jump_s": 0}


def judged(history: History, *indexes: int) -> list[bool]:
    return [history.is_judged("s", at(index)) for index in indexes]


def again(history: History) -> History:
    """Return the history that the checkpoint makes, as it comes out of the log."""
    lines = [encode_line({"timestamp": minute(0), "seq": 1, "host": "h", "pid": 1, **e}) for e in history.checkpoint()]
    return History(event for event in map(decode_line, lines) if event)


def test_a_run_is_open_from_its_request_to_its_end() -> None:
    history = History([enqueued()])
    assert history.is_waiting("s.0", 1)
    history.apply(started("s.0"))
    assert history.is_running("s.0", 1)
    assert not history.is_waiting("s.0", 1)
    assert history.runs["s.0"].process == Identity("b", 7, 9)
    history.apply(finished("s.0"))
    assert (history.runs, history.open_runs("s")) == ({}, [])


def test_a_further_attempt_waits_again_with_its_time() -> None:
    history = History([enqueued(), started("s.0"), finished("s.0", next_attempt=2, retry_at=minute(1))])
    [run] = history.open_runs("s")
    assert (run.status, run.attempt, run.retry_at, run.process, run.started_at) == ("queued", 2, minute(1), None, None)
    assert run.next_request()["attempt"] == 2
    assert history.is_waiting("s.0", 2)
    assert not history.is_waiting("s.0", 1)


@pytest.mark.parametrize("retry_at", ["", "soon", "2026-11-23T09:00:00"])
def test_a_further_attempt_whose_time_is_none_is_unusable_wherever_it_stands(retry_at: str) -> None:
    kept = {"run_id": "s.0", "schedule_id": "s", "request": enqueued(), "attempt": 2, "retry_at": retry_at}
    history = History([{"event": "checkpoint", "run": kept}, enqueued(), started("s.0")])
    history.apply(finished("s.0", next_attempt=2, retry_at=retry_at))
    assert (history.unusable, history.is_running("s.0", 1)) == (2, True)


def test_the_end_of_an_earlier_attempt_does_not_close_the_run() -> None:
    history = History([enqueued(), started("s.0"), finished("s.0", next_attempt=2), finished("s.0", attempt=1)])
    assert history.is_waiting("s.0", 2)


def test_a_second_request_for_an_open_run_does_not_start_it_anew() -> None:
    history = History([enqueued(), started("s.0"), enqueued()])
    assert history.is_running("s.0", 1)


def test_a_run_that_nobody_asked_for_is_open_while_it_runs() -> None:
    history = History([started("hand.made", schedule_id=None)])
    assert history.is_running("hand.made", 1)
    assert [run.run_id for run in history.open_runs("")] == ["hand.made"]


def test_open_runs_are_told_oldest_first_and_by_schedule() -> None:
    history = History([enqueued(0), enqueued(1, "t"), enqueued(2), enqueued(1)])
    assert [run.run_id for run in history.open_runs("s")] == ["s.0", "s.2", "s.1"]


def test_enqueued_skipped_and_missed_minutes_are_judged_and_no_others() -> None:
    history = History([enqueued(0), skipped(2), missed(4, 6)])
    assert judged(history, -1, 0, 1, 2, 3, 4, 5, 6, 7) == [False, True, False, True, False, True, True, True, False]


def test_a_schedule_goes_on_from_its_last_verdict() -> None:
    history = History([loaded(0, "s"), skipped(3), missed(4, 9)])
    assert history.judged_until("s", at(20)) == at(9)
    assert history.judged_until("other", at(20)) is None


def test_a_load_sets_where_new_schedules_begin_and_never_goes_back() -> None:
    history = History([loaded(5, "s"), skipped(8), loaded(6, "s"), loaded(None, "s", "t")])
    assert history.judged_until("s", at(20)) == at(8)
    assert history.schedules["t"].spec["cron"] == "* * * * *"


def test_a_removed_schedule_has_no_spec_and_keeps_what_was_judged() -> None:
    history = History([loaded(0, "s"), skipped(1), loaded(None, removed=["s", "never seen"])])
    assert history.schedules["s"].spec == {}
    assert judged(history, 1) == [True]


def test_after_the_clock_was_set_back_a_schedule_goes_on_from_there() -> None:
    history = History([skipped(0), skipped(30), jumped(10)])
    assert history.judged_until("s", at(12)) == at(10) - timedelta(seconds=1)
    assert judged(history, 0, 10, 30) == [True, False, True]
    # Past all it has seen, it goes on from the highest.
    assert history.judged_until("s", at(40)) == at(30)


def test_before_all_that_was_judged_there_is_nothing_to_go_on_from() -> None:
    assert History([skipped(30)]).judged_until("s", at(10)) is None


def test_what_was_missed_behind_a_clock_set_back_may_still_come() -> None:
    history = History([skipped(0), missed(1, 59), skipped(60), jumped(20)])
    assert judged(history, 1, 19, 20, 59, 60) == [True, True, False, False, True]


def test_overlapping_missed_ranges_are_one() -> None:
    history = History([missed(10, 20), missed(0, 3), missed(12, 14), missed(18, 25)])
    assert history.schedules["s"].missed == [(epoch(minute(a)), epoch(minute(b))) for a, b in ((0, 3), (10, 25))]
    assert judged(history, 3, 4, 15, 25, 26) == [True, False, True, True, False]


def test_faults_of_one_load_stay_until_another_load() -> None:
    fault = {"event": "schedule_invalid", "file": "a.yaml", "line": 1, "col": 1, "reason": "bad"}
    history = History([{**fault, "load": "1"}, {**fault, "load": "1"}])
    assert len(history.faults) == 2
    history.apply({**fault, "load": "2"})
    assert len(history.faults) == 1
    history.apply(loaded(None))
    assert history.faults == []


def test_the_supervisor_is_known_until_that_one_stops() -> None:
    start = {"event": "supervisor_started", "pid": 5, "timestamp": minute(0), "starttime": 1, "boot_id": "b"}
    history = History([start, {"event": "supervisor_stopped", "pid": 6}])
    assert history.supervisor == start
    history.apply({"event": "supervisor_stopped", "pid": 5})
    assert history.supervisor is None


def test_unknown_events_are_passed_over() -> None:
    history = History([{"event": "task_invented_later", "run_id": "s.0"}, {"event": "log_repaired"}])
    assert (history.unusable, history.runs, history.schedules) == (0, {}, {})


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"event": None, "x": 1} | {"event": []},
        {"event": "run_started", "run_id": "s.0"},
        {"event": "run_started", "run_id": "s.0", "timestamp": minute(0), "pid": "7"},
        {"event": "run_started", "run_id": ["s"], "timestamp": minute(0), "pid": 7},
        {"event": "run_finished"},
        {"event": "run_finished", "run_id": {}},
        {"event": "schedule_enqueued", "schedule_id": "s", "minute": minute(1)},
        {"event": "schedule_enqueued", "schedule_id": "s", "minute": "noon", "run_id": "s.1"},
        {"event": "schedule_enqueued", "schedule_id": "s", "minute": "2026-11-23T12:00:00", "run_id": "s.1"},
        {"event": "schedule_enqueued", "schedule_id": "s", "minute": "0001-01-01T00:00:00Z", "run_id": "s.1"},
        {"event": "schedule_enqueued", "schedule_id": "s", "minute": 5, "run_id": "s.1"},
        {"event": "schedule_enqueued", "schedule_id": 5, "minute": minute(1), "run_id": "s.1"},
        {"event": "run_requested", "run_id": "r", "attempt": "1"},
        {"event": "schedule_missed", "schedule_id": "s", "from": minute(5), "to": minute(4)},
        {"event": "schedule_missed", "schedule_id": "s", "from": minute(5)},
        {"event": "schedules_loaded", "since": minute(0), "specs": {"s": "* * * * *"}},
        {"event": "schedules_loaded", "since": "now", "specs": {}},
        {"event": "schedules_loaded", "since": minute(0)},
        {"event": "clock_jumped", "to": "0001-01-01"},
        {"event": "clock_jumped", "to": None},
        {"event": "supervisor_started", "timestamp": minute(0)},
        {"event": "supervisor_started", "pid": 5, "timestamp": "yesterday"},
        {"event": "checkpoint", "run": {"run_id": 5}},
        {"event": "checkpoint", "request": ["nobody", {}]},
        {"event": "checkpoint", "schedules": [["s", 1]]},
    ],
    ids=str,
)
def test_a_malformed_event_is_counted_and_changes_nothing(event: Event) -> None:
    history = History([loaded(0, "s"), enqueued(0), skipped(1), missed(2, 3)])
    before = list(history.checkpoint())
    history.apply(event)
    assert history.unusable == 1
    assert list(history.checkpoint()) == before


NAMES = ["schedule_enqueued", "schedule_skipped", "schedule_missed", "run_started", "run_finished", "clock_jumped"]
NAMES += ["schedules_loaded", "schedule_invalid", "supervisor_started", "supervisor_stopped", "run_requested"]
KEYS = ["run_id", "schedule_id", "minute", "attempt", "pid", "timestamp", "from", "to", "since", "specs", "removed"]
KEYS += ["next_attempt", "retry_at", "load", "boot_id", "starttime", "overlap"]
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.sampled_from(["s", "s.0"]))
    | st.sampled_from([minute(0), minute(7), "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*KEYS, "s"]), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6)), max_size=8)
)
def test_no_event_stops_the_fold_nor_the_checkpoint(events: list[tuple[str, Event]]) -> None:
    history = History([loaded(0, "s"), enqueued(0), *({"event": name, **fields} for name, fields in events)])
    assert again(history).runs.keys() == history.runs.keys()
    history.judged_until("s", at(100))
    for run in history.runs.values():
        assert run.next_request()["attempt"] == run.attempt
        assert run.process is None or run.process.pid == run.start["pid"] if run.start else True


class Past:
    """Writes histories as tickers do: of each schedule every minute is judged, in order, and the clock may step."""

    def __init__(self) -> None:
        self.history = History()
        self.events: list[Event] = []
        self.now = 0

    def add(self, *events: Event) -> None:
        for event in events:
            self.events.append(event)
            self.history.apply(event)

    def do(self, kind: str, name: str, number: int) -> None:
        if kind == "jump":
            self.now = max(-500, self.now + number - 20)
            self.add(jumped(self.now))
        elif kind == "load":
            self.judge("miss", name, 0)  # what the old definition still owed
            self.add(loaded(self.now, name))
        elif kind == "finish":
            for run in list(self.history.runs.values())[:number]:
                self.add(started(run.run_id), finished(run.run_id, status="success"))
        elif kind == "retry":
            for run in self.history.open_runs(name)[:number]:
                if run.status == "queued" and run.attempt == 1:
                    self.add(started(run.run_id), finished(run.run_id, next_attempt=2, retry_at=minute(self.now)))
        elif kind == "cancel":
            for run in self.history.open_runs(name)[:number]:
                told = {"event": "deadline_missed", "run_id": run.run_id, "schedule_id": name}
                self.add({"event": "cancel_requested", "run_id": run.run_id, "reason": "x" * 300, "by": name}, told)
        elif kind == "start":
            self.add(*(started(run.run_id, run.attempt) for run in self.history.open_runs(name)[:1]))
        else:
            self.judge(kind, name, number)

    def judge(self, kind: str, name: str, number: int) -> None:
        since = self.history.judged_until(name, at(self.now))
        first = self.now if since is None else int((since - BASE).total_seconds() // 60) + 1
        self.now = max(self.now, first + number)
        waiting = [m for m in range(first, self.now + 1) if not self.history.is_judged(name, at(m))]
        if kind == "miss" and waiting:
            ranges: list[list[int]] = []
            for index in waiting:
                if ranges and ranges[-1][1] == index - 1:
                    ranges[-1][1] = index
                else:
                    ranges.append([index, index])
            self.add(*(missed(a, b, name) for a, b in ranges))
        else:
            self.add(*(enqueued(m, name) if kind == "enqueue" else skipped(m, name) for m in waiting))


def decides(history: History, now: int) -> dict[str, Any]:
    """Return all that anybody asks of a history."""
    return {
        "runs": history.runs,
        "open": {name: [run.run_id for run in history.open_runs(name)] for name in ("s", "t")},
        "until": [history.judged_until(name, at(m)) for name in ("s", "t") for m in range(-600, now + 700, 7)],
        "specs": {name: state.spec for name, state in history.schedules.items()},
    }


def judged_minutes(history: History, now: int) -> set[tuple[str, int]]:
    return {(name, m) for name in ("s", "t") for m in range(-600, now + 700) if history.is_judged(name, at(m))}


def check_same(fresh: History, past: Past) -> None:
    assert decides(fresh, past.now) == decides(past.history, past.now)
    told: set[tuple[str, int]] = set()
    for event in past.events:
        if "from" in event and "schedule_id" in event:
            first, last = (
                int((datetime.fromisoformat(event[key]) - BASE).total_seconds() // 60) for key in ("from", "to")
            )
            told |= {(event["schedule_id"], m) for m in range(first, last + 1)}
        elif event["event"] in ("schedule_enqueued", "schedule_skipped"):
            told.add(
                (event["schedule_id"], int((datetime.fromisoformat(event["minute"]) - BASE).total_seconds() // 60))
            )
    ours, theirs = judged_minutes(fresh, past.now), judged_minutes(past.history, past.now)
    # Nothing is forgotten. What is judged besides was missed once, and passed over when the clock was set right.
    assert theirs <= ours <= told


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enqueue", "skip", "skip", "miss", "jump", "load", "finish", "retry", "cancel", "start"]),
        st.sampled_from(["s", "t"]),
        st.integers(0, 40),
    ),
    max_size=25,
)


@settings(max_examples=80, deadline=None)
@given(before=STEPS, after=STEPS)
def test_a_checkpoint_stands_for_the_history_before_it(
    before: list[tuple[str, str, int]], after: list[tuple[str, str, int]]
) -> None:
    past = Past()
    for step in before:
        past.do(*step)
    fresh = again(past.history)
    check_same(fresh, past)
    told = len(past.events)
    for step in after:
        past.do(*step)
    for event in past.events[told:]:
        fresh.apply(event)
    check_same(fresh, past)


def test_a_checkpoint_keeps_the_supervisor_and_the_faults() -> None:
    start = {"event": "supervisor_started", "pid": 5, "timestamp": minute(0), "starttime": 1, "boot_id": "b"}
    fault = {"event": "schedule_invalid", "file": "a.yaml", "line": 1, "col": 1, "reason": "bad", "load": "1"}
    fresh = again(History([start, fault]))
    assert (fresh.supervisor, fresh.faults) == (start, [fault])


def test_a_checkpoint_is_small_however_much_was_judged() -> None:
    history = History(
        [loaded(0, "s"), *(skipped(n) for n in range(20_000)), *(missed(n, n) for n in range(20_000, 30_000, 2))]
    )
    lines = [encode_line(event) for event in history.checkpoint()]
    assert sum(map(len, lines)) < 1000
    fresh = again(history)
    assert judged(fresh, -1, 0, 10_000, 19_999, 29_998, 29_999) == [False, True, True, True, True, False]
    assert len(fresh.schedules["s"].judged) + len(fresh.schedules["s"].missed) < 20


def test_what_was_judged_ahead_of_a_clock_set_back_is_kept_one_by_one() -> None:
    history = History([*(skipped(n) for n in range(5000, 9000)), jumped(0), skipped(1)])
    fresh = again(history)
    assert judged(fresh, 1, 2, 4999, 5000, 7000, 8999, 9000) == [True, False, False, True, True, True, False]


def test_a_clock_that_was_ahead_silences_nothing_between_however_often_a_segment_begins() -> None:
    history = again(History([*map(skipped, range(20)), missed(20, 4999), *map(skipped, range(5000, 5020))]))
    for event in (jumped(20), *map(skipped, range(20, 40))):
        history.apply(event)
    fresh = again(again(history))
    assert judged(fresh, 0, 39, 40, 4999, 5000, 5019, 5020) == [True, True, False, False, True, True, False]


def test_a_minute_that_somebody_wrote_ahead_of_its_time_silences_nothing_before_it() -> None:
    fresh = again(History([*map(skipped, range(20)), enqueued(5000), *map(skipped, range(20, 40))]))
    assert judged(fresh, 0, 39, 40, 4999, 5000) == [True, True, False, False, True]


def test_a_request_that_fills_a_line_fits_in_a_checkpoint() -> None:
    def asked(length: int) -> Event:
        return {**enqueued(0, params={"text": "x" * length, "other": "é"}), "seq": 1, "host": "h", "pid": 1}

    event = asked(MAX_LINE - len(encode_line(asked(0))) - 1)
    history = History([event, started("s.0")])
    assert again(history).runs == history.runs


def test_no_line_of_a_checkpoint_is_too_long() -> None:
    spec = {"cron": "*/5 " * 60, "timezone": "UTC", "enabled": True, "dag": "é" * 1500}
    history = History([loaded(0, "s") | {"specs": {f"{n:0128}": spec for n in range(300)}}])
    assert again(history).schedules == history.schedules


def test_in_lines_keeps_the_order_and_fills_no_line_beyond_its_room() -> None:
    items = ["x" * 5000] * 7 + ["y" * 40_000, "\udcff"]
    lines = list(in_lines(items))
    assert [len(line) for line in lines] == [3, 3, 1, 1, 1]
    assert [item for line in lines for item in line] == items


def test_a_new_segment_begins_the_count_of_events_anew() -> None:
    history = History([enqueued(0), skipped(1), {"event": "segment_started"}])
    assert history.events_since_checkpoint == 0
    for event in History([enqueued(0), skipped(1)]).checkpoint():
        history.apply(event)
    assert history.events_since_checkpoint == 0
    history.apply(skipped(2))
    assert history.events_since_checkpoint == 1


FAR = "9999-12-31T23:59:59-23:59"
FAR_S = 253_402_387_139
PAUSE = {"event": "schedule_paused", "schedule_id": "s", "timestamp": minute(0)}


@pytest.mark.parametrize(
    "event",
    [
        enqueued(0, minute=FAR),
        missed(0, 5) | {"to": FAR},
        skipped(0) | {"minute": FAR},
        loaded(0, "s") | {"since": FAR},
        PAUSE | {"until": FAR},
        {"event": "clock_jumped", "from": minute(0), "to": FAR, "jump_s": 0},
        {"event": "checkpoint", "schedules": [["s", 0, FAR_S, [], [], [], {}]]},
        {"event": "checkpoint", "schedules": [["s", FAR_S, 0, [], [], [], {}]]},
        {"event": "checkpoint", "schedules": [["s", 0, 0, [], [[0, FAR_S]], [], {}]]},
        {"event": "checkpoint", "pauses": [["schedule", "s", [[0, FAR_S, "", ""]]]]},
        {"event": "checkpoint", "backfill": {"backfill_id": "s.backfill.1", "schedule_id": "s", "by": "a@b",
                                             "max_parallel": 1, "total": 1, "terms": {}, "slots": [FAR_S]}},
        {"event": "checkpoint", "arrivals": [["s", {"due": [{"second": FAR_S, "number": 1, "trigger": {}}]}]]},
    ],
    ids=lambda event: " ".join(map(str, [*event][:2])) if isinstance(event, dict) else None,
)  # fmt: skip
def test_what_happens_after_the_year_9999_is_of_no_use(event: Event, tmp_path: Path) -> None:
    history = History([event])
    assert history.unusable == 1
    assert not history.pauses
    assert not history.backfills.open
    store = StateStore(EventLog(tmp_path / "state.jsonl"))
    store.commit(lambda _: [event])
    record_configuration(store, Configuration("schedules", [], [], (), ()), BASE)
    assert [each["event"] for each in LogReader(tmp_path / "state.jsonl").read()] == [event["event"]]
