"""The tick: every due minute gets exactly one verdict, whoever ticks, and whatever the clock does."""

from __future__ import annotations

import multiprocessing
import queue
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.cron import NaiveDatetime
from scheduler.judge import due, run_id_for
from scheduler.reload import record_configuration
from scheduler.schedule_model import Schedule
from scheduler.schedules import Configuration
from scheduler.state_store import StateStore, last_runs
from scheduler.ticker import RunQueueLike, Ticker, tick_once
from workers.errors import InvalidFile
from workers.event_log import EventLog, LogUnwritable
from workers.events import Event, iso
from workers.segments import LogReader

NOON = datetime(2026, 11, 23, 12, 0, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
VERDICTS = ("schedule_enqueued", "schedule_skipped", "schedule_missed")


def minutely(name: str = "s", **fields: Any) -> Schedule:
    return Schedule(name, fields.pop("cron", "* * * * *"), "dags/a.yaml", **fields)


def open_store(log: Path) -> StateStore:
    store = StateStore(EventLog(log, fsync="off"))
    store.refresh()
    return store


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "state.jsonl"


@pytest.fixture
def store(log: Path) -> Iterator[StateStore]:
    store = open_store(log)
    yield store
    store.close()


def finish(store: StateStore, events: Iterable[Event]) -> None:
    for event in events:
        if event["event"] == "schedule_enqueued":
            end = {"event": "run_finished", "run_id": event["run_id"], "schedule_id": event["schedule_id"]}
            store.commit(lambda _, end=end: [{**end, "attempt": 1, "status": "success"}])


def verdicts(events: Iterable[Event], schedule: Schedule) -> list[tuple[str, str]]:
    """Return (minute, verdict) for each fire time that the events tell of; a missed range is told minute by minute."""
    found: list[tuple[str, str]] = []
    for event in events:
        if event["event"] == "schedule_missed" and event["schedule_id"] == schedule.id:
            first, last = (datetime.fromisoformat(event[key]) for key in ("from", "to"))
            fires = due(schedule, first - timedelta(seconds=1), last)
            assert event.get("is_more") or len(fires) == event["count"]
            found += [(iso(fire), f"missed:{event['reason']}") for fire in fires]
        elif event["event"] in VERDICTS and event["schedule_id"] == schedule.id:
            found.append((event["minute"], event["event"].removeprefix("schedule_")))
    return sorted(found)


def on_record(log: Path) -> list[Event]:
    reader = LogReader(log, from_start=True)
    try:
        return reader.read()
    finally:
        reader.close()


def test_first_tick_on_an_empty_log_judges_the_current_minute(store: StateStore) -> None:
    [event] = Ticker(store, [minutely()], NOON).tick(NOON)
    assert (event["event"], event["minute"], event["run_id"]) == (
        "schedule_enqueued",
        "2026-11-23T12:00:00Z",
        "s.20261123T1200Z",
    )


def test_a_minute_is_judged_once_however_often_it_is_ticked(store: StateStore) -> None:
    ticker = Ticker(store, [minutely()], NOON)
    assert [len(ticker.tick(NOON + timedelta(seconds=s))) for s in (0, 1, 20, 29)] == [1, 0, 0, 0]
    assert [len(Ticker(store, [minutely()], NOON).tick(NOON)) for _ in range(2)] == [0, 0]


def test_a_run_id_is_readable_and_has_seconds_only_where_there_are_some() -> None:
    assert run_id_for("a", NOON) == "a.20261123T120030Z"
    assert run_id_for("a", NOON.replace(second=0)) == "a.20261123T1200Z"
    assert run_id_for("a", NOON.replace(minute=10, second=10)) == "a.20261123T121010Z"


def test_a_disabled_schedule_gets_no_verdict(store: StateStore) -> None:
    ticker = Ticker(store, [minutely(enabled=False)], NOON)
    assert ticker.next_fire() is None
    assert ticker.tick(NOON + timedelta(days=1)) == []


def test_next_fire_is_the_earliest_of_all(store: StateStore) -> None:
    ticker = Ticker(store, [minutely("daily", cron="0 9 * * *"), minutely("five", cron="*/5 * * * *")], NOON)
    ticker.tick(NOON)
    assert ticker.next_fire() == datetime(2026, 11, 23, 12, 5, tzinfo=UTC)


def within(minutes: int) -> dict[str, timedelta]:
    return {"catchup_window": timedelta(minutes=minutes)}


@pytest.mark.parametrize(
    ("fields", "late", "told"),
    [
        ({}, 5.5, {"missed:down": 4, "enqueued": 1}),
        ({"catchup": "latest"}, 5.5, {"missed:superseded": 4, "enqueued": 1}),
        ({"catchup": "all", "overlap": "queue"}, 5.5, {"enqueued": 5}),
        ({"catchup": "all", "overlap": "allow"}, 5.5, {"enqueued": 5}),
        ({"catchup": "all", "overlap": "queue", **within(2)}, 5.5, {"missed:catchup_window": 3, "enqueued": 2}),
        (
            {"catchup": "latest", **within(2)},
            5.5,
            {"missed:catchup_window": 3, "missed:superseded": 1, "enqueued": 1},
        ),
        ({"cron": "*/5 * * * *"}, 7, {"missed:down": 1}),
        ({"cron": "*/5 * * * *", "catchup": "latest"}, 7, {"enqueued": 1}),
        ({"cron": "*/5 * * * *", "catchup": "latest", **within(1)}, 7, {"missed:catchup_window": 1}),
        ({"cron": "*/5 * * * *", "catchup": "latest", **within(2)}, 7, {"enqueued": 1}),
        ({"cron": "@every 10s"}, 0.75, {"missed:down": 3, "enqueued": 1}),
    ],
)
def test_late_fire_times_are_caught_up_or_missed_as_the_policy_says(
    store: StateStore, fields: dict[str, Any], late: float, told: dict[str, int]
) -> None:
    schedule, start = minutely(**fields), NOON.replace(second=0)
    finish(store, Ticker(store, [schedule], start).tick(start))
    now = start + timedelta(minutes=late)
    events = Ticker(store, [schedule], now).tick(now, "down")
    assert Counter(verdict for _, verdict in verdicts(events, schedule)) == told


def test_a_caught_up_run_says_so(store: StateStore) -> None:
    schedule = minutely(cron="0 * * * *", catchup="latest")
    Ticker(store, [schedule], NOON).tick(NOON)
    late = NOON + timedelta(minutes=70)
    [event] = [e for e in Ticker(store, [schedule], late).tick(late) if e["event"] != "schedule_missed"]
    assert event["event"] == "schedule_skipped"  # the first run is open and `overlap` is `skip`
    allowed = minutely(cron="0 * * * *", catchup="latest", overlap="allow")
    later = late + timedelta(hours=1)
    [event] = Ticker(store, [allowed], later).tick(later)
    assert (event["minute"], event["catchup"]) == ("2026-11-23T14:00:00Z", "latest")


@pytest.mark.parametrize(("overlap", "second"), [("skip", "skipped"), ("queue", "enqueued"), ("allow", "enqueued")])
def test_overlap_decides_what_comes_of_a_fire_time_while_a_run_is_open(
    store: StateStore, overlap: str, second: str
) -> None:
    ticker = Ticker(store, [minutely(overlap=overlap)], NOON)
    first = ticker.tick(NOON)
    [event] = ticker.tick(NOON + MINUTE)
    assert event["event"] == f"schedule_{second}"
    if overlap == "skip":
        assert (event["reason"], event["open_run"]) == ("overlap", "s.20261123T1200Z")
        finish(store, first)
        assert ticker.tick(NOON + 2 * MINUTE)[0]["event"] == "schedule_enqueued"


def test_two_fire_times_of_one_tick_overlap_each_other(store: StateStore) -> None:
    schedule = minutely(cron="@every 30s", catchup="latest")
    ticker = Ticker(store, [schedule], NOON)
    ticker.tick(NOON)
    kinds = [event["event"] for event in ticker.tick(NOON + timedelta(seconds=60))]
    assert kinds == ["schedule_missed", "schedule_skipped"]


def test_a_week_down_is_one_missed_event_and_quick(store: StateStore) -> None:
    schedule = minutely()
    finish(store, Ticker(store, [schedule], NOON).tick(NOON))
    back = NOON + timedelta(days=7)
    started = time.monotonic()
    missed, enqueued = Ticker(store, [schedule], back).tick(back, "down")
    assert time.monotonic() - started < 2
    assert (missed["count"], missed["from"], missed["to"], missed["reason"]) == (
        7 * 1440 - 1,
        "2026-11-23T12:01:00Z",
        "2026-11-30T11:59:00Z",
        "down",
    )
    assert enqueued["minute"] == "2026-11-30T12:00:00Z"


@pytest.mark.parametrize("catchup", ["none", "latest", "all"])
def test_a_clock_that_is_decades_off_costs_a_moment_and_loses_no_minute(store: StateStore, catchup: str) -> None:
    schedule = minutely(
        catchup=catchup, overlap="queue", catchup_window=timedelta(minutes=5) if catchup != "none" else None
    )
    Ticker(store, [schedule], NOON).tick(NOON)
    back = NOON.replace(year=2076)
    started = time.monotonic()
    first, *others = Ticker(store, [schedule], back).tick(back, "clock_jump")
    assert time.monotonic() - started < 10
    assert (first["from"], first["to"], first["is_more"]) == ("2026-11-23T12:01:00Z", "2076-11-22T12:00:00Z", True)
    told = verdicts(others, schedule)
    assert [minute for minute, _ in told] == [iso(fire) for fire in due(schedule, back - timedelta(days=1), back)]
    runs = {"none": 1, "latest": 1, "all": 5}[catchup]
    assert sum(verdict == "enqueued" for _, verdict in told) == runs


def test_many_schedules_of_one_expression_that_were_down_for_a_week_are_judged_quickly(store: StateStore) -> None:
    schedules = [minutely(f"s{n}") for n in range(500)]
    Ticker(store, schedules, NOON).tick(NOON)
    back = NOON + timedelta(days=7)
    started = time.monotonic()
    events = Ticker(store, schedules, back).tick(back)
    assert time.monotonic() - started < 3
    assert Counter(event["event"] for event in events) == {"schedule_missed": 500, "schedule_skipped": 500}


def test_a_tick_with_a_naive_time_is_refused(store: StateStore) -> None:
    with pytest.raises(NaiveDatetime):
        Ticker(store, [minutely()], datetime(2026, 11, 23, 12, 0))  # noqa: DTZ001
    with pytest.raises(NaiveDatetime):
        Ticker(store, [minutely()], NOON).tick(datetime(2026, 11, 23, 12, 0))  # noqa: DTZ001


def test_a_late_fire_time_is_late_in_the_hour_that_comes_twice_too(store: StateStore) -> None:
    paris = ZoneInfo("Europe/Paris")
    schedule = minutely(cron="30 2 * * *", timezone="Europe/Paris")
    # 02:30 in summer time, an hour before the same wall clock in winter time.
    before = datetime(2026, 10, 25, 2, 29, tzinfo=paris)
    again = datetime(2026, 10, 25, 2, 30, 30, fold=1, tzinfo=paris)
    ticker = Ticker(store, [schedule], before)
    assert ticker.tick(before) == []
    assert [event["event"] for event in ticker.tick(again)] == ["schedule_missed"]


@pytest.mark.parametrize(
    ("cron", "since", "until", "fires"),
    [
        ("30 2 * * *", "2026-03-28T22:00Z", "2026-03-30T22:00Z", ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]),
        ("30 2 * * *", "2026-10-24T22:00Z", "2026-10-25T22:00Z", ["2026-10-25T00:30:00Z"]),
        ("30 * * * *", "2026-10-25T00:00Z", "2026-10-25T02:00Z", ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"]),
    ],
)
def test_fire_times_are_told_in_utc_by_the_clock_of_the_zone(
    cron: str, since: str, until: str, fires: list[str]
) -> None:
    schedule = minutely(cron=cron, timezone="Europe/Paris")
    found = due(schedule, datetime.fromisoformat(since), datetime.fromisoformat(until))
    assert [iso(fire) for fire in found] == fires
    assert {fire.tzinfo for fire in found} == {UTC}


def test_after_a_failed_append_the_fire_times_are_still_due(store: StateStore, log: Path) -> None:
    ticker = Ticker(store, [minutely(), minutely("t")], NOON)
    log.mkdir()
    with pytest.raises(LogUnwritable):
        ticker.tick(NOON)
    log.rmdir()
    assert [event["minute"] for event in ticker.tick(NOON)] == ["2026-11-23T12:00:00Z"] * 2
    assert ticker.tick(NOON) == []


def test_an_idle_tick_does_not_touch_the_log(store: StateStore, log: Path) -> None:
    ticker = Ticker(store, [minutely(cron="0 0 * * *")], NOON)
    log.mkdir()
    assert ticker.tick(NOON) == []


def test_what_another_ticker_has_judged_is_not_judged_again(log: Path) -> None:
    mine, other = open_store(log), open_store(log)
    a, b = Ticker(mine, [minutely()], NOON), Ticker(other, [minutely()], NOON)
    assert len(a.tick(NOON)) == 1
    assert b.tick(NOON) == []
    assert len(b.tick(NOON + MINUTE)) == 1
    assert a.tick(NOON + MINUTE) == []
    mine.close()
    other.close()


def _tick_along(log: Path, names: list[str], barrier: Any) -> None:
    store = open_store(log)
    schedules = [minutely(name, overlap="allow") for name in names]
    barrier.wait(30)
    for step in range(25):
        now = NOON + step * MINUTE
        Ticker(store, schedules, now).tick(now)
    store.close()


def test_processes_that_race_on_one_log_judge_each_minute_once(log: Path) -> None:
    context = multiprocessing.get_context("spawn")
    names, barrier = ["a", "b", "c"], context.Barrier(4)
    racers = [context.Process(target=_tick_along, args=(log, names, barrier)) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    events = on_record(log)
    for name in names:
        told = [minute for minute, _ in verdicts(events, minutely(name))]
        # One that ran ahead may have left a minute to be missed, but none is told twice and none is left out.
        assert told == [iso(NOON.replace(second=0) + step * MINUTE) for step in range(25)]


def test_a_clock_set_back_runs_nothing_twice_and_goes_on(store: StateStore) -> None:
    schedule = minutely(overlap="allow")
    ticker = Ticker(store, [schedule], NOON)
    for step in range(6):
        ticker.tick(NOON + step * MINUTE)
    back = NOON + 2 * MINUTE
    jump(store, NOON + 5 * MINUTE, back)
    ticker.resume(back)
    events = [event for step in range(2, 8) for event in ticker.tick(NOON + step * MINUTE)]
    assert [event["minute"] for event in events] == ["2026-11-23T12:06:00Z", "2026-11-23T12:07:00Z"]


def test_what_a_wrong_clock_called_missed_runs_when_its_time_comes(store: StateStore) -> None:
    schedule = minutely(overlap="allow")
    ticker = Ticker(store, [schedule], NOON)
    ticker.tick(NOON)
    ahead = NOON + timedelta(hours=1)
    jump(store, NOON, ahead)
    ticker.resume(ahead)
    assert [e["event"] for e in ticker.tick(ahead, "clock_jump")] == ["schedule_missed", "schedule_enqueued"]
    back = NOON + timedelta(seconds=40)
    jump(store, ahead, back)
    ticker.resume(back)
    assert [event["minute"] for event in ticker.tick(NOON + MINUTE)] == ["2026-11-23T12:01:00Z"]
    # Of the hour ahead only the minute that ran there stays judged.
    events = [event for step in range(2, 62) for event in ticker.tick(NOON + step * MINUTE)]
    assert len(events) == 59
    assert "2026-11-23T13:00:00Z" not in {event["minute"] for event in events}


def test_a_clock_that_was_a_year_ahead_does_not_silence_the_year(store: StateStore, log: Path) -> None:
    schedule = minutely(cron="0 * * * *", overlap="allow")
    ticker = Ticker(store, [schedule], NOON)
    ticker.tick(NOON)
    ahead = NOON + timedelta(days=365)
    jump(store, NOON, ahead)
    ticker.resume(ahead)
    for hour in range(20):
        ticker.tick(ahead + timedelta(hours=hour), "clock_jump")
    assert store.log.rotate(0, lambda _: list(store.history.checkpoint()))
    again = open_store(log)
    back = NOON + timedelta(minutes=2)
    jump(again, ahead, back)
    ticker = Ticker(again, [schedule], back)
    told = [event["minute"] for hour in range(1, 4) for event in ticker.tick(NOON + timedelta(hours=hour))]
    assert told == ["2026-11-23T13:00:00Z", "2026-11-23T14:00:00Z", "2026-11-23T15:00:00Z"]
    again.close()


def test_minutes_judged_ahead_of_a_clock_set_back_are_not_told_in_a_missed_range(store: StateStore) -> None:
    schedule = minutely(overlap="allow")
    ticker = Ticker(store, [schedule], NOON)
    for step in (0, 3, 6):
        jump(store, NOON, NOON + step * MINUTE)
        ticker.resume(NOON + step * MINUTE)
        ticker.tick(NOON + step * MINUTE)
    jump(store, NOON + 6 * MINUTE, NOON)
    ticker.resume(NOON)
    events = ticker.tick(NOON + 9 * MINUTE)
    told = [minute for minute, _ in verdicts(events, schedule)]
    assert told == [iso(NOON.replace(second=0) + step * MINUTE) for step in (1, 2, 4, 5, 7, 8, 9)]


def jump(store: StateStore, was: datetime, now: datetime) -> None:
    store.commit(lambda _: [{"event": "clock_jumped", "from": iso(was), "to": iso(now), "jump_s": 0}])


POLICIES: list[dict[str, Any]] = [
    {},
    {"catchup": "latest"},
    {"catchup": "latest", "catchup_window": timedelta(minutes=4)},
    {"catchup": "all", "overlap": "queue", "catchup_window": timedelta(minutes=7)},
    {"overlap": "allow"},
    {"overlap": "replace", "catchup": "latest", "jitter": timedelta(seconds=20)},
    {"overlap": "queue", "max_queued": 1, "start_deadline": timedelta(seconds=40)},
    {"overlap": "queue", "catchup": "all", "catchup_max": 2, "max_queued": 2},
    {"overlap": "allow", "catchup": "all", "start_deadline": timedelta(minutes=3)},
]
CRONS = ["* * * * *", "*/7 * * * *", "5,6,50 * * * *", "@every 90s"]


class World:
    """Tickers on one log, in a time that a test moves."""

    def __init__(self, root: Path, schedule: Schedule) -> None:
        self.log, self.schedule, self.now = root / "state.jsonl", schedule, NOON
        self.stores = [open_store(self.log), open_store(self.log)]
        self.tickers: list[Ticker] = []
        self.restart()

    def restart(self) -> None:
        for number, store in enumerate(self.stores):
            store.close()
            self.stores[number] = open_store(self.log)
            configuration = Configuration("schedules", [self.schedule], [], (), ())
            record_configuration(self.stores[number], configuration, self.now)
        self.tickers = [Ticker(store, [self.schedule], self.now) for store in self.stores]

    def step(self, kind: str, seconds: int) -> None:
        if kind == "rotate":
            self.stores[0].rotate(0)
        elif kind == "finish":
            self.stores[0].refresh()
            finish(self.stores[0], [run.request for run in self.stores[0].history.runs.values()])
        elif kind == "jump":
            was, self.now = self.now, self.now + timedelta(seconds=seconds - 2400)
            jump(self.stores[0], was, self.now)
            self.stores[1].refresh()
            for ticker in self.tickers:
                ticker.resume(self.now)
        else:
            self.now += timedelta(seconds=seconds)
            if kind == "restart":
                self.restart()
            self.tickers[seconds % 2].tick(self.now)

    def close(self) -> None:
        for store in self.stores:
            store.close()


def run_world(schedule: Schedule, steps: list[tuple[str, int]], check: Callable[[World], None]) -> None:
    with tempfile.TemporaryDirectory() as root:
        world = World(Path(root), schedule)
        try:
            for kind, seconds in steps:
                world.step(kind, seconds)
            check(world)
        finally:
            world.close()


def steps_of(*kinds: str) -> st.SearchStrategy[list[tuple[str, int]]]:
    lengths = st.one_of(st.integers(0, 150), st.integers(0, 5000))
    return st.lists(st.tuples(st.sampled_from(kinds), lengths), min_size=1, max_size=14)


@settings(max_examples=60, deadline=None)
@given(
    policy=st.sampled_from(POLICIES), cron=st.sampled_from(CRONS), steps=steps_of("tick", "restart", "rotate", "finish")
)
def test_every_due_minute_gets_exactly_one_verdict(
    policy: dict[str, Any], cron: str, steps: list[tuple[str, int]]
) -> None:
    schedule = minutely(cron=cron, **policy)

    def check(world: World) -> None:
        world.tickers[0].tick(world.now)
        wanted = due(schedule, NOON.replace(second=0) - timedelta(seconds=1), world.now)
        assert [minute for minute, _ in verdicts(on_record(world.log), schedule)] == [iso(fire) for fire in wanted]

    run_world(schedule, steps, check)


@settings(max_examples=60, deadline=None)
@given(policy=st.sampled_from(POLICIES), steps=steps_of("tick", "tick", "restart", "rotate", "jump", "finish"))
def test_no_step_of_the_clock_runs_a_minute_twice(policy: dict[str, Any], steps: list[tuple[str, int]]) -> None:
    schedule = minutely(**policy)

    def check(world: World) -> None:
        told = verdicts(on_record(world.log), schedule)
        judged = Counter(minute for minute, verdict in told if not verdict.startswith("missed"))
        assert [minute for minute, count in judged.items() if count > 1] == []

    run_world(schedule, steps, check)


@pytest.mark.parametrize("make", [queue.Queue, multiprocessing.get_context("spawn").Queue])
def test_tick_once_puts_what_it_has_recorded(
    monkeypatch: pytest.MonkeyPatch, log: Path, make: Callable[[], Any]
) -> None:
    monkeypatch.setenv("STATE_STORE_PATH", str(log))
    run_queue = make()
    entry = {"id": "m", "cron": "* * * * *", "dag": "dags/a.yaml", "params": {"n": 1}}
    [request] = tick_once(NOON, [entry, minutely(enabled=False)], run_queue)
    assert run_queue.get(timeout=10) == request == last_runs(path=log)[-1]
    assert tick_once(NOON, [entry], run_queue) == []


def test_tick_once_puts_nothing_that_could_not_be_recorded(monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
    log.write_text("")
    monkeypatch.setenv("STATE_STORE_PATH", str(log / "in_a_file.jsonl"))
    run_queue: queue.Queue[Event] = queue.Queue()
    with pytest.raises(LogUnwritable):
        tick_once(NOON, [minutely()], run_queue)
    assert run_queue.empty()


def test_tick_once_names_what_is_wrong_with_a_mapping(monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
    monkeypatch.setenv("STATE_STORE_PATH", str(log))
    with pytest.raises(InvalidFile, match=r"cron .*minute `61` is out of range"):
        tick_once(NOON, [{"id": "x", "cron": "61 * * * *", "dag": "d.yaml"}], queue.Queue())


def test_a_queue_that_takes_requests_is_all_that_tick_once_needs() -> None:
    taken: list[Event] = []

    class Taker:
        def put(self, item: Event, /) -> None:
            taken.append(item)

    taker: RunQueueLike = Taker()
    taker.put({"run_id": "r"})
    assert taken == [{"run_id": "r"}]
