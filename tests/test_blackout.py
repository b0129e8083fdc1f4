"""Blackout windows: what is skipped or deferred there, and the one run where they end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from story import Story

from scheduler.ahead import fires_ahead
from scheduler.audit import audit
from scheduler.blackout import Deferring, Period, Repeated, Windows, end_of
from scheduler.cron import parse_cron
from scheduler.history import History
from scheduler.judge import due, judge
from scheduler.schedule_model import Schedule, schedule_from_spec
from scheduler.schedule_rules import schedule_from
from scheduler.schedules import read_configuration
from scheduler.triggers import Every
from workers.events import Event, decode_line, encode_line, iso

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
UTC_ZONE = ZoneInfo("UTC")


def hourly(**fields: Any) -> Schedule:
    return schedule_from({"id": "s", "cron": "0 * * * *", "dag": "dags/d.yaml", **fields})


def lunch(then: str) -> dict[str, Any]:
    return {"from": "2026-11-23T12:00:00", "to": "2026-11-23T14:30:00", "then": then}


def times(schedule: Schedule, since: datetime = NOON - MINUTE, hours: int = 5) -> list[tuple[str, str | None]]:
    return [(f"{fire:%H:%M}", schedule.closed(fire)) for fire in due(schedule, since, since + timedelta(hours=hours))]


# -- windows ------------------------------------------------------------------------------------------------------


def test_a_fire_time_in_a_window_is_closed_from_its_start_up_to_its_end() -> None:
    assert times(hourly(blackout=lunch("skip"))) == [
        ("12:00", "blackout"),
        ("13:00", "blackout"),
        ("14:00", "blackout"),
        ("15:00", None),
        ("16:00", None),
    ]
    until_two = {"from": "2026-11-23T12:00:00", "to": "2026-11-23T14:00:00"}
    assert times(hourly(blackout=until_two))[2] == ("14:00", None)


def test_deferred_fire_times_come_to_one_at_the_end_of_all_windows_that_touch() -> None:
    two = [{"cron": "0 12 * * *", "duration": "1h", "then": "defer"}, {**lunch("defer"), "from": "2026-11-23T13:00:00"}]
    expected = [("12:00", "deferred"), ("13:00", "deferred"), ("14:00", "deferred"), ("14:30", None), ("15:00", None)]
    assert times(hourly(blackout=two))[:5] == expected


def test_where_no_fire_time_lay_in_a_window_there_is_none_at_its_end() -> None:
    short = {"from": "2026-11-23T12:10:00", "to": "2026-11-23T12:50:00", "then": "defer"}
    assert [time for time, _ in times(hourly(blackout=short))] == ["12:00", "13:00", "14:00", "15:00", "16:00"]


def test_an_end_that_is_a_fire_time_itself_is_one_and_one_in_a_window_of_skip_is_skipped() -> None:
    until_two = {"from": "2026-11-23T12:00:00", "to": "2026-11-23T14:00:00", "then": "defer"}
    expected = [("12:00", "deferred"), ("13:00", "deferred"), ("14:00", None), ("15:00", None)]
    assert times(hourly(blackout=until_two))[:4] == expected
    both = [until_two, {"from": "2026-11-23T14:00:00", "to": "2026-11-23T14:01:00"}]
    assert times(hourly(blackout=both))[2] == ("14:00", "blackout")


@pytest.mark.parametrize(("day", "end"), [("2026-03-29", "07:00"), ("2026-10-25", "05:00")])
def test_a_window_lasts_as_long_as_a_stopwatch_says_though_the_clock_is_set(day: str, end: str) -> None:
    paris = hourly(timezone="Europe/Paris", blackout={"cron": "0 0 * * *", "duration": "6h", "then": "defer"})
    start = datetime.fromisoformat(day).replace(tzinfo=paris.zone)
    (ended,) = {end_of([paris.window(each) for each in paris.blackouts], start + timedelta(minutes=1))}
    assert ended is not None
    assert ended.astimezone(paris.zone).strftime("%H:%M") == end
    assert paris.closed(ended) is None
    assert paris.closed(ended - MINUTE) == "deferred"


def windows_of(kinds: list[tuple[int, int, int]]) -> Iterator[Windows]:
    for hour, minutes, kind in kinds:
        if kind:
            yield Repeated(parse_cron(f"{minutes % 60} {hour} * * *"), UTC_ZONE, timedelta(minutes=minutes))
        else:
            start = NOON + timedelta(hours=hour)
            yield Period(start, start + timedelta(minutes=minutes))


def walk(every: int, kinds: list[tuple[int, int, int]], since: int, until: int) -> list[int]:
    """Walk over every minute from a week before: note what is due, and where the windows end that had something.

    Times are minutes since noon.
    """
    inside: set[int] = set()
    for hour, minutes, kind in kinds:
        for day in range(-9, 5) if kind else (0,):
            start = day * 1440 + (hour - 12) * 60 + minutes % 60 if kind else hour * 60
            inside.update(range(start, start + minutes))
    noon = int(NOON.timestamp()) // 60
    found, had_one = [], False
    for minute in range(since - 7 * 1440, until + 1):
        is_due = (noon + minute) % every == 0
        if is_due or (had_one and minute not in inside):
            found.append(minute)
        had_one = minute in inside and (had_one or is_due)
    return [minute for minute in found if minute > since]


KINDS = st.lists(st.tuples(st.integers(0, 23), st.integers(1, 600), st.integers(0, 1)), min_size=1, max_size=3)


@settings(max_examples=100, deadline=None)
@given(every=st.integers(1, 500), kinds=KINDS, start=st.integers(0, 2000))
def test_the_fire_times_with_deferred_ones_are_those_of_a_walk_over_every_minute(
    every: int, kinds: list[tuple[int, int, int]], start: int
) -> None:
    trigger = Deferring(Every(every * MINUTE), tuple(windows_of(kinds)))
    since = NOON + start * MINUTE
    until = since + timedelta(hours=40)
    expected = [NOON + minute * MINUTE for minute in walk(every, kinds, start, start + 40 * 60)]
    assert list(trigger.between(since, until)) == expected
    for earlier, later in pairwise([since, *expected][-300:]):
        assert trigger.next(earlier) == later
    for earlier, later in pairwise(expected[-300:]):
        assert trigger.prev(later) == earlier


# -- verdicts -----------------------------------------------------------------------------------------------------


def judged(schedule: Schedule, now: datetime, *before: Event) -> list[tuple[str, str, str | None]]:
    fires = due(schedule, NOON - MINUTE, now)
    events = judge(schedule, fires, now, History(before), "down")
    told = []
    for event in events:
        minute = event.get("minute") or f"{event['from']}/{event['to']}"
        told.append((event["event"].removeprefix("schedule_"), minute, event.get("reason")))
    return told


def at(hour: int, minute: int = 0) -> str:
    return iso(NOON.replace(hour=hour, minute=minute))


def test_a_closed_fire_time_in_time_is_skipped_with_its_reason() -> None:
    assert judged(hourly(blackout=lunch("skip")), NOON) == [("skipped", at(12), "blackout")]
    assert judged(hourly(blackout=lunch("defer")), NOON) == [("skipped", at(12), "deferred")]


def test_late_ones_are_missed_in_ranges_and_never_caught_up() -> None:
    schedule = hourly(blackout=lunch("defer"), catchup="all", overlap="queue")
    assert judged(schedule, NOON.replace(hour=16)) == [
        ("missed", f"{at(12)}/{at(14)}", "deferred"),
        ("enqueued", at(14, 30), None),
        ("enqueued", at(15), None),
        ("enqueued", at(16), None),
    ]
    evening = {"from": "2026-11-23T15:00:00", "to": "2026-11-24T00:00:00"}
    latest = hourly(blackout=evening, catchup="latest")
    assert judged(latest, NOON.replace(hour=16)) == [
        ("missed", f"{at(15)}/{at(15)}", "blackout"),
        ("skipped", at(16), "blackout"),
        ("missed", f"{at(12)}/{at(13)}", "superseded"),
        ("enqueued", at(14), None),
    ]


def test_a_missed_range_never_covers_a_closed_fire_time_nor_the_other_way_round() -> None:
    windows = {"from": "2026-11-23T13:00:00", "to": "2026-11-23T13:30:00"}
    assert judged(hourly(blackout=windows), NOON.replace(hour=15, minute=30)) == [
        ("missed", f"{at(13)}/{at(13)}", "blackout"),
        ("missed", f"{at(12)}/{at(12)}", "down"),
        ("missed", f"{at(14)}/{at(15)}", "down"),
    ]


WINDOWS = [
    {"cron": "10,40 * * * *", "duration": "7m", "then": "defer"},
    {"cron": "25 */2 * * *", "duration": "20m"},
]


@pytest.mark.parametrize("seed", range(4))
def test_every_fire_time_has_one_verdict_whatever_befalls_the_service(tmp_path: Path, seed: int) -> None:
    entries = [
        {"id": "skips", "cron": "*/2 * * * *", "blackout": WINDOWS},
        {"id": "all", "cron": "*/3 * * * *", "blackout": WINDOWS, "catchup": "all", "overlap": "queue"},
        {"id": "latest", "cron": "* * * * *", "blackout": WINDOWS[0], "catchup": "latest"},
    ]
    story = Story(tmp_path / "log", seed=seed)
    events: list[Event] = []
    story.store.follow(events.append)
    story.begin(*entries)
    for happening in (story.rotate, story.die, story.stop):
        story.live(44)
        happening()
        if happening in (story.die, story.stop):
            story.pass_time(60 * 150)
            story.begin(*entries)
            story.recover()
    story.live(50)
    story.drain()
    story.stop()
    assert audit(tmp_path / "log", story.now, final=True).violations == []
    reasons = {(event["event"], event["reason"]) for event in events if event.get("reason") in ("blackout", "deferred")}
    assert len(reasons) == 4
    made_up = {event["minute"][14:16] for event in events if event["event"] == "schedule_enqueued"} & {"17", "47"}
    assert made_up


@pytest.mark.parametrize("change", ["run", "reason", "open"])
def test_the_audit_knows_which_fire_times_are_closed(tmp_path: Path, change: str) -> None:
    story = Story(tmp_path / "story", seed=1)
    story.begin({"id": "s", "cron": "* * * * *", "blackout": WINDOWS[0], "overlap": "allow"})
    story.live(40)
    story.drain()
    story.stop()
    events = [event for event in map(decode_line, (tmp_path / "story").read_bytes().splitlines(keepends=True)) if event]
    skips = [place for place, event in enumerate(events) if event.get("reason") == "deferred"]
    asks = [place for place, event in enumerate(events) if event["event"] == "schedule_enqueued"]
    if change == "run":
        run = {**events[asks[0]], "minute": events[skips[0]]["minute"], "run_id": "s.other"}
        events[skips[0]] = run
    elif change == "reason":
        events[skips[0]] = {**events[skips[0]], "reason": "blackout"}
    else:
        name = events[asks[3]]["run_id"]
        skip = {"event": "schedule_skipped", "reason": "deferred"}
        events[asks[3]] = {key: events[asks[3]][key] for key in ("schedule_id", "minute", "timestamp", "pid")} | skip
        events = [event for event in events if event.get("run_id") != name]
    lines = [{key: value for key, value in event.items() if key != "crc"} for event in events]
    (tmp_path / "log").write_bytes(b"".join(encode_line({**each, "seq": seq}) for seq, each in enumerate(lines, 1)))
    told = [violation.text for violation in audit(tmp_path / "log", story.now).violations]
    assert any("and by its definition it is" in text for text in told), told


# -- the file -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ({"cron": "0 9 * * *"}, "`blackout` takes `cron` and `duration`, or `from` and `to`; given: `cron`"),
        ({}, "`blackout` takes `cron` and `duration`, or `from` and `to`; given: none"),
        ({"cron": "0 9 * * *", "duration": "1h", "to": "2026-12-24"}, "`blackout` takes `cron` and `duration`, or"),
        ({"cron": "0 25 * * *", "duration": "1h"}, "`blackout`: "),
        ({"cron": "0 9 * * *", "duration": "400d"}, "`blackout.duration: 400d` is out of range; allowed: 1s to 366d"),
        ({"from": "soon", "to": "2026-12-24"}, "`blackout` 'soon' is no time; write ISO 8601"),
        ({"from": "2026-12-24", "to": "2026-12-24"}, "`blackout` ends at '2026-12-24', which is not after its start"),
        ({"from": "2026-12-24", "to": "2026-12-25", "then": "wait"}, 'blackout 1: `then`: "wait" is not one of'),
        (
            {"cron": "0 * * * *", "duration": "1h", "then": "defer"},
            "`blackout` with `then: defer` leaves no gap to run in; make it shorter, or write `skip`",
        ),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_with_its_place_and_the_way_out(
    tmp_path: Path, rule: dict[str, Any], fault: str
) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "d.yaml").write_text("id: d\ntasks: [{id: t, run: 'true'}]\n")
    (tmp_path / "schedules").mkdir()
    text = f"- id: s\n  cron: '0 9 * * *'\n  dag: dags/d.yaml\n  blackout: {json.dumps([rule])}\n"
    (tmp_path / "schedules" / "a.yaml").write_text(text)
    (found,) = read_configuration(tmp_path / "schedules").faults
    assert found.line == 4
    assert found.message.removeprefix("schedule `s`: ").startswith(fault)


def test_what_is_on_record_has_the_same_fire_times_and_closes_the_same() -> None:
    schedule = hourly(blackout=[lunch("defer"), WINDOWS[1]], timezone="Europe/Paris")
    again = schedule_from_spec("s", json.loads(json.dumps(schedule.spec)))
    assert times(again, hours=48) == times(schedule, hours=48)
    assert again.spec["blackout"] == schedule.spec["blackout"]


def test_next_says_which_fire_times_are_not_run() -> None:
    rows = fires_ahead([hourly(blackout=lunch("defer"))], NOON - MINUTE, count=4)
    assert [(row.utc[11:16], row.remark) for row in rows] == [
        ("12:00", "not run: deferred"),
        ("13:00", "not run: deferred"),
        ("14:00", "not run: deferred"),
        ("14:30", None),
    ]
