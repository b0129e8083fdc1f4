"""Holidays and business days: triggers that keep to them, against a walk over the days."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler.business_days import Days, NthDays, Only, Open, days_id, days_of_record, moving, record_of
from scheduler.cron import parse_cron
from scheduler.cron_times import wall_time
from scheduler.triggers import AnyOf, Every, Trigger

# In Havana, Beirut and the Azores the clock is turned at or over midnight.
ZONES = ["UTC", "Europe/Paris", "America/Havana", "Asia/Beirut", "Atlantic/Azores"]
# The clocks are turned within these days.
FIRST, LAST = date(2026, 10, 10), date(2026, 11, 20)
DAY = timedelta(days=1)
EXPRESSIONS = [
    "0 9 * * *",
    "*/30 * * * *",
    "30 0 * * *",
    "*/20 23,0 * * *",
    "15 */6 * * MON-FRI",
    "0 0 1,15 * *",
    "45 23 * * SUN",
]

# Those on which the clocks are turned, or before which, more often than others.
TURNED = [date(2026, 10, 24), date(2026, 10, 25), date(2026, 10, 31), date(2026, 11, 1)]
days_around = st.sampled_from(TURNED) | st.dates(FIRST - 5 * DAY, LAST + 5 * DAY)
calendars = st.builds(
    lambda holidays, workdays, weekend: Days(holidays - workdays, workdays, weekend),
    st.frozensets(days_around, max_size=25),
    st.frozensets(days_around, max_size=4),
    st.sampled_from([frozenset({5, 6}), frozenset({4, 5}), frozenset({6}), frozenset[int]()]),
)


def all_days(since: date, until: date) -> Iterable[date]:
    return (since + number * DAY for number in range((until - since).days + 1))


def check(trigger: Trigger, expected: list[datetime], zone: ZoneInfo) -> None:
    """Compare with the fire times expected (in UTC) from FIRST to LAST, whichever way they are asked for."""
    since = datetime.combine(FIRST, datetime.min.time(), UTC).astimezone(zone)
    until = datetime.combine(LAST, datetime.min.time(), UTC)
    expected = [fire for fire in expected if since < fire <= until]
    found = list(trigger.between(since, until))
    assert [fire.astimezone(UTC) for fire in found] == expected
    assert all(fire.tzinfo is zone for fire in found)
    moments = [since.astimezone(UTC), *expected]
    for earlier, later in list(pairwise(moments))[:60]:
        following = trigger.next(earlier.astimezone(zone))
        assert following is not None
        assert following.astimezone(UTC) == later
    for earlier, later in list(pairwise(expected))[-60:]:
        before = trigger.prev(later.astimezone(zone))
        assert before is not None
        assert before.astimezone(UTC) == earlier
    for moment in moments[:20]:
        inside = [fire.astimezone(UTC) for fire in trigger.between(moment.astimezone(zone), moment + 3 * DAY)]
        assert inside == [fire for fire in expected if moment < fire <= moment + 3 * DAY] or moment + 3 * DAY > until


def plain(text: str, zone: ZoneInfo) -> list[datetime]:
    start = datetime.combine(FIRST - 45 * DAY, datetime.min.time(), UTC).astimezone(zone)
    return list(parse_cron(text).between(start, datetime.combine(LAST + 45 * DAY, datetime.min.time(), UTC)))


@settings(max_examples=60, deadline=None)
@given(calendars, st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES), st.sampled_from([1, -1]))
@example(Days(frozenset(TURNED)), "*/30 * * * *", "Asia/Beirut", 1)
@example(Days(frozenset(TURNED)), "*/30 * * * *", "America/Havana", -1)
def test_fire_times_on_holidays_come_at_the_same_time_of_the_business_day_beside(
    days: Days, text: str, name: str, step: int
) -> None:
    zone, expected = ZoneInfo(name), set()
    for fire in plain(text, zone):
        day = fire.date()
        if day in days.holidays:
            day += step * DAY
            while day in days.holidays or (day.weekday() in days.weekend and day not in days.workdays):
                day += step * DAY
            fire = wall_time(datetime.combine(day, fire.time()), zone)
        expected.add(fire.astimezone(UTC))
    check(moving(parse_cron(text), days, step), sorted(expected), zone)


@settings(max_examples=30, deadline=None)
@given(calendars, st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES))
@example(Days(frozenset(TURNED[:1])), "*/30 * * * *", "Asia/Beirut")
@example(Days(frozenset(TURNED[1:2])), "*/30 * * * *", "Asia/Beirut")
def test_only_open_days_keep_their_fire_times(days: Days, text: str, name: str) -> None:
    zone = ZoneInfo(name)
    expected = [fire.astimezone(UTC) for fire in plain(text, zone) if fire.date() not in days.holidays]
    check(Only(parse_cron(text), Open(days)), expected, zone)


@settings(max_examples=30, deadline=None)
@given(calendars, st.sampled_from(ZONES), st.sets(st.integers(-23, 23).filter(bool), min_size=1, max_size=3))
def test_the_numbered_business_days_are_those_that_one_counts(days: Days, name: str, numbers: set[int]) -> None:
    zone, text, expected = ZoneInfo(name), "*/30 9 * * *", []
    for fire in plain(text, zone):
        month = [day for day in all_days(fire.date() - 31 * DAY, fire.date() + 31 * DAY) if day.month == fire.month]
        business = [
            day
            for day in month
            if day in days.workdays or (day.weekday() not in days.weekend and day not in days.holidays)
        ]
        if fire.date() in business:
            place = business.index(fire.date())
            if numbers & {place + 1, place - len(business)}:
                expected.append(fire.astimezone(UTC))
    check(Only(parse_cron(text), NthDays(days, tuple(sorted(numbers)))), expected, zone)


def test_a_month_that_has_no_such_business_day_is_passed_over() -> None:
    trigger = Only(parse_cron("0 9 * * *"), NthDays(Days(), (23,)))
    fires = list(trigger.between(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)))
    assert [f"{fire:%m-%d}" for fire in fires] == ["07-31", "12-31"]
    last = trigger.prev(datetime(2026, 7, 1, tzinfo=UTC))
    assert last is not None
    assert f"{last:%Y-%m-%d}" == "2025-12-31"


def test_business_days_of_which_there_are_none_end_the_search() -> None:
    closed = Days(weekend=frozenset(range(7)))
    trigger = Only(parse_cron("0 9 * * *"), NthDays(closed, (1,)))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert (trigger.next(start), trigger.prev(start), list(trigger.between(start, start + 99 * DAY))) == (
        None,
        None,
        [],
    )
    with pytest.raises(ValueError, match="no business day within 30 years of 2026-01-01"):
        closed.business_day(start.date(), 1)


def test_a_moved_fire_time_and_one_that_is_there_anyway_are_one() -> None:
    days = Days(frozenset({date(2026, 12, 24), date(2026, 12, 25)}))
    daily = moving(parse_cron("0 9 * * MON-FRI"), days, 1)
    fires = list(daily.between(datetime(2026, 12, 23, tzinfo=UTC), datetime(2026, 12, 30, tzinfo=UTC)))
    assert [f"{fire:%d %H}" for fire in fires] == ["23 09", "28 09", "29 09"]


def test_a_moved_time_of_day_that_the_clock_skips_comes_at_the_end_of_the_gap() -> None:
    zone = ZoneInfo("Europe/Paris")
    days = Days(frozenset({date(2026, 3, 28)}), weekend=frozenset())
    trigger = moving(parse_cron("30 2 * * SAT"), days, 1)
    fire = trigger.next(datetime(2026, 3, 27, tzinfo=zone))
    assert fire is not None
    assert fire.isoformat() == "2026-03-29T03:00:00+02:00"


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((1,), "only on the 1st business day of the month"),
        ((3, -1), "only on the 3rd and the last business day of the month"),
        (
            (-2, 22, 11, -13),
            "only on the 2nd to last and the 22nd and the 11th and the 13th to last business day of the month",
        ),
    ],
)
def test_numbered_business_days_are_said_in_words(numbers: tuple[int, ...], words: str) -> None:
    assert Only(parse_cron("0 9 * * *"), NthDays(Days(), numbers)).explain() == f"at 09:00 every day {words}"


@pytest.mark.parametrize(("step", "words"), [(1, "next"), (-1, "last")])
def test_moved_fire_times_are_said_in_words(step: int, words: str) -> None:
    expected = f"every 1h except on holidays, and in their place on the {words} business day"
    assert moving(Every(timedelta(hours=1)), Days(), step).explain().replace("1:00:00", "1h") == expected


@given(calendars)
def test_the_days_come_back_from_the_log_as_they_were(days: Days) -> None:
    again = days_of_record(json.loads(json.dumps(record_of(days))))
    assert again == days
    assert days_id(again) == days_id(days)


@given(calendars, calendars)
def test_other_days_have_another_name(one: Days, other: Days) -> None:
    assert (days_id(one) == days_id(other)) is (one == other)


def test_schedules_that_are_written_alike_share_their_fire_times() -> None:
    days = [Days(frozenset({date(2026, 12, 25)})) for _ in range(2)]
    one, other = (moving(AnyOf((parse_cron("0 9 * * *"),)), each, 1) for each in days)
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.timeout(20)
def test_a_clock_that_is_set_back_across_midnight_has_each_fire_time_once() -> None:
    # Until 2011 St. John's went from 00:01 to 23:01 of the day before.
    start = datetime(2010, 11, 7, 0, tzinfo=UTC).astimezone(ZoneInfo("America/St_Johns"))
    cron = parse_cron("7 * * * *")
    until = start + timedelta(hours=14)
    assert list(Only(cron, Open(Days())).between(start, until)) == list(cron.between(start, until))
