"""The page Now, as an operator reads it; and what it is made from."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from dashboard import Dashboard
from loops import run_async
from playwright.sync_api import Browser, expect
from service import Service, WaitFor

from scheduler.history import History
from scheduler.run_queue import RunQueue
from scheduler.web.draw import lane, line, track
from scheduler.web.feed import Feed
from scheduler.web.fire_times import FireTimes
from scheduler.web.processes import Processes
from scheduler.web.views.lanes import LANE_SLOTS, lanes_of
from scheduler.web.views.now import Now, now_view
from workers.settings import Settings, read_settings

NOW = datetime(2026, 11, 29, 12, 3, tzinfo=UTC)


def stamp(minutes_ago: float) -> str:
    return (NOW - timedelta(minutes=minutes_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def asked(name: str, number: int, minutes_ago: float) -> dict[str, object]:
    names = {"run_id": f"{name}.{number}", "schedule_id": name, "attempt": 1}
    return {"event": "schedule_enqueued", "minute": stamp(minutes_ago), "timestamp": stamp(minutes_ago), **names}


def ended(name: str, number: int, minutes_ago: float, status: str) -> dict[str, object]:
    names = {"run_id": f"{name}.{number}", "schedule_id": name, "attempt": 1}
    facts = {"status": status, "duration_s": 1.0, "reason": f"{status} {number}", "timestamp": stamp(minutes_ago)}
    return {"event": "run_finished", **facts, **names}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return read_settings({"STATE_STORE_PATH": str(tmp_path / "state.jsonl")})


def fed(settings: Settings, *events: dict[str, object]) -> Feed:
    """Return a feed that has read these events, all of them at once."""
    with open(settings.state_path, "w", encoding="ascii") as log:
        for seq, event in enumerate(events, 1):
            log.write(json.dumps({"seq": seq, **event}) + "\n")
    feed = Feed(settings)
    let_read(feed, len(events))
    return feed


def let_read(feed: Feed, last: int) -> None:
    """Let a feed follow the log until it tells of the line `last`."""
    run_async(read(feed, last))


async def read(feed: Feed, last: int) -> None:
    changes = feed.changes()
    following = asyncio.create_task(feed.run())
    async for change in changes:
        if change.seq >= last:
            break
    following.cancel()
    await changes.aclose()


def view(feed: Feed) -> Now:
    return now_view(feed, Processes(), NOW)


def test_failures_are_one_entry_a_schedule_and_those_that_run_well_again_come_last(settings: Settings) -> None:
    events = [
        asked("mended", 1, 9),
        ended("mended", 1, 8, "failed"),
        asked("mended", 2, 2),
        ended("mended", 2, 1, "success"),
    ]
    for number in range(5):
        events += [asked("bad", number, 60 - number), ended("bad", number, 59 - number, "timeout")]
    events += [
        asked("old", 1, 1500),
        ended("old", 1, 1499, "failed"),
        asked("good", 1, 5),
        ended("good", 1, 4, "success"),
    ]
    found = view(fed(settings, *events)).failing
    told = [(each.schedule_id, each.count, each.last.run_id, each.is_mended) for each in found]
    assert told == [("bad", 5, "bad.4", False), ("mended", 1, "mended.1", True)]


def test_of_many_that_wait_only_those_that_are_shown_are_asked_why(settings: Settings) -> None:
    events = [
        {**asked(f"s{number}", run, minutes), "overlap": "queue"}
        for number, minutes in enumerate((50, 10, 90, 20, 80, 30, 70, 40, 60, 100))
        for run, minutes in ((1, minutes), (2, minutes - 5))
    ]
    feed = fed(settings, *events)
    asked_why: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is RunQueue.why_waiting.__code__:
            asked_why.append(frame.f_locals["run_id"])

    sys.setprofile(note)
    try:
        found = view(feed)
    finally:
        sys.setprofile(None)
    assert found.waiting_count == 20
    told = [(each.run_id, each.waits_s) for each in found.waiting]
    assert told == [
        (f"s{number}.{run}", 60.0 * minutes)
        for number, run, minutes in (
            *((9, 1, 100), (9, 2, 95), (2, 1, 90), (2, 2, 85)),
            *((4, 1, 80), (4, 2, 75), (6, 1, 70), (6, 2, 65)),
        )
    ]
    assert {each.why for each in found.waiting[::2]} == {"it waits for a worker"}
    assert found.waiting[1].why == "an older run of its schedule is open: s9.1"
    assert asked_why == [run_id for run_id, _ in told]


def test_lanes_begin_with_what_failed_and_count_each_run_in_its_ten_minutes(settings: Settings) -> None:
    events = [asked("a", 1, 125), ended("a", 1, 124, "success"), asked("a", 2, 124), ended("a", 2, 123, "success")]
    events += [asked("b", 1, 1), asked("c", 1, 60), ended("c", 1, 59, "failed")]
    feed = fed(settings, asked("d", 1, 2000), *events)
    lanes = view(feed).lanes
    assert [(each.schedule_id, sum(each.runs), sum(each.failures), each.is_open) for each in lanes] == [
        ("c", 1, 1, False),
        ("b", 1, 0, True),
        ("a", 2, 0, False),
    ]
    # 12:03 is in the last slot, 12:00 to 12:10; 09:58 and 09:59 are twelve and a half slots before.
    (of_a,) = [each for each in lanes if each.schedule_id == "a"]
    assert [number for number, count in enumerate(of_a.runs) if count] == [LANE_SLOTS - 1 - 13]
    day = lanes_of(feed, ["a"], "30d", NOW.timestamp())[0]
    assert (len(day.runs), sum(day.runs)) == (LANE_SLOTS, 2)


def test_a_lane_tells_of_a_retry_of_an_old_run(settings: Settings) -> None:
    feed = fed(settings, asked("a", 1, 30), ended("a", 1, 29, "failed"))
    assert sum(view(feed).lanes[0].failures) == 1
    with open(settings.state_path, "a", encoding="ascii") as log:
        again = {"event": "run_requested", "run_id": "a.1", "schedule_id": "a", "retry_of": 1, "attempt": 2}
        for seq, event in enumerate(
            ({**again, "timestamp": stamp(5)}, ended("a", 1, 4, "success") | {"attempt": 2}), 3
        ):
            log.write(json.dumps({"seq": seq, **event}) + "\n")
    let_read(feed, 4)
    now = view(feed)
    assert now.failing == []
    assert (sum(now.lanes[0].runs), sum(now.lanes[0].failures)) == (1, 0)


def test_the_hour_behind_a_fire_time_is_known_and_has_an_end() -> None:
    history = History()
    specs = {
        "minutely": {"cron": "* * * * *", "dag": "d.yaml", "enabled": True},
        "often": {"cron": "@every 5s", "dag": "d.yaml", "enabled": True},
        "rare": {"cron": "0 0 1 1 *", "dag": "d.yaml", "enabled": True},
    }
    history.apply({"event": "schedules_loaded", "seq": 1, "timestamp": stamp(1), "specs": specs})
    times = FireTimes()
    assert times.refresh(history, 1, NOW, 10)
    fires = {each.schedule_id: each for each in times.soonest(history, NOW, 12)}
    first_s = datetime(2026, 11, 29, 12, 4, tzinfo=UTC).timestamp()
    assert fires["minutely"].at_s == first_s
    assert fires["minutely"].later_s == [first_s + 60 * number for number in range(1, 61)]
    # No closer than a drawing has room for, and to the end of the hour all the same.
    assert fires["often"].later_s[::239] == [fires["often"].at_s + 15, fires["often"].at_s + 3600]
    assert fires["rare"].later_s == []


@pytest.mark.timeout(20)
def test_the_hour_behind_a_fire_time_has_an_end_while_the_clock_is_set_back() -> None:
    history, times = History(), FireTimes()
    spec = {"cron": "*/5 * * * *", "timezone": "Europe/Berlin", "dag": "d.yaml", "enabled": True}
    history.apply({"event": "schedules_loaded", "seq": 1, "timestamp": stamp(1), "specs": {"five": spec}})
    # In Berlin it is 02:50 for the first time; then 02:00 to 03:00 comes once more.
    now = datetime(2026, 10, 25, 0, 50, tzinfo=UTC)
    assert times.refresh(history, 1, now, 10)
    (fire,) = times.soonest(history, now, 12)
    assert fire.at_s == now.timestamp() + 300
    assert fire.later_s == [fire.at_s + 300 * number for number in range(1, 13)]


def test_fire_times_follow_the_clock_and_an_edit_and_forget_what_is_gone() -> None:
    def load(seq: int, specs: dict[str, Any], *removed: str) -> None:
        event = {"event": "schedules_loaded", "seq": seq, "timestamp": stamp(1), "specs": specs, "removed": removed}
        history.apply(event)
        assert times.refresh(history, seq, NOW, 10)

    def soonest(now: datetime) -> list[tuple[str, float]]:
        return [(each.schedule_id, each.at_s - now_s) for each in times.soonest(history, now, 12)]

    history, times, now_s = History(), FireTimes(), NOW.replace(second=0, microsecond=0).timestamp()
    load(1, {name: {"cron": f"{minute} * * * *", "dag": "d.yaml", "enabled": True} for name, minute in
             (("five", 5), ("ten", 10), ("gone", 20), ("edited", 30))})  # fmt: skip
    at = {name: times.at_s(name) for name in ("five", "ten", "gone", "edited")}
    assert soonest(NOW) == sorted(((name, at_s - now_s) for name, at_s in at.items() if at_s), key=lambda row: row[1])
    load(2, {"edited": {"cron": "@every 5s", "dag": "d.yaml", "enabled": True}}, "gone")
    assert soonest(NOW)[0][0] == "edited"
    assert "gone" not in dict(soonest(NOW))
    later = NOW + timedelta(hours=1)
    assert times.refresh(history, 2, later, 10)
    assert all(at_s > later.timestamp() - now_s for _, at_s in soonest(later))
    assert sorted(name for name, _ in soonest(later)) == ["edited", "five", "ten"]


def test_drawings_leave_out_what_is_not_there_and_say_what_they_show() -> None:
    drawn = lane([0, 2, 1], [0, 0, 1], is_open=True, label="3 runs, 1 failed")
    assert drawn.count("M") == 3
    assert 'aria-label="3 runs, 1 failed"' in drawn
    assert "open" not in lane([1], [0], is_open=False, label="1 run")
    assert track([-5, 0, 1800, 9000], 3600, "fires").count("M") == 3
    assert line([None, 1.0, None]).count("<polyline") == 1


def test_an_operator_sees_what_runs_waits_has_failed_and_is_to_come(
    service: Service, dashboard: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    # The clock may pass a fire time meanwhile.
    service.schedule("rare", "*/10 * * * *", service.dag("fine", "true"))
    bad = service.dag("d", "exit 3")
    service.start()
    wait_for(service.is_ready, timeout=30, what="the service")
    dashboard.start()
    page = dashboard.page(browser)
    expect(page.locator("#head .health")).to_contain_text("well")
    expect(page.locator("#failures")).to_contain_text("Nothing failed.")
    expect(page.locator("#fires")).to_contain_text("rare")
    expect(page.locator("#fires svg.track")).to_have_attribute("aria-label", "fires 6 times within an hour")
    for number in range(2):
        service.ask(bad, f"bad.{number}", for_schedule="other", by="x")
    expect(page.locator("#failures")).to_contain_text("2 failures of other", timeout=20_000)
    expect(page.locator("#lanes")).to_contain_text("2 runs, 2 failed")
    slow = service.dag("slow", "while [ ! -e go ]; do sleep 0.1; done")
    service.ask(slow, "long.1", by="x")
    expect(page.locator("#workers .items")).to_contain_text("long.1", timeout=20_000)
    expect(page.locator("#workers h2")).to_contain_text("1 of 2 busy")
    service.ask(slow, "long.2", by="x")
    service.ask(slow, "long.3", by="x")
    expect(page.locator("#waiting")).to_contain_text("long.3", timeout=20_000)
    expect(page.locator("#waiting [data-row]", has_text="long.3")).to_contain_text("waits for a worker")
    (service.root / "go").touch()
    expect(page.locator("#waiting")).to_contain_text("Nothing waits.", timeout=20_000)
    page.click("text=2 failures")
    expect(page.locator("#history-count")).to_have_text("2 runs")
    assert page.errors == []  # type: ignore[attr-defined]


def test_only_what_has_come_is_pointed_out(
    service: Service, dashboard: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    bad = service.dag("d", "exit 3")
    service.start()
    wait_for(service.is_ready, timeout=30, what="the service")
    dashboard.start()
    service.ask(bad, "bad.1", for_schedule="one", by="x")
    wait_for(lambda: dashboard.has_seen("bad.1", "failed"), timeout=30, what="the first failure")
    page = dashboard.page(browser)
    expect(page.locator("#failures [data-row]")).to_have_count(1)
    service.ask(bad, "bad.2", for_schedule="two", by="x")
    expect(page.locator("#failures [data-row]")).to_have_count(2, timeout=20_000)
    expect(page.locator("#failures [data-row].changed")).to_have_count(1)
    expect(page.locator("#failures [data-row].changed")).to_contain_text("bad.2")


def test_a_service_that_is_killed_is_told_of_though_it_left_no_word(
    service: Service, dashboard: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    process = service.start()
    wait_for(service.is_ready, timeout=30, what="the service")
    dashboard.start()
    page = dashboard.page(browser)
    expect(page.locator("#head .health")).to_contain_text("well")
    process.kill()
    process.wait(10)
    expect(page.locator("#head .health")).to_contain_text("down", timeout=20_000)
    expect(page.locator("#alerts")).to_contain_text("the service is down")
