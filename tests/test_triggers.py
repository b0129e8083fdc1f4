"""Triggers: periods, single times, several at once, against sums that are plain to see."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.audit import audit
from scheduler.cron import parse_cron
from scheduler.schedule_model import schedule_from_spec, timing_of
from scheduler.schedule_rules import schedule_from
from scheduler.triggers import AnyOf, Every, Never, Times, Trigger, read_time
from tests.story import Story
from workers.errors import InvalidFile, TickpoolError

START = datetime(2026, 3, 28, 22, 0, tzinfo=UTC)  # Paris turns its clock at 01:00 UTC the next morning
PARIS = ZoneInfo("Europe/Paris")
SECONDS = st.integers(0, 6 * 3600).map(lambda s: START + timedelta(seconds=s))
ZONES = st.sampled_from([UTC, PARIS, ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe")])

every = st.builds(Every, st.integers(1, 5000).map(lambda s: timedelta(seconds=s)), SECONDS)
times = st.lists(SECONDS, max_size=6, unique=True).map(lambda moments: Times(tuple(sorted(moments))))
crons = st.sampled_from([parse_cron("*/7 * * * *"), parse_cron("30 2 * * *"), parse_cron("0 0-5 * * *")])
single = st.one_of(every, times, crons)
triggers: st.SearchStrategy[Trigger] = st.one_of(
    single, st.lists(single, min_size=1, max_size=3).map(lambda found: AnyOf(tuple(found)))
)


def entry(**keys: Any) -> dict[str, Any]:
    return {"id": "poll", "dag": "dags/d.yaml", **keys}


def utc(moments: Any) -> list[datetime]:
    return [moment.astimezone(UTC) for moment in moments]


@given(period=st.integers(1, 4000), anchor=SECONDS, since=SECONDS, hours=st.integers(0, 2))
def test_a_period_has_the_seconds_that_are_whole_multiples_from_its_anchor(
    period: int, anchor: datetime, since: datetime, hours: int
) -> None:
    until = since + timedelta(hours=hours)
    plain = [
        since + timedelta(seconds=second)
        for second in range(1, hours * 3600 + 1)
        if int((since + timedelta(seconds=second) - anchor).total_seconds()) % period == 0
    ]
    assert list(Every(timedelta(seconds=period), anchor).between(since, until)) == plain


@given(found=st.lists(single, min_size=1, max_size=3), since=SECONDS, hours=st.integers(0, 4), zone=ZONES)
def test_several_triggers_have_the_times_of_each_and_a_shared_one_once(
    found: list[Trigger], since: datetime, hours: int, zone: ZoneInfo
) -> None:
    since = since.astimezone(zone)
    until = since.astimezone(UTC) + timedelta(hours=hours)
    plain = sorted({fire for each in found for fire in utc(each.between(since, until))})
    assert utc(AnyOf(tuple(found)).between(since, until)) == plain


@given(trigger=triggers, since=SECONDS, hours=st.integers(0, 4), zone=ZONES)
def test_the_next_the_one_before_and_those_between_are_the_same_times(
    trigger: Trigger, since: datetime, hours: int, zone: ZoneInfo
) -> None:
    since = since.astimezone(zone)
    until = since.astimezone(UTC) + timedelta(hours=hours)
    between = utc(trigger.between(since, until))
    walked: list[datetime] = []
    moment: datetime | None = since
    while moment is not None and (moment := trigger.next(moment)) is not None and moment.astimezone(UTC) <= until:
        walked.append(moment.astimezone(UTC))
        assert moment.tzinfo is zone
        before = trigger.prev((moment.astimezone(UTC) + timedelta(microseconds=1)).astimezone(zone))
        assert before is not None
        assert before.astimezone(UTC) == walked[-1]
        if len(walked) == 300:
            between = between[:300]
            break
    assert walked == between
    last = trigger.prev((until + timedelta(microseconds=1)).astimezone(zone))
    if between and len(between) < 300:
        assert last is not None
        assert last.astimezone(UTC) == between[-1]


def test_what_waits_for_something_else_has_no_times() -> None:
    never = Never("after `extract`")
    assert (never.next(START), never.prev(START), list(never.between(START, START))) == (None, None, [])
    assert never.explain() == "after `extract`"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-23T09:00:00", "2026-11-23T08:00:00+00:00"),
        ("2026-11-23T09:00:00Z", "2026-11-23T09:00:00+00:00"),
        ("2026-11-23T09:00:00-05:00", "2026-11-23T14:00:00+00:00"),
        ("2026-03-29T02:30:00", "2026-03-29T01:00:00+00:00"),  # skipped: the end of the gap
        ("2026-10-25T02:30:00", "2026-10-25T00:30:00+00:00"),  # twice: the first
        ("2026-11-23", "2026-11-22T23:00:00+00:00"),
    ],
)
def test_a_time_without_an_offset_is_read_in_the_zone(text: str, moment: str) -> None:
    assert read_time(text, PARIS).isoformat() == moment


@pytest.mark.parametrize(
    ("keys", "explained"),
    [
        ({"cron": ["0 9 * * *", "0 17 * * MON-FRI"]}, "at 09:00 every day, and at 17:00 on Monday to Friday"),
        ({"every": "90s"}, "every 1m30s"),
        ({"every": 90}, "every 1m30s"),
        (
            {"every": {"period": "1h", "anchor": "2026-11-23T00:00:30Z"}},
            "every 1h, counted from 2026-11-23 00:00:30 UTC",
        ),
        ({"at": ["2026-11-23T09:00:00Z"]}, "at 2026-11-23 09:00:00 UTC"),
        ({"at": "2026-11-23T09:00:00Z", "every": "1d"}, "every 1d, and at 2026-11-23 09:00:00 UTC"),
    ],
)
def test_a_schedule_says_in_words_when_it_fires(keys: dict[str, Any], explained: str) -> None:
    assert schedule_from(entry(**keys)).fires.explain() == explained


TIME = "write ISO 8601 in whole seconds, such as `2026-11-23T09:00:00`, with an offset or in the schedule's zone"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "nothing says when it fires; write `cron`, `every`, `at`, `after` or `on_file`"),
        ({"cron": []}, "nothing says when it fires; write `cron`, `every`, `at`, `after` or `on_file`"),
        ({"every": "0.5s"}, "`every: 500ms` is too short; allowed: 1s and longer"),
        (
            {"every": "soon"},
            "`every`: 'soon' is not a duration; write a number with ms, s, m, h, d or w (`90s`, `1h30m`), "
            "at most 10 years",
        ),
        ({"every": {"period": "90s", "anchor": "noon"}}, f"`every.anchor` 'noon' is no time; {TIME}"),
        ({"at": ["2026-11-31T09:00:00"]}, f"`at` '2026-11-31T09:00:00' is no time; {TIME}"),
        ({"at": ["2026-11-23T09:00:00.5"]}, f"`at` '2026-11-23T09:00:00.5' is no time; {TIME}"),
        (
            {"at": ["2026-11-23T09:00:00", "2026-11-23T08:00:00Z"], "timezone": "Europe/Paris"},
            "`at` has '2026-11-23T08:00:00Z' and '2026-11-23T09:00:00', which are one moment; write it once",
        ),
        ({"cron": ["* * * * *"] * 101}, "`cron` has 101 expressions; at most 100 are allowed"),
        ({"at": [f"20{n:02}-01-01" for n in range(100)] * 101}, "`at` has 10100 times; at most 10000 are allowed"),
    ],
)
def test_times_that_cannot_be_are_refused_in_one_line(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        schedule_from(entry(**keys))
    assert [fault.message for fault in caught.value.faults] == [f"schedule `poll`: {message}"]


@pytest.mark.parametrize(
    ("keys", "messages"),
    [
        ({"crom": "0 9 * * *"}, ["unknown key `crom`; did you mean `cron`?"]),
        ({"evry": "5m", "cron": []}, ["unknown key `evry`; did you mean `every`?"]),
        ({"onfile": "a", "every": "0.5s"}, ["`every: 500ms` is too short; allowed: 1s and longer",
                                            "unknown key `onfile`; did you mean `on_file`?"]),
        ({"tennant": "a"}, ["nothing says when it fires; write `cron`, `every`, `at`, `after` or `on_file`",
                            "unknown key `tennant`; did you mean `tenant`?"]),
    ],
)  # fmt: skip
def test_a_misspelled_key_that_would_say_when_it_fires_is_told_once(keys: dict[str, Any], messages: list[str]) -> None:
    with pytest.raises(InvalidFile) as caught:
        schedule_from(entry(**keys))
    assert sorted(fault.message for fault in caught.value.faults) == [f"schedule `poll`: {each}" for each in messages]


SHAPES: list[dict[str, Any]] = [
    {"cron": "H * * * *"},
    {"cron": ["H 9 * * *", "0 17 * * *"]},
    {"every": "90s"},
    {"every": {"period": "90s", "anchor": "2026-11-23T00:00:30"}, "timezone": "Europe/Paris"},
    {"at": ["2026-12-24T18:00:00", "2027-01-04T06:00:00+01:00"], "timezone": "America/New_York"},
    {"cron": "@daily", "every": "7h", "at": ["2026-12-24T18:00:00"]},
]


@pytest.mark.parametrize("keys", SHAPES, ids=str)
def test_what_is_on_record_of_a_schedule_has_the_same_fire_times(keys: dict[str, Any]) -> None:
    schedule = schedule_from(entry(**keys))
    again = schedule_from_spec("poll", schedule.spec)
    assert again.fires == schedule.fires
    assert hash(again.fires) == hash(schedule.fires)
    since = START.astimezone(schedule.zone)
    assert list(islice(again.fires.between(since, START + timedelta(days=400)), 50)) == list(
        islice(schedule.fires.between(since, START + timedelta(days=400)), 50)
    )
    assert again.spec == schedule.spec


def test_a_plain_schedule_has_the_record_that_it_always_had() -> None:
    spec = schedule_from(entry(cron="@daily")).spec
    assert spec == {"cron": "@daily", "timezone": "UTC", "enabled": True, "dag": "dags/d.yaml"}
    assert timing_of(spec) == {"cron": "@daily", "timezone": "UTC", "enabled": True}


@pytest.mark.parametrize(
    "spec",
    [{"cron": 7}, {"cron": "x"}, {"cron": "@daily", "timezone": []}, {"every": {"period": {}}}, {"at": ["noon"]}],
    ids=str,
)
def test_a_record_that_cannot_be_read_is_told_so(spec: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TickpoolError)):
        schedule_from_spec("poll", spec).fires.next(START)


@pytest.mark.parametrize(
    ("keys", "change", "is_new"),
    [
        ({"every": "90s"}, {"every": "90s", "dag": "dags/other.yaml"}, False),
        ({"every": "90s"}, {"every": "90s", "tenant": "acme", "tags": ["a"]}, False),
        ({"every": "90s"}, {"every": "1m30s"}, False),
        ({"every": "90s"}, {"every": "60s"}, True),
        ({"cron": "@daily"}, {"cron": "@daily", "at": ["2026-12-24T18:00:00"]}, True),
        ({"at": ["2026-12-24T18:00:00"], "cron": "@daily"}, {"cron": "@daily"}, True),
    ],
)
def test_a_schedule_begins_anew_where_its_fire_times_change(
    keys: dict[str, Any], change: dict[str, Any], is_new: bool
) -> None:
    before, after = (timing_of(schedule_from(entry(**each)).spec) for each in (keys, change))
    assert (before != after) is is_new


@pytest.mark.parametrize("keys", SHAPES, ids=str)
def test_the_audit_demands_every_fire_time_and_no_other(tmp_path: Path, keys: dict[str, Any]) -> None:
    def doctored(alter: Callable[[list[str]], list[str]]) -> int:
        place = tmp_path / "doctored.jsonl"
        place.write_text("\n".join(alter(log.read_text().splitlines())) + "\n")
        return len(audit(place, story.now).violations)

    log = tmp_path / "state.jsonl"
    story = Story(log, start=datetime(2026, 12, 24, 8, 30, tzinfo=UTC))
    story.begin(entry(overlap="allow", **keys))
    story.live(60 * 16)
    story.stop()
    assert audit(log, story.now).violations == []
    asked = [line for line in log.read_text().splitlines() if '"schedule_enqueued"' in line]
    assert asked
    assert doctored(lambda lines: [line for line in lines if line != asked[0]])
