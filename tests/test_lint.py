"""Lint: each rule names the place, what is wrong and what to write; what it proposes has no remark of the same rule."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.cron import parse_cron
from scheduler.daylight import touched, turns
from scheduler.durations import Durations
from scheduler.expressions import Expression, read_expression
from scheduler.lint import RULES, Remark, lint
from scheduler.lint.clock import clock_change
from scheduler.lint.crowd import duplicate, herd
from scheduler.lint.dates import always_closed, either_day, never_fires, never_fires_again, short_month
from scheduler.lint.finding import Finding, Slip
from scheduler.lint.lengths import certain_overlap, limit_too_short, short_limits
from scheduler.lint.policies import catchup_flood, idle_window
from scheduler.lint.reading import place
from scheduler.lint.rules import find
from scheduler.lint.steps import uneven_step
from scheduler.lint.text import render
from scheduler.schedule_model import Schedule
from scheduler.schedule_rules import schedule_from
from scheduler.schedules import load_schedules
from workers.event_log import EventLog

ROOT = Path(__file__).resolve().parents[1]
NOW = datetime(2026, 11, 24, 12, 0, 30, tzinfo=UTC)
DAG = 'id: d\nparams: {n: 1}\ntasks:\n  - {id: t, run: ["true"]}\n'


def schedule(cron: str | list[str], name: str = "it", **keys: Any) -> Schedule:
    return schedule_from({"id": name, "cron": cron, "dag": "dags/d.yaml", **keys})


def read(text: str) -> Expression:
    expression = read_expression(text, "it")
    assert expression is not None
    return expression


def slips_of(rule: Callable[[Expression], Iterator[Slip]], text: str) -> list[Slip]:
    expression = read_expression(text, "it")
    return [] if expression is None else list(rule(expression))


def texts_of(write: str | list[str] | None) -> list[str]:
    return [] if write is None else [write] if isinstance(write, str) else write


# -- rules about one expression --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "write"),
    [
        ("0 0 31 2 *", "0 0 L 2 *"),
        ("0 0 30 feb *", "0 0 L feb *"),
        ("15 6 31 4,6,9,11 *", "15 6 L 4,6,9,11 *"),
        ("0 0 30W 2 *", "0 0 LW 2 *"),
        ("0 0 30,31 2 ?", "0 0 L 2 ?"),
    ],
)
def test_a_day_that_never_comes_is_mended_by_the_last_of_the_month(text: str, write: str) -> None:
    [slip] = slips_of(never_fires, text)
    assert (slip.rule, slip.write) == ("never-fires", write)
    assert "never fires: no month it allows has such a day" in slip.message
    assert parse_cron(write).next(NOW) is not None


@pytest.mark.parametrize("text", ["0 0 29 2 *", "0 0 31 * *", "0 0 31 2 MON", "0 0 * 2 MON#5", "@yearly", "* * * * *"])
def test_what_fires_some_day_is_not_dead(text: str) -> None:
    assert slips_of(never_fires, text) == []


def test_a_fire_time_that_is_years_off_is_named_with_its_date() -> None:
    [found] = never_fires_again(schedule("0 0 * 2 MON#5"), NOW)
    assert (found.rule, found.message) == ("never-fires", "it fires next on 2044-02-29, in 17 years")
    assert found.write == {"cron": "0 0 * 2 MONL"}
    assert list(never_fires_again(schedule("0 0 29 2 *"), NOW)) == []


def test_a_schedule_whose_fire_times_are_all_past_is_told() -> None:
    end_of_time = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    [found] = never_fires_again(schedule("0 0 * * *"), end_of_time)
    assert found.message == "it never fires again: all its fire times are past"


@pytest.mark.parametrize(
    ("text", "message", "write"),
    [
        (
            "0 0 31 * *",
            "day `31` of the month is skipped in February, April, June, September and November",
            "0 0 L * *",
        ),
        ("0 0 30 * *", "day `30` of the month is skipped in February", "0 0 L * *"),
        ("0 0 29 2 *", "day `29` of the month is skipped in February outside leap years", "0 0 L 2 *"),
        ("0 0 15,31 1-4 *", "day `31` of the month is skipped in February and April", "0 0 15,L 1-4 *"),
        ("0 0 31W 1,4 *", "day `31W` of the month is skipped in April", "0 0 LW 1,4 *"),
        ("0 0 30,31 1,4 *", "day `31` of the month is skipped in April", None),
    ],
)
def test_a_day_that_some_months_lack_is_mended_by_the_last_of_the_month(
    text: str, message: str, write: str | None
) -> None:
    [slip] = slips_of(short_month, text)
    assert (slip.rule, slip.message, slip.write) == ("short-month", message, write)


@pytest.mark.parametrize("text", ["0 0 31 1,3 *", "0 0 28 * *", "0 0 L * *", "0 0 28-31 * *", "0 0 31 2 *", "@monthly"])
def test_a_day_that_all_its_months_have_is_not_short(text: str) -> None:
    assert slips_of(short_month, text) == []


@pytest.mark.parametrize(
    ("text", "write"),
    [
        ("0 0 13 * FRI", ["0 0 13 * *", "0 0 * * FRI"]),
        ("0 0 1-7 * mon", "0 0 * * MON#1"),
        ("0 0 8-14 * MON", "0 0 * * MON#2"),
        ("30 6 25-31 3 5", "30 6 * 3 5L"),
        ("0 0 8-14 * MON,TUE", ["0 0 8-14 * *", "0 0 * * MON,TUE"]),
        ("0 0 L * SUN", ["0 0 L * *", "0 0 * * SUN"]),
        ("0 0 30 2 FRI", "0 0 * 2 FRI"),
    ],
)
def test_two_day_fields_are_told_to_mean_either(text: str, write: str | list[str]) -> None:
    [slip] = slips_of(either_day, text)
    assert (slip.rule, slip.write) == ("either-day", write)
    assert slip.message == f"either day is enough: `{text}` fires {parse_cron(text).explain()}"


@pytest.mark.parametrize("text", ["0 0 13 * FRI", "0 0 8-14 * MON,TUE", "0 0 L * SUN"])
def test_the_two_expressions_that_are_proposed_can_be_loaded_and_fire_as_the_one_does(text: str) -> None:
    [slip] = slips_of(either_day, text)
    both = schedule(json.loads(json.dumps(slip.write)))
    until = NOW + timedelta(days=800)
    assert list(both.fires.between(NOW, until)) == list(parse_cron(text).between(NOW, until))
    assert all(not slips_of(either_day, each) for each in both.expressions)


@pytest.mark.parametrize("text", ["0 0 13 * *", "0 0 * * FRI", "0 0 ? * FRI", "0 0 */2 * FRI", "@every 2d"])
def test_one_day_field_means_what_it_says(text: str) -> None:
    assert slips_of(either_day, text) == []


@pytest.mark.parametrize(
    ("text", "message", "write"),
    [
        ("*/7 * * * *", "`*/7` in the minutes is not every 7 minutes: from :56 to :00 it is 4 minutes", "@every 7m"),
        (
            "*/7 9-17 * * *",
            "`*/7` in the minutes is not every 7 minutes: from :56 to :00 it is 4 minutes",
            "*/6 9-17 * * *",
        ),
        ("3/7 * * * *", "`3/7` in the minutes is not every 7 minutes: from :59 to :03 it is 4 minutes", "3/6 * * * *"),
        (
            "6-59/8 * * * *",
            "`6-59/8` in the minutes is not every 8 minutes: from :54 to :06 it is 12 minutes",
            "0/6 * * * *",
        ),
        ("0 */5 * * *", "`*/5` in the hours is not every 5 hours: from 20:00 to 00:00 it is 4 hours", "@every 5h"),
        ("30 */5 * * *", "`*/5` in the hours is not every 5 hours: from 20:00 to 00:00 it is 4 hours", "30 */4 * * *"),
        (
            "0 0 */2 * *",
            "`*/2` in the days of the month is not every 2 days: from the 31st to the 1st it is 1 day",
            "@every 2d",
        ),
        (
            "0 9 */2 * *",
            "`*/2` in the days of the month is not every 2 days: from the 31st to the 1st it is 1 day",
            "0 9 * * MON,WED,FRI",
        ),
        (
            "0 9 */10 * *",
            "`*/10` in the days of the month is not every 10 days: from the 31st to the 1st it is 1 day",
            "0 9 1,11,21 * *",
        ),
        (
            "0 9 1 */5 *",
            "`*/5` in the months is not every 5 months: from November to January it is 2 months",
            "0 9 1 */4 *",
        ),
        (
            "0 9 1 5/5 *",
            "`5/5` in the months is not every 5 months: from October to May it is 7 months",
            "0 9 1 1/4 *",
        ),
        (
            "0 9 * * */2",
            "`*/2` in the days of the week is not every 2 days: from Saturday to Sunday it is 1 day",
            "0 9 * * MON,WED,FRI",
        ),
    ],
)
def test_a_step_that_does_not_divide_its_field_is_told_with_the_real_gap(text: str, message: str, write: str) -> None:
    [slip] = slips_of(uneven_step, text)
    assert (slip.rule, slip.message, slip.write) == ("uneven-step", message, write)


@pytest.mark.parametrize(
    "text",
    [
        "*/15 * * * *",
        "5/15 * * * *",
        "10-50/7 * * * *",
        "*/7 9 * * *",
        "*/7 9,11 * * *",
        "0 */6 * * *",
        "0 */5 * * MON",
        "0 */5 1,3 * *",
        "0 0 */31 * *",
        "0 0 H/5 * *",
        "0 0 * * */4",
        "0 0 1 */6 *",
        "@every 7m",
    ],
)
def test_a_step_whose_gaps_are_equal_or_lie_between_other_times_is_none(text: str) -> None:
    assert slips_of(uneven_step, text) == []


def test_the_gap_that_an_uneven_step_names_is_one_between_real_fire_times() -> None:
    for step in range(2, 60):
        for slip in slips_of(uneven_step, f"*/{step} * * * *"):
            named = re.search(r"it is (\d+) minute", slip.message)
            assert named
            fires = list(parse_cron(f"*/{step} * * * *").between(NOW, NOW + timedelta(hours=3)))
            gaps = {int((later - fire).seconds / 60) for fire, later in pairwise(fires)}
            assert gaps == {step, int(named[1])}


numbers = st.integers(0, 59)
steps = st.integers(2, 31)
minutes = st.one_of(
    st.just("0"),
    numbers.map(str),
    steps.map(lambda n: f"*/{n}"),
    st.builds(lambda a, n: f"{a}/{n}", numbers, steps),
    steps.map(lambda n: f"H/{n}"),
)
hours = st.one_of(st.sampled_from(["*", "9-17", "0", "2", "1,2,3", "22-3"]), st.integers(2, 23).map(lambda n: f"*/{n}"))
days = st.one_of(
    st.sampled_from(["*", "?", "1-7", "8-14", "25-31", "29", "30", "31", "15,31", "31W", "30W", "L", "29,30"]),
    st.integers(2, 31).map(lambda n: f"*/{n}"),
)
months = st.one_of(
    st.sampled_from(["*", "2", "4,6", "2-3", "FEB"]), st.integers(2, 12).map(lambda n: f"*/{n}"), st.just("3/5")
)
weekdays = st.one_of(st.sampled_from(["*", "?", "FRI", "MON,TUE", "MON#5", "5L"]), st.just("*/2"), st.just("*/3"))


@settings(max_examples=600, deadline=None)
@given(st.tuples(minutes, hours, days, months, weekdays).map(" ".join))
def test_a_proposed_expression_can_be_read_and_has_no_remark_of_its_rule(text: str) -> None:
    for rule in (never_fires, short_month, either_day, uneven_step):
        # One expression may have two uneven fields; each proposal mends one.
        seen = slips_of(rule, text)
        for slip in seen:
            for written in texts_of(slip.write):
                assert written.upper() != text.upper()
                if rule is not never_fires and not read(text).ever_fires():
                    continue
                parse_cron(written, seed="it")
                left = slips_of(rule, written)
                assert len(left) < len(seen), (text, written)


# -- times of day that a clock leaves out or doubles -----------------------------------------------------------------

ZONES = [
    ("America/New_York", datetime(2026, 11, 24, tzinfo=UTC)),
    ("Europe/London", datetime(2026, 11, 24, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 11, 24, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2026, 11, 24, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2017, 6, 1, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2026, 11, 24, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2010, 6, 1, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2026, 11, 24, tzinfo=UTC)),
    ("Africa/Casablanca", datetime(2024, 6, 1, tzinfo=UTC)),
]
AHEAD = timedelta(days=730)


def brute_force(text: str, zone: ZoneInfo, now: datetime) -> tuple[set[datetime], set[datetime]]:
    """Return the wall clocks of two years that do not come and those that come twice, by PEP 495 alone."""
    gone, doubled = set(), set()
    for fire in parse_cron(text, seed="it").between(now, now + AHEAD):
        wall = fire.replace(tzinfo=None)
        first, second = (wall.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
        assert first is not None
        assert second is not None
        if second > first:
            gone.add(wall)
        elif second < first:
            doubled.add(wall)
    return gone, doubled


walls = st.tuples(
    st.sampled_from(["0", "15", "30", "*/20", "H", "0,45"]),
    st.sampled_from(["0", "1", "2", "3", "23", "*", "0-3", "22-1", "*/2", "5", "12"]),
    st.sampled_from(["*", "*", "10-16", "25-31", "30"]),
    st.sampled_from(["*", "*", "3,10,11"]),
    st.sampled_from(["*", "*", "SUN", "FRI"]),
).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(walls, st.sampled_from(ZONES))
def test_the_times_of_day_that_turns_touch_are_those_of_brute_force(text: str, where: tuple[str, datetime]) -> None:
    name, now = where
    zone = ZoneInfo(name)
    gone, doubled = brute_force(text, zone, now)
    found: dict[bool, set[datetime]] = {True: set(), False: set()}
    for turn in turns(zone, now, now + AHEAD):
        found[turn.is_forward] |= set(touched(read(text), turn))
    assert (found[True], found[False]) == (gone, doubled)


@settings(max_examples=150, deadline=None)
@given(walls, st.sampled_from(ZONES))
def test_the_rule_tells_exactly_the_schedules_that_brute_force_finds(text: str, where: tuple[str, datetime]) -> None:
    name, now = where
    gone, doubled = brute_force(text, ZoneInfo(name), now)
    found = list(clock_change(schedule(text, timezone=name), now))
    follows_clock = text.split()[1].startswith("*")
    assert bool(found) is (bool(gone | doubled) and not follows_clock)
    for remark in found:
        assert ("not come" in remark.message, "twice" in remark.message) == (bool(gone), bool(doubled))
        for wall in sorted(gone)[:1] + sorted(doubled)[:1]:
            assert f"{wall:%H:%M}" in remark.message
            assert f"{wall:%Y-%m-%d}" in remark.message
        mended = schedule(**{"cron": text, "timezone": name} | remark.write)
        assert remark.write
        assert list(clock_change(mended, now)) == []


@pytest.mark.parametrize(
    ("text", "zone", "message", "write"),
    [
        (
            "30 2 * * *",
            "America/New_York",
            "02:30 does not come on 2027-03-14, 2028-03-12 (clock 02:00 -> 03:00): fires at 03:00",
            {"cron": "30 3 * * *"},
        ),
        (
            "30 2,3 * * *",
            "America/New_York",
            "02:30 does not come on 2027-03-14, 2028-03-12 (clock 02:00 -> 03:00): fires at 03:00",
            {"cron": "30 3,4 * * *"},
        ),
        (
            "30 1 * * *",
            "America/New_York",
            "01:30 comes twice on 2027-11-07, 2028-11-05 (clock 02:00 -> 01:00): fires the first time",
            {"cron": "30 0 * * *"},
        ),
        (
            "*/20 0 * * *",
            "Africa/Cairo",
            "00:00 to 00:40 do not come on 2027-04-30, 2028-04-28 (clock 00:00 -> 01:00): do not fire",
            {"cron": "*/20 1 * * *"},
        ),
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "02:15 does not come on 2027-10-03, 2028-10-01 (clock 02:00 -> 02:30): fires at 02:30",
            {"cron": "15 3 * * *"},
        ),
        (
            "0 0-5 * * *",
            "Europe/London",
            "01:00 does not come on 2027-03-28, 2028-03-26 (clock 01:00 -> 02:00): fires at 02:00;"
            " 01:00 comes twice on 2027-10-31, 2028-10-29 (clock 02:00 -> 01:00): fires the first time",
            {"timezone": "UTC"},
        ),
    ],
)
def test_a_time_of_day_in_a_gap_or_a_fold_is_told_with_its_dates(
    text: str, zone: str, message: str, write: dict[str, str]
) -> None:
    [found] = clock_change(schedule(text, timezone=zone), NOW)
    assert (found.rule, found.message, found.write) == ("clock-change", message, write)


# -- policies --------------------------------------------------------------------------------------------------------


def mended(cron: str, found: Finding, **keys: Any) -> Schedule:
    return schedule(**{"cron": cron, **keys, **found.write})


@pytest.mark.parametrize(
    ("cron", "window", "write"),
    [
        ("@daily", "2d", "12h"),
        ("@daily", "1d", "12h"),
        ("@hourly", "1h", "30m"),
        ("@every 3s", "3s", "1s"),
        ("* * * * *", "1h", "30s"),
    ],
)
def test_a_window_that_cuts_nothing_off_is_told(cron: str, window: str, write: str) -> None:
    keys = {"catchup": "latest", "catchup_window": window}
    [found] = idle_window(schedule(cron, **keys), NOW)
    assert (found.rule, found.write) == ("idle-window", {"catchup_window": write})
    assert found.message.startswith(f"`catchup_window: {window}` cuts nothing off")
    assert list(idle_window(mended(cron, found, **keys), NOW)) == []


@pytest.mark.parametrize(
    ("cron", "keys"),
    [
        ("@daily", {"catchup": "latest", "catchup_window": "23h"}),
        ("0 9 * * MON-FRI", {"catchup": "latest", "catchup_window": "2d"}),  # a weekend is longer
        ("@daily", {"catchup": "latest"}),
        ("@daily", {"catchup": "all", "catchup_window": "2d", "overlap": "queue"}),
    ],
)
def test_a_window_that_may_cut_something_off_is_none(cron: str, keys: dict[str, str]) -> None:
    assert list(idle_window(schedule(cron, **keys), NOW)) == []


@pytest.mark.parametrize(
    ("cron", "window", "write"),
    [("*/5 * * * *", "7d", "8h"), ("*/5 * * * *", None, "8h"), ("@hourly", "30d", "4d"), ("@every 1s", "1h", "1m")],
)
def test_a_window_that_holds_a_flood_is_told(cron: str, window: str | None, write: str) -> None:
    keys = {"catchup": "all", "overlap": "queue"} | ({"catchup_window": window} if window else {})
    [found] = catchup_flood(schedule(cron, **keys), NOW)
    assert (found.rule, found.write) == ("catchup-flood", {"catchup_window": write})
    assert found.at == (("catchup_window",) if window else ("catchup",))
    assert list(catchup_flood(mended(cron, found, **keys), NOW)) == []


def test_a_window_of_a_hundred_runs_and_one_of_the_latest_are_no_flood() -> None:
    queue = {"overlap": "queue"}
    assert list(catchup_flood(schedule("*/5 * * * *", catchup="all", catchup_window="500m", **queue), NOW)) == []
    assert list(catchup_flood(schedule("* * * * *", catchup="latest"), NOW)) == []


# -- history ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit_s", "taken", "longer"),
    [
        (30, Durations(20, 10, 31, 40), 60),
        (30, Durations(20, 10, 30, 40), None),
        (30, Durations(19, 10, 31, 40), None),
        (0.5, Durations(100, 0.4, 0.6, 0.6), 1),
        (3600, Durations(100, 1e4, 2e5, 3e5), 6 * 86400),
    ],
)
def test_a_limit_below_the_95th_percentile_of_enough_runs_is_too_short(
    limit_s: float, taken: Durations, longer: float | None
) -> None:
    assert limit_too_short(limit_s, taken) == longer
    if longer is not None:
        assert limit_too_short(longer, taken) is None


def test_a_timeout_that_runs_exceed_is_told_with_what_they_took() -> None:
    taken = Durations(120, 20.0, 41.26, 55.0)
    [found] = short_limits(schedule("@daily", timeout="30s"), taken)
    assert found.message == "`timeout: 30s` is shorter than the runs take: 5 % of 120 took 41s or longer"
    assert (found.rule, found.at, found.write) == ("short-timeout", ("timeout",), {"timeout": "2m"})
    assert list(short_limits(schedule("@daily", **found.write), taken)) == []
    assert list(short_limits(schedule("@daily"), taken)) == []


def test_a_deadline_that_runs_exceed_is_told_beside_a_timeout_that_leaves_room() -> None:
    taken = Durations(120, 20.0, 41.26, 55.0)
    [found] = short_limits(schedule("@daily", deadline="40s", timeout="10m"), taken)
    assert found.message == "`deadline: 40s` is shorter than the runs take: 5 % of 120 took 41s or longer"
    assert (found.rule, found.at, found.write) == ("short-deadline", ("deadline",), {"deadline": "2m"})
    assert list(short_limits(schedule("@daily", deadline="42s"), taken)) == []


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"overlap": "replace"}, "each run is ended by the next, and none succeeds"),
        (
            {"overlap": "queue", "max_queued": 3},
            "3 runs wait at all times, and every second fire time is skipped",
        ),
    ],
)
def test_what_follows_from_runs_that_are_too_long_is_told_as_the_policy_has_it(keys: dict[str, Any], told: str) -> None:
    [found] = certain_overlap(schedule("*/5 * * * *", **keys), Durations(40, 400.0, 500.0, 600.0), NOW)
    assert found.message.endswith(f": {told}")


@pytest.mark.parametrize(
    ("cron", "overlap", "p50_s", "told", "write"),
    [
        ("*/5 * * * *", "skip", 301.0, "every second fire time is skipped", {"cron": "*/10 * * * *"}),
        ("*/5 * * * *", "skip", 700.0, "2 of 3 fire times are skipped", {"cron": "*/15 * * * *"}),
        ("* * * * *", "queue", 90.0, "the queue grows without bound, by 20 runs an hour", {"cron": "*/2 * * * *"}),
        ("*/30 * * * *", "queue", 7200.0, "the queue grows without bound, by 2 runs an hour", {"cron": "0 */3 * * *"}),
        ("@daily", "queue", 100000.0, "the queue grows without bound, by 0.1 runs a day", {}),
        ("0 */6 * * *", "skip", 30000.0, "every second fire time is skipped", {}),
    ],
)
def test_runs_longer_than_their_interval_are_told_with_what_follows(
    cron: str, overlap: str, p50_s: float, told: str, write: dict[str, str]
) -> None:
    taken = Durations(40, p50_s, p50_s * 2, p50_s * 3)
    [found] = certain_overlap(schedule(cron, overlap=overlap), taken, NOW)
    assert (found.rule, found.write) == ("certain-overlap", write)
    assert told in found.message
    if write:
        assert list(certain_overlap(schedule(**write, overlap=overlap), taken, NOW)) == []


@pytest.mark.parametrize(
    ("overlap", "taken"),
    [
        ("skip", Durations(40, 300, 900, 900)),
        ("skip", Durations(19, 400, 900, 900)),
        ("allow", Durations(40, 400, 9, 9)),
    ],
)
def test_runs_that_fit_or_may_overlap_or_are_too_few_are_not_told(overlap: str, taken: Durations) -> None:
    assert list(certain_overlap(schedule("*/5 * * * *", overlap=overlap), taken, NOW)) == []


# -- many schedules --------------------------------------------------------------------------------------------------


def many(count: int, cron: str, **keys: Any) -> list[Schedule]:
    return [schedule(cron, f"s{number}", params={"n": number}, **keys) for number in range(count)]


def test_a_herd_is_told_once_with_its_minute_and_mended_by_h() -> None:
    schedules = [*many(25, "0 3 * * *"), schedule("0 3 * * MON", "weekly"), schedule("7 4 * * *", "alone")]
    [found] = herd(schedules, NOW, 3)
    assert found.rule == "herd"
    assert found.message == (
        "26 schedules fire at 2026-11-30 03:00 UTC, and 3 run at a time: `s0`, `s1`, `s2` and 23 more can be spread"
    )
    assert found.write == {"cron": "H 3 * * *"}
    assert found.schedules == (*(f"s{number}" for number in range(25)), "weekly")
    assert list(herd(many(25, "H 3 * * *"), NOW, 3)) == []


def test_a_herd_is_more_than_ten_and_more_than_the_workers() -> None:
    assert list(herd(many(10, "0 3 * * *"), NOW, 3)) == []
    assert len(list(herd(many(11, "0 3 * * *"), NOW, 10))) == 1
    assert list(herd(many(11, "0 3 * * *"), NOW, 11)) == []


def test_a_herd_meets_across_zones_and_steps() -> None:
    schedules = [
        *many(4, "*/15 * * * *"),
        *(schedule("0 4 * * *", f"paris{n}", timezone="Europe/Paris") for n in range(4)),
        *(schedule("@hourly", f"hourly{n}") for n in range(4)),
    ]
    [found] = herd(schedules, NOW, 3)
    assert found.message.startswith("12 schedules fire at 2026-11-25 03:00 UTC")
    assert found.write == {"cron": "H/15 * * * *"}


def test_a_herd_of_periods_is_told_and_those_of_another_period_are_not_part_of_it() -> None:
    schedules = [*many(11, "@every 1h"), schedule("@every 7h", "rare"), schedule("@every 90s", "often")]
    found = list(herd(schedules, NOW, 3))
    assert [(each.write, len(each.schedules)) for each in found] == [({}, 13)]
    assert list(herd(many(10, "@every 1h"), NOW, 3)) == []


def test_a_herd_that_cannot_be_spread_is_told_once_without_a_text_to_write() -> None:
    [found] = herd(many(12, "* * * * *"), NOW, 3)
    assert (found.write, len(found.schedules)) == ({}, 12)
    assert found.mend == "spread them by `jitter`, let some of them fire less often, or raise SCHED_MAX_PARALLEL"


def test_a_jitter_of_a_minute_or_more_has_spread_a_herd() -> None:
    assert list(herd(many(12, "* * * * *", jitter="1m"), NOW, 3)) == []
    [found] = herd([*many(12, "* * * * *", jitter="59s"), schedule("* * * * *", "spread", jitter="10m")], NOW, 3)
    assert len(found.schedules) == 12


@settings(max_examples=25, deadline=None)
@given(st.integers(11, 40), st.sampled_from(["0 3 * * *", "@hourly", "30 9-17 * * MON-FRI", "*/30 * * * *"]))
def test_a_herd_that_was_spread_is_none(count: int, cron: str) -> None:
    schedules = many(count, cron)
    [found] = herd(schedules, NOW, 3)
    assert len(found.schedules) == count
    assert list(herd(many(count, found.write["cron"]), NOW, 3)) == []


def test_two_schedules_that_do_the_same_are_told_and_others_are_not() -> None:
    twin = schedule("0 3 * * *", "twin", params={"a": 1, "b": 2}, tags=["other"])
    first = schedule("0 3 * * *", "first", params={"b": 2, "a": 1})
    others = [
        schedule("0 3 * * *", "other_params", params={"a": 2}),
        schedule("0 3 * * *", "other_tenant", params={"a": 1, "b": 2}, tenant="t"),
        schedule("0 3 * * *", "other_zone", params={"a": 1, "b": 2}, timezone="Asia/Tokyo"),
        schedule("0 4 * * *", "other_time", params={"a": 1, "b": 2}),
    ]
    [found] = duplicate([first, *others, twin])
    assert (found.rule, found.schedule_id, found.schedules) == ("duplicate", "twin", ("twin", "first"))


def test_a_schedule_that_is_disabled_has_no_remark() -> None:
    cases = [schedule("*/7 * * * *", "a", enabled=False), *many(30, "0 0 31 * *", enabled=False)]
    assert list(find(cases, NOW, {}, 3)) == []


# -- files, places, the command --------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("schedules", "dags"):
        (tmp_path / name).mkdir()
    (tmp_path / "dags" / "d.yaml").write_text(DAG)
    return tmp_path


Look = Callable[..., list[Remark]]


@pytest.fixture
def look(project: Path) -> Look:
    """Write a schedule file and return its remarks, without faults."""

    def run(text: str, durations: Mapping[str, Durations] | None = None) -> list[Remark]:
        (project / "schedules" / "a.yaml").write_text(text)
        found = lint(project / "schedules", NOW, durations or {}, 3)
        assert found.faults == []
        return found.remarks

    return run


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ('- id: a\n  cron: "*/7 * * * *"\n  dag: dags/d.yaml\n', [(2, 9, "uneven-step")]),
        ('- {id: a, dag: dags/d.yaml, cron: "0 0 31 2 *"}\n', [(1, 35, "never-fires")]),
        (
            "- {id: a, dag: dags/d.yaml, cron: '*/7 * * * *'}\n"
            "# a remark\n"
            "- dag: dags/d.yaml\n"
            "  catchup: latest\n"
            "  catchup_window: 3d\n"
            "  cron: '30 2 * * *'\n"
            "  timezone: America/New_York\n"
            "  timeout: 1s\n"
            "  id: b\n",
            [
                (1, 35, "uneven-step"),
                (5, 19, "idle-window"),
                (6, 9, "clock-change"),
                (8, 12, "short-timeout"),
            ],
        ),
        (
            "[{id: b, cron: '0 4 * * *', dag: dags/d.yaml}, {id: c, cron: '*/7 * * * *', dag: dags/d.yaml}]\n",
            [(1, 62, "uneven-step")],
        ),
        (
            "- {id: a, cron: '@daily', dag: dags/d.yaml}\n- {id: b, cron: '@daily', dag: dags/d.yaml}\n",
            [(2, 3, "duplicate")],
        ),
    ],
)
def test_a_remark_is_placed_at_the_value_to_mend(look: Look, text: str, places: list[tuple[int, int, str]]) -> None:
    found = look(text, {"b": Durations(30, 1.0, 2.0, 3.0)})
    assert [(remark.line, remark.col, remark.rule) for remark in found] == places


def test_a_matrix_is_told_once_for_what_its_entry_says_and_for_each_run_that_took_too_long(look: Look) -> None:
    found = look(
        "- {id: m, cron: 'H/7 * * * *', dag: dags/d.yaml, timeout: 5s, matrix: {n: [1, 2, 3]}}\n",
        {"m.1": Durations(20, 1, 1, 1), "m.2": Durations(20, 1, 9, 9), "m.3": Durations(20, 1, 9, 9)},
    )
    assert [(each.rule, each.schedule_id, each.schedules, each.col) for each in found] == [
        ("uneven-step", "m", ("m.1", "m.2", "m.3"), 17),
        ("short-timeout", "m.2", ("m.2",), 59),
        ("short-timeout", "m.3", ("m.3",), 59),
    ]


def test_a_matrix_hashes_as_one_so_it_is_not_told_to_write_h(look: Look) -> None:
    [found] = look(f"- {{id: m, cron: '0 3 * * *', dag: dags/d.yaml, matrix: {{n: {list(range(12))}}}}}\n")
    assert (found.rule, found.write, len(found.schedules)) == ("herd", {}, 12)


def test_a_dead_expression_is_a_remark_and_the_schedules_beside_it_are_looked_at(look: Look) -> None:
    found = look(
        "- {id: dead, cron: '0 0 31 2 *', dag: dags/d.yaml}\n- {id: a, cron: '*/7 * * * *', dag: dags/d.yaml}\n"
    )
    assert [(remark.rule, remark.schedule_id) for remark in found] == [("never-fires", "dead"), ("uneven-step", "a")]
    assert found[0].write == {"cron": "0 0 L 2 *"}


def test_a_fault_stays_a_fault_and_keeps_only_its_own_schedule_from_being_looked_at(project: Path) -> None:
    (project / "schedules" / "a.yaml").write_text(
        "- {id: bad, cron: '61 * * * *', dag: dags/d.yaml}\n"
        "- {id: dead, cron: '0 0 31 2 *', dag: dags/none.yaml}\n"
        "- {id: a, cron: '*/7 * * * *', dag: dags/d.yaml}\n"
    )
    (project / "schedules" / "b.yaml").write_text("- {id: b, cron: '*/7 * * * *', dag: dags/d.yaml, params: {n: 2}}\n")
    found = lint(project / "schedules", NOW, {}, 3)
    assert [(Path(fault.path).name, fault.line) for fault in found.faults] == [("a.yaml", 1)]
    assert [(Path(remark.file).name, remark.line) for remark in found.remarks] == [
        ("a.yaml", 2),
        ("a.yaml", 3),
        ("b.yaml", 1),
    ]


def test_a_file_that_is_no_yaml_is_a_fault(project: Path) -> None:
    (project / "schedules" / "a.yaml").write_text("- {id: a\n")
    found = lint(project / "schedules", NOW, {}, 3)
    assert (len(found.faults), found.remarks) == (1, [])


def test_a_fault_of_a_file_as_a_whole_and_an_entry_that_is_no_mapping_stay_faults(project: Path) -> None:
    (project / "schedules" / "a.yaml").mkdir()
    (project / "schedules" / "b.yaml").write_text("- just a text\n- {id: b, cron: '*/7 * * * *', dag: dags/d.yaml}\n")
    found = lint(project / "schedules", NOW, {}, 3)
    assert [(Path(fault.path).name, fault.line) for fault in found.faults] == [("a.yaml", 0), ("b.yaml", 1)]
    assert [(Path(remark.file).name, remark.line) for remark in found.remarks] == [("b.yaml", 2)]


def test_a_file_that_has_changed_since_gives_the_place_of_the_schedule_as_it_was(project: Path) -> None:
    file = project / "schedules" / "a.yaml"
    file.write_text("# a remark\n- {id: a, cron: '*/7 * * * *', dag: dags/d.yaml}\n")
    findings = list(find(load_schedules(project / "schedules"), NOW, {}, 3))
    assert [(remark.line, remark.col) for remark in place(findings)] == [(2, 17)]
    for text in ("", "- {id: other}\n", "- {id: a"):
        file.write_text(text)
        assert [(remark.line, remark.col) for remark in place(findings)] == [(2, 1)]
    file.unlink()
    assert [(remark.line, remark.col) for remark in place(findings)] == [(2, 1)]


def test_a_remark_is_wrapped_to_a_terminal_and_never_inside_what_people_copy(look: Look) -> None:
    [remark] = look('- id: a\n  cron: "*/7 * * * *"\n  dag: dags/d.yaml\n')
    lines = render(remark, 60).splitlines()
    assert lines[0].startswith(f"{remark.file}:2:9:")
    assert all(len(line) <= 60 for line in lines[1:])
    assert any("`*/7`" in line for line in lines)
    assert any('`cron: "@every 7m"`' in line for line in lines)
    assert render(remark, None).splitlines() == [
        f"{remark.file}:2:9: uneven-step: schedule `a`: `*/7` in the minutes is not every 7 minutes:"
        " from :56 to :00 it is 4 minutes",
        '  mend: write `cron: "@every 7m"`: always as long; it counts from 1970, not anew with each hour',
    ]


Lint = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(project: Path) -> Lint:
    def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
        line = [sys.executable, "-m", "scheduler.cli", "lint", *words]
        return subprocess.run(line, cwd=project, env=env, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_the_command_exits_0_without_remarks_1_with_some_and_2_on_bad_input(project: Path, command: Lint) -> None:
    file = project / "schedules" / "a.yaml"
    file.write_text("- {id: a, cron: '0 4 * * *', dag: dags/d.yaml}\n")
    clean = command()
    assert (clean.returncode, clean.stderr) == (0, "")
    assert clean.stdout.startswith("1 schedule(s), 0 remark(s); no ends of runs in logs/orchestrator_state.jsonl")
    file.write_text("- {id: a, cron: '0 0 31 2 *', dag: dags/d.yaml}\n")
    dead = command()
    assert (dead.returncode, dead.stderr) == (1, "")
    assert dead.stdout.startswith(
        "schedules/a.yaml:1:17: never-fires: schedule `a`: `0 0 31 2 *` (at 00:00 on the 31st"
    )
    file.write_text("- {id: a, cron: '61 * * * *', dag: dags/d.yaml}\n")
    bad = command()
    assert bad.returncode == 2
    assert bad.stderr.startswith("schedules/a.yaml:1:17: schedule `a`: cron `61 * * * *`")
    assert command("--dir", "nowhere").returncode == 2
    missing = command("--log", "nowhere.jsonl")
    assert (missing.returncode, missing.stderr) == (2, "nowhere.jsonl: cannot be read: there is no such log\n")


def test_the_command_reads_history_from_the_log_and_prints_json(project: Path, command: Lint) -> None:
    (project / "schedules" / "a.yaml").write_text("- {id: a, cron: '*/5 * * * *', dag: dags/d.yaml, timeout: 6m}\n")
    log = EventLog(project / "state.jsonl", fsync="off")
    for _ in range(20):
        log.append({"event": "run_finished", "schedule_id": "a", "status": "success", "duration_s": 400.0})
    log.close()
    done = command("--json", "--log", "state.jsonl")
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert {key: told[key] for key in ("schedules", "log", "with_history", "faults")} == {
        "schedules": 1,
        "log": "state.jsonl",
        "with_history": 1,
        "faults": [],
    }
    assert [(each["line"], each["col"], each["rule"], each["write"]) for each in told["remarks"]] == [
        (1, 17, "certain-overlap", {"cron": "*/10 * * * *"}),
        (1, 59, "short-timeout", {"timeout": "10m"}),
    ]
    assert json.loads(command("--json", STATE_STORE_PATH="state.jsonl").stdout)["remarks"] == told["remarks"]


def test_the_reference_has_every_rule_and_every_field_of_a_remark() -> None:
    page = (ROOT / "docs" / "reference.md").read_text("utf-8")
    rows = page.partition("### Lint rules")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", rows, re.MULTILINE) == list(RULES)
    [row] = [line for line in page.splitlines() if line.startswith("| `tickpool lint --json`")]
    assert set(Remark.__struct_fields__) <= set(re.findall(r"`([a-z_]+)`", row))


def test_the_schedules_of_the_repository_have_no_remark() -> None:
    found = lint(ROOT / "schedules", NOW, {}, 3)
    assert (found.remarks, found.faults) == ([], [])


def test_a_hashed_step_is_as_uneven_as_any_and_stays_hashed() -> None:
    found = [slip for name in ("a", "b", "c") for slip in uneven_step(read_expression("H/7 * * * *", name))]  # type: ignore[arg-type]
    assert [slip.write for slip in found] == ["H/6 * * * *"] * 3
    assert len({slip.message for slip in found}) > 1


def test_a_bound_on_catch_up_is_no_flood() -> None:
    keys = {"id": "it", "dag": "dags/d.yaml", "cron": "* * * * *", "overlap": "queue", "catchup": "all"}
    now = datetime(2026, 11, 24, tzinfo=UTC)
    assert [each.rule for each in catchup_flood(schedule_from(keys), now)] == ["catchup-flood"]
    assert list(catchup_flood(schedule_from({**keys, "catchup_max": 5}), now)) == []


@pytest.mark.parametrize(
    ("cron", "keys", "is_told"),
    [
        ("0 9 25 12 *", {"calendar": {"country": "DE"}}, "calendar"),
        ("0 9 25 12 *", {"calendar": {"country": "DE", "on_holiday": "next_business_day"}}, None),
        ("0 9 25 12 *", {"calendar": {"market": "NYSE", "business_day": 1}} | {"cron": "0 9 * 12 *"}, None),
        ("0 9 24 12 *", {"calendar": {"country": "DE"}}, None),
        ("30 2 * * *", {"blackout": {"cron": "0 2 * * *", "duration": "1h"}}, "blackout"),
        ("30 2 * * *", {"blackout": {"cron": "0 2 * * *", "duration": "1h", "then": "defer"}}, None),
        ("* * * * *", {"blackout": {"cron": "0 2 * * *", "duration": "1h"}}, None),
        ("* * * * *", {"blackout": {"from": "2026-11-01", "to": "2026-12-31"}}, None),  # it goes on after that
        ("* * * * *", {}, None),
    ],
)
def test_a_schedule_that_would_never_run_is_told_of(cron: str, keys: dict[str, Any], is_told: str | None) -> None:
    found = [(each.rule, each.at) for each in always_closed(schedule_from(entry(cron) | keys), NOW)]
    assert found == ([("always-closed", (is_told,))] if is_told else [])


def entry(cron: str) -> dict[str, Any]:
    return {"id": "it", "dag": "dags/d.yaml", "cron": cron}


@pytest.mark.parametrize(("last", "is_stale"), [("2026-11-23", True), ("2026-11-24", False)])
def test_a_calendar_that_nobody_has_kept_up_is_told_of(project: Path, last: str, is_stale: bool) -> None:
    (project / "schedules" / "calendars.yaml").write_text(f"plant: {{dates: [2025-12-24, {last}]}}\n")
    text = "- {id: it, cron: '0 9 * * *', dag: dags/d.yaml, calendar: plant}\n"
    (project / "schedules" / "a.yaml").write_text(text)
    found = lint(project / "schedules", NOW, {}, 3)
    told = [(remark.line, remark.col, remark.rule, remark.message, remark.mend) for remark in found.remarks]
    message = "its calendar has no holiday after 2026-11-23: from there on every day is open"
    assert told == [(1, 59, "stale-calendar", message, "add those to come to calendars.yaml")] * is_stale
    assert found.faults == []


def test_beside_a_fault_a_schedule_with_a_calendar_is_read_all_the_same(project: Path) -> None:
    (project / "schedules" / "calendars.yaml").write_text("plant: {dates: [2025-12-24]}\n")
    (project / "schedules" / "a.yaml").write_text(
        "- {id: it, cron: '0 9 * * *', dag: dags/d.yaml, calendar: plant}\n- {id: x, crom: 1}\n"
    )
    found = lint(project / "schedules", NOW, {}, 3)
    assert [remark.rule for remark in found.remarks] == ["stale-calendar"]
    assert found.faults != []
