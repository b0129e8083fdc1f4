"""cron: fire times against a brute-force oracle, the notation by example, the errors word for word."""

from __future__ import annotations

import pickle
import re
from calendar import monthrange
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim, CronSimError
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scheduler.cron import Cron, InvalidCron, NaiveDatetime, parse_cron

MINUTE = timedelta(minutes=1)
TICK = timedelta(microseconds=1)
START = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday
NEW_YORK = ZoneInfo("America/New_York")
FORM = "write five: minute hour day-of-month month day-of-week, or `@daily`, `@every 5m`"
QUICK = settings(deadline=None, max_examples=100)

# --- The oracle: minute by minute over UTC, from the meaning of the fields and Debian cron's rule.

WINDOWS = {
    "leap day": ("UTC", datetime(2024, 2, 27, tzinfo=UTC)),
    "fixed offset": ("Asia/Kolkata", datetime(2025, 12, 30, tzinfo=UTC)),
    "spring": ("America/New_York", datetime(2026, 3, 6, tzinfo=UTC)),
    "autumn": ("America/New_York", datetime(2026, 10, 30, tzinfo=UTC)),
    "London spring": ("Europe/London", datetime(2026, 3, 27, tzinfo=UTC)),
    "London autumn": ("Europe/London", datetime(2026, 10, 23, tzinfo=UTC)),
    "half an hour back": ("Australia/Lord_Howe", datetime(2026, 4, 3, tzinfo=UTC)),
    "half an hour on": ("Australia/Lord_Howe", datetime(2026, 10, 2, tzinfo=UTC)),
    "midnight gap": ("America/Sao_Paulo", datetime(2017, 10, 13, tzinfo=UTC)),
    "midnight fold": ("America/Sao_Paulo", datetime(2018, 2, 16, tzinfo=UTC)),
    "a day lost": ("Pacific/Apia", datetime(2011, 12, 28, tzinfo=UTC)),
    "two hours on": ("Antarctica/Troll", datetime(2026, 3, 27, tzinfo=UTC)),
    "two hours back": ("Antarctica/Troll", datetime(2026, 10, 23, tzinfo=UTC)),
}
LENGTH = timedelta(days=4)


@cache
def timeline(window: str) -> list[tuple[datetime, datetime]]:
    """Every minute of the window, in UTC and on the wall."""
    zone, start = WINDOWS[window]
    instants = [start + count * MINUTE for count in range(int(LENGTH / MINUTE) + 1)]
    return [(instant, instant.astimezone(ZoneInfo(zone))) for instant in instants]


class Field:
    """A field's text, and beside it what it means."""

    def __init__(self, text: str, has: Callable[..., bool]) -> None:
        self.text, self.has = text, has


class Meaning:
    """What five fields mean together; of their text only the first characters are looked at, for Debian's stars."""

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self.minute, self.hour, self.day, self.month, self.weekday = fields
        self.text = " ".join(field.text for field in fields)
        self.is_day_and = self.day.text[0] in "*?" or self.weekday.text[0] in "*?"
        self.is_fixed = "*" not in (self.minute.text[0], self.hour.text[0])
        self.days: dict[date, bool] = {}

    def __repr__(self) -> str:
        return self.text

    def has_day(self, day: date) -> bool:
        if day not in self.days:
            both = [self.day.has(day), self.weekday.has(day)]
            self.days[day] = self.month.has(day) and (all(both) if self.is_day_and else any(both))
        return self.days[day]

    def has(self, wall: datetime) -> bool:
        return self.minute.has(wall.minute) and self.hour.has(wall.hour) and self.has_day(wall.date())

    def fires_in(self, window: str) -> list[datetime]:
        """Every fire time after the window's first minute, in UTC."""
        return [now for (_, before), (now, local) in pairwise(timeline(window)) if self.fires_at(local, before)]

    def fires_at(self, local: datetime, before: datetime) -> bool:
        wall, skipped = local.replace(tzinfo=None, fold=0), before.replace(tzinfo=None, fold=0) + MINUTE
        if not self.is_fixed:
            return self.has(wall)
        while skipped < wall:
            if self.has(skipped):
                return True
            skipped += MINUTE
        return local.fold == 0 and self.has(wall)


def ring(low: int, span: int, first: int, last: int) -> list[int]:
    """The numbers from first to last, round past the field's end when last is the smaller."""
    numbers = [first]
    while numbers[-1] != last:
        numbers.append((numbers[-1] - low + 1) % span + low)
    return numbers


def numbers(low: int, span: int, names: str = "") -> st.SearchStrategy[tuple[str, set[int]]]:
    """A field's text and the numbers it stands for."""
    number, step, every = st.integers(low, low + span - 1), st.integers(1, span), range(low, low + span)
    label = number.flatmap(
        lambda n: st.sampled_from([str(n), names.split()[n - low] if names else str(n)]).map(lambda text: (text, n))
    )
    term = st.one_of(
        st.just(("*", set(every))),
        step.map(lambda n: (f"*/{n}", set(every[::n]))),
        label.map(lambda a: (a[0], {a[1]})),
        st.builds(lambda a, b: (f"{a[0]}-{b[0]}", set(ring(low, span, a[1], b[1]))), label, label),
        st.builds(lambda a, b, n: (f"{a}-{b}/{n}", set(ring(low, span, a, b)[::n])), number, number, step),
        # Sunday is 7 as well, so that a step from a weekday on may end there.
        st.builds(
            lambda a, n: (f"{a}/{n}", {v % 7 if span == 7 else v for v in range(a, low + span + (span == 7), n)}),
            number,
            step,
        ),
    )
    terms = st.lists(term, min_size=1, max_size=3)
    joined = terms.map(lambda each: (",".join(text for text, _ in each), set().union(*(found for _, found in each))))
    return st.one_of(st.just(("*", set(every))), joined)


def last_day(day: date) -> int:
    return monthrange(day.year, day.month)[1]


def weekdays_of_month(day: date) -> list[int]:
    return [n for n in range(1, last_day(day) + 1) if day.replace(day=n).weekday() < 5]


def is_nearest_weekday(day: date, wanted: int) -> bool:
    """Quartz's `W`: of the weekdays Monday to Friday in the same month, the nearest to the wanted day."""
    return wanted <= last_day(day) and day.day == min(weekdays_of_month(day), key=lambda n: abs(n - wanted))


MONTHS = "JAN feb Mar APR MAY JUN JUL AUG SEP OCT NOV DEC"
WEEKDAYS = "SUN mon Tue WED THU FRI SAT"
MINUTES = numbers(0, 60).map(lambda each: Field(each[0], each[1].__contains__))
HOURS = numbers(0, 24).map(lambda each: Field(each[0], each[1].__contains__))
ANY_MONTH = Field("*", lambda day: True)
MONTH_FIELDS = st.one_of(
    st.just(ANY_MONTH),
    numbers(1, 12, MONTHS).map(lambda each: Field(each[0], lambda day: day.month in each[1])),
)
QUARTZ_DAYS = st.one_of(
    st.just(Field("?", lambda day: True)),
    st.just(Field("L", lambda day: day.day == last_day(day))),
    st.just(Field("LW", lambda day: day.day == weekdays_of_month(day)[-1])),
    st.integers(1, 31).map(lambda n: Field(f"{n}W", lambda day: is_nearest_weekday(day, n))),
    st.integers(1, 31).map(
        lambda n: Field(f"L,{n}w,9", lambda day: day.day in (9, last_day(day)) or is_nearest_weekday(day, n))
    ),
)
QUARTZ_WEEKDAYS = st.one_of(
    st.just(Field("?", lambda day: True)),
    st.integers(0, 7).map(
        lambda n: Field(f"{n}L", lambda day: day.isoweekday() % 7 == n % 7 and day.day + 7 > last_day(day))
    ),
    st.builds(
        lambda n, nth: Field(
            f"{WEEKDAYS.split()[n]}#{nth},2",
            lambda day: day.weekday() == 1 or (day.isoweekday() % 7 == n and (day.day + 6) // 7 == nth),
        ),
        *(st.integers(0, 6), st.integers(1, 5)),
    ),
)
DAYS = st.one_of(numbers(1, 31).map(lambda each: Field(each[0], lambda day: day.day in each[1])), QUARTZ_DAYS)
WEEKDAY_FIELDS = st.one_of(
    numbers(0, 7, WEEKDAYS).map(lambda each: Field(each[0], lambda day: day.isoweekday() % 7 in each[1])),
    QUARTZ_WEEKDAYS,
)
MEANINGS = st.tuples(MINUTES, HOURS, DAYS, MONTH_FIELDS, WEEKDAY_FIELDS).map(Meaning)
# Times of day and of the hours that transitions touch, every day: each example meets the transition of its window.
SMALL_HOURS = st.tuples(
    MINUTES,
    st.sampled_from([(0, 1, 2, 3), (1, 2), (2,), (1,), (0,), (23,), (0, 23)]).map(
        lambda hours: Field(",".join(map(str, hours)), hours.__contains__)
    ),
    st.just(Field("*", lambda day: True)),
    st.just(ANY_MONTH),
    st.just(Field("*", lambda day: True)),
).map(Meaning)
ANYTHING = st.one_of(MEANINGS, SMALL_HOURS)
WINDOW_NAMES = st.sampled_from(sorted(WINDOWS))


def parsed(meaning: Meaning) -> Cron | None:
    """The parsed expression; None for one that is refused because it never fires."""
    try:
        return parse_cron(meaning.text)
    except InvalidCron as error:
        if "never fires" not in str(error):
            raise
        return None


def in_utc(fires: Iterable[datetime]) -> list[datetime]:
    # Python compares two datetimes of one zone by their wall clocks alone, so equality proves nothing but in UTC.
    return [fire.astimezone(UTC) for fire in fires]


def walk(step: Callable[[datetime], datetime | None], start: datetime, most: int) -> list[datetime]:
    """`step` applied to its own answers."""
    fires = [start]
    while len(fires) <= most and (fire := step(fires[-1])) is not None:
        fires.append(fire)
    return in_utc(fires[1:])


@settings(QUICK, max_examples=150)
@given(ANYTHING, WINDOW_NAMES)
def test_between_finds_exactly_the_minutes_of_a_brute_force_search(meaning: Meaning, window: str) -> None:
    cron, minutes = parsed(meaning), timeline(window)
    expected = meaning.fires_in(window)
    if cron is None:
        assert expected == []
        return
    fires = list(cron.between(minutes[0][1], minutes[-1][1]))
    assert in_utc(fires) == expected
    assert all(fire.tzinfo is minutes[0][1].tzinfo for fire in fires)


@QUICK
@given(ANYTHING, WINDOW_NAMES, st.data())
def test_between_from_any_instant_is_repeated_next_and_repeated_prev_reversed(
    meaning: Meaning, window: str, data: st.DataObject
) -> None:
    cron, minutes = parsed(meaning), timeline(window)
    if cron is None:
        return
    first, last = (data.draw(st.integers(0, len(minutes) - 1)) for _ in "ab")
    since = minutes[first][0] + data.draw(st.sampled_from([0, 1, 59])) * timedelta(seconds=1)
    until = max(since, minutes[last][0])
    expected = [fire for fire in meaning.fires_in(window) if since < fire <= until][:300]
    zone = minutes[0][1].tzinfo
    assert in_utc(islice(cron.between(since.astimezone(zone), until.astimezone(zone)), 300)) == expected
    assert walk(cron.next, since.astimezone(zone), len(expected)) == expected
    if expected:
        assert walk(cron.prev, (expected[-1] + TICK).astimezone(zone), len(expected)) == expected[::-1]


@QUICK
@given(ANYTHING, WINDOW_NAMES, st.data())
def test_next_and_prev_answer_an_instant_however_it_is_written(
    meaning: Meaning, window: str, data: st.DataObject
) -> None:
    cron, minutes = parsed(meaning), timeline(window)
    if cron is None:
        return
    # A wall clock reading may lie in a gap or come twice; the instant it means is what counts.
    wall = minutes[0][1].replace(tzinfo=None) + data.draw(st.integers(0, len(minutes))) * MINUTE
    written = wall.replace(tzinfo=minutes[0][1].tzinfo, fold=data.draw(st.integers(0, 1)))
    instant = written.astimezone(UTC)
    expected = meaning.fires_in(window)
    after, before = cron.next(written), cron.prev(written)
    later = [fire for fire in expected if fire > instant]
    earlier = [fire for fire in expected if fire < instant]
    if later and instant >= minutes[0][0]:
        assert after is not None
        assert after.astimezone(UTC) == later[0]
    if earlier and instant <= minutes[-1][0]:
        assert before is not None
        assert before.astimezone(UTC) == earlier[-1]


@QUICK
@given(ANYTHING, WINDOW_NAMES, st.data())
def test_a_call_is_true_in_exactly_the_minutes_that_fire(meaning: Meaning, window: str, data: st.DataObject) -> None:
    cron, minutes = parsed(meaning), timeline(window)
    if cron is None:
        return
    expected = meaning.fires_in(window)
    some = data.draw(st.lists(st.sampled_from(minutes[1:]), max_size=20))
    some += [(fire, fire.astimezone(minutes[0][1].tzinfo)) for fire in expected[:: len(expected) // 20 + 1]]
    for instant, local in some:
        assert cron(local.replace(second=31)) is (instant in expected), local


@QUICK
@given(st.tuples(st.just(Field("0", (0).__eq__)), st.just(Field("0", (0).__eq__)), DAYS, MONTH_FIELDS, WEEKDAY_FIELDS))
def test_day_fields_agree_with_a_search_over_eight_years(fields: tuple[Field, ...]) -> None:
    meaning = Meaning(fields)
    days = [START + timedelta(days=count) for count in range(8 * 366)]
    expected = [day for day in days if meaning.has(day)]
    cron = parsed(meaning)
    assert (list(cron.between(START - TICK, days[-1])) if cron else []) == expected


@QUICK
@given(st.tuples(MINUTES, HOURS, DAYS, MONTH_FIELDS, WEEKDAY_FIELDS).map(Meaning))
def test_fire_times_in_utc_are_those_of_cronsim_where_it_knows_the_notation(meaning: Meaning) -> None:
    cron = parsed(meaning)
    assume(not re.search(r"\b(\w+)-\1/", meaning.text))  # cronsim 2.8 reads `5-5/2` as `5/2`
    try:
        reference = CronSim(meaning.text.replace("?", "*"), START)
    except CronSimError:  # notation it lacks
        return
    if cron is not None:
        assert list(islice(cron.between(START, START.replace(year=2060)), 30)) == [
            fire for fire in islice(reference, 30) if fire.year < 2060
        ]


# --- The notation by example.


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ("*/5 * * * *", "01-01T00:05 01-01T00:10"),
        ("0 9 * * *", "01-01T09:00 01-02T09:00"),
        ("0 0 * * 0", "01-04T00:00 01-11T00:00"),
        ("0 0 * * 7", "01-04T00:00 01-11T00:00"),
        ("0 0 * * sun", "01-04T00:00 01-11T00:00"),
        ("0 0 * JAN-mar/2 *", "01-02T00:00 01-03T00:00"),
        ("1,2 0 * * *", "01-01T00:01 01-01T00:02"),
        ("50/5 0 * * *", "01-01T00:50 01-01T00:55"),
        ("10-30/15 0 * * *", "01-01T00:10 01-01T00:25 01-02T00:10"),
        ("0 22-1 * * *", "01-01T01:00 01-01T22:00 01-01T23:00 01-02T00:00"),
        ("0 22-4/3 * * *", "01-01T01:00 01-01T04:00 01-01T22:00 01-02T01:00"),
        ("0 0 * * FRI-MON", "01-02T00:00 01-03T00:00 01-04T00:00 01-05T00:00 01-09T00:00"),
        ("0 0 * * 5-7", "01-02T00:00 01-03T00:00 01-04T00:00 01-09T00:00"),
        ("0 0 * * SAT-SUN", "01-03T00:00 01-04T00:00 01-10T00:00"),
        ("0 0 * * 7-1", "01-04T00:00 01-05T00:00 01-11T00:00"),
        ("0 0 1 NOV-FEB *", "02-01T00:00 11-01T00:00 12-01T00:00"),
        ("0 0 30-2 * *", "01-02T00:00 01-30T00:00 01-31T00:00 02-01T00:00"),
        ("0 0 L * *", "01-31T00:00 02-28T00:00 03-31T00:00"),
        ("0 0 LW * *", "01-30T00:00 02-27T00:00 03-31T00:00"),
        ("0 0 15W * *", "01-15T00:00 02-16T00:00 03-16T00:00 04-15T00:00 05-15T00:00"),
        ("0 0 1W AUG *", "08-03T00:00"),  # the 1st is a Saturday; Friday would be in July
        ("0 0 31W MAY *", "05-29T00:00"),  # the 31st is a Sunday; Monday would be in June
        ("0 0 1,15W FEB *", "02-01T00:00 02-16T00:00"),
        ("0 0 * * 5L", "01-30T00:00 02-27T00:00"),
        ("0 0 * * FRIL", "01-30T00:00 02-27T00:00"),
        ("0 0 * * SUNL", "01-25T00:00 02-22T00:00"),
        ("0 0 * * MON#1", "01-05T00:00 02-02T00:00"),
        ("0 0 * * 7#1", "01-04T00:00 02-01T00:00"),
        ("0 0 ? * MON", "01-05T00:00 01-12T00:00"),
        ("0 0 5 * ?", "01-05T00:00 02-05T00:00"),
        ("0 0 13 * FRI", "01-02T00:00 01-09T00:00 01-13T00:00 01-16T00:00"),  # either
        ("0 0 */2 * FRI", "01-09T00:00 01-23T00:00"),  # both, as the star leads
        ("0 0 29 2 *", "2028-02-29T00:00"),
        ("@yearly", "2027-01-01T00:00"),
        ("@annually", "2027-01-01T00:00"),
        ("@monthly", "02-01T00:00 03-01T00:00"),
        ("@weekly", "01-04T00:00"),
        ("@daily", "01-02T00:00"),
        ("@Midnight", "01-02T00:00"),
        ("@hourly", "01-01T01:00 01-01T02:00"),
        ("@every 1h30m", "01-01T01:30 01-01T03:00"),
        ("\t 0  9\t* * * ", "01-01T09:00"),
    ],
)
def test_the_notation_means_these_fire_times(expr: str, expected: str) -> None:
    wanted = [
        datetime.fromisoformat((text if text.count("-") == 2 else f"2026-{text}") + "Z") for text in expected.split()
    ]
    assert list(islice(parse_cron(expr).between(START, START.replace(year=2030)), len(wanted))) == wanted


@pytest.mark.parametrize(
    ("expr", "zone", "since", "expected"),
    [
        ("30 2 * * *", "America/New_York", "2026-03-08T05:00Z", "2026-03-08T03:00-04:00 2026-03-09T02:30-04:00"),
        ("0,30 2-3 * * *", "America/New_York", "2026-03-08T05:00Z", "2026-03-08T03:00-04:00 2026-03-08T03:30-04:00"),
        ("30 1 * * *", "America/New_York", "2026-11-01T04:00Z", "2026-11-01T01:30-04:00 2026-11-02T01:30-05:00"),
        ("*/30 1 * * *", "America/New_York", "2026-11-01T05:10Z", "2026-11-01T01:30-04:00 2026-11-01T01:00-05:00"),
        ("*/30 2 * * *", "America/New_York", "2026-03-08T05:00Z", "2026-03-09T02:00-04:00"),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00Z", "2026-10-04T02:30+11:00 2026-10-05T02:15+11:00"),
        ("*/10 3 * * *", "Australia/Lord_Howe", "2026-10-03T12:00Z", "2026-10-04T03:00+11:00 2026-10-04T03:10+11:00"),
        ("0 0 * * *", "America/Sao_Paulo", "2017-10-14T12:00Z", "2017-10-15T01:00-02:00 2017-10-16T00:00-02:00"),
        ("*/20 0 * * *", "America/Sao_Paulo", "2017-10-14T12:00Z", "2017-10-16T00:00-02:00"),
        ("0 9 * * *", "Pacific/Apia", "2011-12-29T20:00Z", "2011-12-31T00:00+14:00 2011-12-31T09:00+14:00"),
        ("@every 30m", "America/New_York", "2026-11-01T05:10Z", "2026-11-01T01:30-04:00 2026-11-01T01:00-05:00"),
        # Monrovia's clock went from 00:00:00 to 00:44:30: the first whole minute after the gap.
        ("0 0 7 1 *", "Africa/Monrovia", "1972-01-07T00:44:40Z", "1972-01-07T00:45+00:00"),
        ("0,44 0 7 1 *", "Africa/Monrovia", "1972-01-06T12:00Z", "1972-01-07T00:45+00:00"),
        ("44-45 * 7 1 *", "Africa/Monrovia", "1972-01-06T12:00Z", "1972-01-07T00:45+00:00 1972-01-07T01:44+00:00"),
    ],
)
def test_clock_changes_follow_debian_cron(expr: str, zone: str, since: str, expected: str) -> None:
    after = datetime.fromisoformat(since).astimezone(ZoneInfo(zone))
    wanted = expected.split()
    fires = list(islice(parse_cron(expr).between(after, after + timedelta(days=30)), len(wanted)))
    assert [fire.isoformat("T", "minutes") for fire in fires] == wanted
    assert [fire.utcoffset() for fire in fires] == [datetime.fromisoformat(text).utcoffset() for text in wanted]


def test_two_folds_in_a_row_keep_their_times_in_order() -> None:
    # A Sunday that is the 1st of November: after 2026 that is 2037, and both are days of a fold in New York.
    fires = list(parse_cron("*/30 1 */31 11 SUN").between(START.astimezone(NEW_YORK), START.replace(year=2038)))
    assert [fire.isoformat("T", "minutes") for fire in fires] == [
        f"{year}-11-01T{time}"
        for year in (2026, 2037)
        for time in ("01:00-04:00", "01:30-04:00", "01:00-05:00", "01:30-05:00")
    ]
    before = parse_cron("*/30 1 */31 11 SUN").prev(fires[4])
    assert before is not None
    assert before.astimezone(UTC) == fires[3].astimezone(UTC)


@given(st.integers(1, 10_000_000), st.integers(-(10**9), 4 * 10**9), st.integers(0, 999_999))
@QUICK
def test_every_fires_at_whole_multiples_of_its_period_since_1970(period_s: int, at_s: int, micros: int) -> None:
    cron, epoch = parse_cron(f"@every {period_s}s"), datetime(1970, 1, 1, tzinfo=UTC)
    now = (epoch + timedelta(seconds=at_s, microseconds=micros)).astimezone(NEW_YORK)
    after, before = cron.next(now), cron.prev(now)
    assert after is not None
    assert before is not None
    assert (after.astimezone(UTC) - epoch) % timedelta(seconds=period_s) == timedelta(0)
    assert timedelta(0) < after.astimezone(UTC) - now.astimezone(UTC) <= timedelta(seconds=period_s)
    assert timedelta(0) < now.astimezone(UTC) - before.astimezone(UTC) <= timedelta(seconds=period_s)
    assert cron.next(before) == (now if not micros and at_s % period_s == 0 else after)
    assert cron(after)


def test_every_below_a_minute_matches_each_minute_it_fires_in() -> None:
    assert parse_cron("@every 7s")(START + timedelta(seconds=3))
    assert parse_cron("@every 90s")(START + timedelta(seconds=100))
    assert not parse_cron("@every 3m")(START + 2 * MINUTE)


def test_h_is_stable_for_a_seed_and_spread_over_seeds() -> None:
    assert parse_cron("H H * * *", seed="report").explain() == "at 16:43 every day"
    minutes = [parse_cron("H * * * *", seed=f"schedule-{n}").next(START) for n in range(600)]
    counts = [sum(fire is not None and fire.minute == minute for fire in minutes) for minute in range(60)]
    assert min(counts) > 0
    assert max(counts) < 30


@pytest.mark.parametrize("seed", ["a", "b", "nightly_backup", "", "\udcff"])
def test_h_stays_inside_its_range_and_keeps_its_step(seed: str) -> None:
    day = START + timedelta(days=1)

    def fires(expr: str) -> list[datetime]:
        return list(parse_cron(expr, seed=seed).between(START - TICK, day - TICK))

    assert [len(fires(expr)) for expr in ("H * * * *", "H(0-9) 3 * * *", "H/15 0 * * *")] == [24, 1, 4]
    assert all(fire.minute < 10 for fire in fires("H(0-9) * * * *"))
    stepped = [fire.minute for fire in fires("H(0-29)/10 0 * * *")]
    assert stepped == [stepped[0], stepped[0] + 10, stepped[0] + 20]
    assert stepped[0] < 10
    assert fires("H,59 0 * * *")[-1].minute == 59
    months = list(parse_cron("0 0 H * *", seed=seed).between(START - TICK, START.replace(year=2027) - TICK))
    assert len(months) == 12
    assert months[0].day <= 28


def test_h_names_a_day_that_every_month_has() -> None:
    days = [parse_cron("0 0 H * *", seed=str(n)).next(START - TICK) for n in range(500)]
    assert {day.day for day in days if day is not None} == set(range(1, 29))


def test_names_that_hold_an_h_are_not_hashed() -> None:
    thursdays = [parse_cron("0 0 * MAR THU,WED", seed=seed).next(START) for seed in ("a", "b", "c")]
    assert thursdays == [datetime(2026, 3, 4, tzinfo=UTC)] * 3


# --- Plain words.


@pytest.mark.parametrize(
    ("expr", "words"),
    [
        ("* * * * *", "every minute"),
        ("*/5 * * * *", "every 5 minutes"),
        ("*/7 * * * *", "every 7th minute of every hour"),
        ("0 * * * *", "every hour"),
        ("5 * * * *", "at minute 5 of every hour"),
        ("7,53 * * * *", "at minutes 7 and 53 of every hour"),
        ("3-20/4 * * * *", "every 4th minute from 3 to 20 of every hour"),
        ("0 */2 * * *", "every 2 hours"),
        ("30 9-17/3 * * *", "every 3 hours from 09:30 to 15:30"),
        ("0 22-4 * * *", "every hour from 22:00 to 04:00"),
        ("*/10 9-17 * * 1-5", "every 10 minutes from 09:00 to 17:59 on Monday to Friday"),
        ("* 3 * * *", "every minute from 03:00 to 03:59"),
        ("0,30 9-17 * * *", "at minutes 0 and 30 of hours 9 to 17 every day"),
        ("0 9 * * *", "at 09:00 every day"),
        ("0 9,17 * * *", "at 09:00 and 17:00 every day"),
        ("0 9 * * MON-FRI", "at 09:00 on Monday to Friday"),
        ("0 9 * * FRI-7", "at 09:00 on Friday to Sunday"),
        ("0 0 * JAN,feb *", "at 00:00 every day in January and February"),
        ("0 0 1 1 *", "at 00:00 on the 1st of January"),
        ("0 0 2,11,22-23 * *", "at 00:00 on the 2nd, the 11th and the 22nd to the 23rd of the month"),
        ("0 0 L * *", "at 00:00 on the last day of the month"),
        ("0 0 LW 6 ?", "at 00:00 on the last weekday of June"),
        ("0 0 15W * *", "at 00:00 on the weekday nearest the 15th of the month"),
        ("0 0 * * FRIL", "at 00:00 on the last Friday of the month"),
        ("0 0 * 1 MON#1", "at 00:00 on the first Monday of January"),
        ("0 0 13 * FRI", "at 00:00 on the 13th of the month or on Friday"),
        ("0 0 */2 * FRI", "at 00:00 on every 2nd day of the month if it is Friday"),
        ("0 0 * */3 *", "at 00:00 every day in every 3rd month"),
        ("@weekly", "at 00:00 on Sunday"),
        ("@every 90s", "every 1m30s"),
    ],
)
def test_explain_says_it_in_plain_words(expr: str, words: str) -> None:
    assert parse_cron(expr).explain() == words


# --- What is refused.

NUMBERS = "lists `1,3`, ranges `1-5`, steps `*/2`, `H`"


@pytest.mark.parametrize(
    ("expr", "message"),
    [
        ("", f"cron: has 0 fields; {FORM}"),
        ("5", f"cron `5`: has 1 field; {FORM}"),
        ("* * * *", f"cron `* * * *`: has 4 fields; {FORM}"),
        ("0 * * * * * *", f"cron `0 * * * * * *`: has 7 fields; {FORM}"),
        (
            "0 * * * * *",
            "cron `0 * * * * *`: has 6 fields; there is no field for seconds, "
            f"use `@every 30s` for less than a minute; {FORM}",
        ),
        ("61 * * * *", "cron `61 * * * *`: minute `61` is out of range; allowed: 0-59"),
        ("* 24 * * *", "cron `* 24 * * *`: hour `24` is out of range; allowed: 0-23"),
        ("* * 0 * *", "cron `* * 0 * *`: day-of-month `0` is out of range; allowed: 1-31"),
        ("* * 32W * *", "cron `* * 32W * *`: day-of-month `32` is out of range; allowed: 1-31"),
        ("* * * 13 *", "cron `* * * 13 *`: month `13` is out of range; allowed: 1-12 or JAN-DEC"),
        ("* * * * 8", "cron `* * * * 8`: day-of-week `8` is out of range; allowed: 0-7 or SUN-SAT"),
        ("* * * jam *", "cron `* * * jam *`: month `jam` is not a month; did you mean `JAN`?"),
        ("* * * * MONDAY", "cron `* * * * MONDAY`: day-of-week `MONDAY` is not a day-of-week; did you mean `MON`?"),
        (
            "* * * * Q",
            "cron `* * * * Q`: day-of-week `Q` is not a day-of-week; allowed: FRI, MON, SAT, SUN, THU, TUE, WED",
        ),
        ("x * * * *", f"cron `x * * * *`: minute `x` is not a minute; allowed: 0-59, `*`, {NUMBERS}"),
        ("5- * * * *", f"cron `5- * * * *`: minute `5-` cannot be read; allowed: 0-59, `*`, {NUMBERS}"),
        ("* -1 * * *", f"cron `* -1 * * *`: hour `-1` cannot be read; allowed: 0-23, `*`, {NUMBERS}"),
        ("* ? * * *", f"cron `* ? * * *`: hour `?` cannot be read; allowed: 0-23, `*`, {NUMBERS}"),
        (
            "* * 1.5 * *",
            f"cron `* * 1.5 * *`: day-of-month `1.5` cannot be read; allowed: 1-31, `*`, {NUMBERS}, "
            "`?`, `L`, `LW`, `15W`",
        ),
        (
            "* * * * MON-FRI#2",
            "cron `* * * * MON-FRI#2`: day-of-week `MON-FRI#2` cannot be read; allowed: 0-7 or SUN-SAT, `*`, "
            f"{NUMBERS}, `?`, `FRIL`, `MON#1`",
        ),
        (
            "1,,2 * * * *",
            "cron `1,,2 * * * *`: minute `1,,2` has an empty item in its list; write values between the commas",
        ),
        (
            "*/0 * * * *",
            "cron `*/0 * * * *`: minute `*/0` has step 0; allowed: 1-60",
        ),
        (
            "*/90 * * * *",
            "cron `*/90 * * * *`: minute `*/90` has step 90; allowed: 1-60; a longer period is written `@every 90m`",
        ),
        ("* * * */13 *", "cron `* * * */13 *`: month `*/13` has step 13; allowed: 1-12"),
        (
            "* * * * L",
            "cron `* * * * L`: day-of-week `L` needs a day before it; "
            "write `FRIL` or `5L` for the last Friday of the month",
        ),
        (
            "* * * * FRI#6",
            "cron `* * * * FRI#6`: day-of-week `FRI#6` asks for weekday number 6 of the month; allowed: 1-5",
        ),
        (
            "H(9-3) * * * *",
            "cron `H(9-3) * * * *`: minute `H(9-3)` has a range that ends before it starts; allowed: H(3-9)",
        ),
        ("H(0-99) * * * *", "cron `H(0-99) * * * *`: minute `99` is out of range; allowed: 0-59"),
        ("0 0 31 2 *", "cron `0 0 31 2 *`: never fires; no month it allows has such a day"),
        ("0 0 30,31 FEB *", "cron `0 0 30,31 FEB *`: never fires; no month it allows has such a day"),
        ("0 0 31 4,6 *", "cron `0 0 31 4,6 *`: never fires; no month it allows has such a day"),
        ("0 0 31W 2 *", "cron `0 0 31W 2 *`: never fires; no month it allows has such a day"),
        ("0 0 */30 * TUE#2", "cron `0 0 */30 * TUE#2`: never fires; no month it allows has such a day"),
        (
            "@reboot",
            "cron `@reboot`: is refused; a restart is no point in time, "
            "so it could neither be caught up nor de-duplicated",
        ),
        ("@dayly", "cron `@dayly`: alias `@dayly` is unknown; did you mean `@daily`?"),
        ("@daily 5", "cron `@daily 5`: cannot be read; write `@daily` alone"),
        ("@every", "cron `@every`: cannot be read; write `@every` and one duration, `@every 1h30m`"),
        (
            "@every 5x",
            "cron `@every 5x`: @every `5x` is not a duration; "
            "write a number with ms, s, m, h, d or w (`90s`, `1h30m`), at most 10 years",
        ),
        ("@every 999ms", "cron `@every 999ms`: @every `999ms` is too short; allowed: 1s and longer"),
        (
            "* * * * fr\u0131",
            "cron `* * * * fr\u0131`: holds a character that is neither printable ASCII nor a tab",
        ),
        ("\u0661 * * * *", "cron `\u0661 * * * *`: holds a character that is neither printable ASCII nor a tab"),
        ("* * * *\0*", "cron `* * * *\\x00*`: holds a character that is neither printable ASCII nor a tab"),
        ("* * *\n* *", "cron `* * *\\n* *`: holds a character that is neither printable ASCII nor a tab"),
        ("1" * 300, f"cron `{'1' * 77}...`: has 300 characters; allowed: 256"),
        (None, "cron: must be text such as `*/5 * * * *`, not NoneType"),
        (5, "cron: must be text such as `*/5 * * * *`, not int"),
        (b"* * * * *", "cron: must be text such as `*/5 * * * *`, not bytes"),
    ],
)
def test_what_is_refused_says_what_is_wrong_and_what_is_allowed(expr: str, message: str) -> None:
    with pytest.raises(InvalidCron) as caught:
        parse_cron(expr)
    assert str(caught.value) == message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message


@pytest.mark.parametrize("expr", ["0 0 31 2 MON", "0 0 29 2 MON", "0 0 */31 2 MON#1", "0 0 L 2 *", "0 0 * 2 SUN#5"])
def test_a_rare_date_is_not_taken_for_a_dead_one(expr: str) -> None:
    assert parse_cron(expr).next(START) is not None


CRON_LIKE = st.text(st.sampled_from("0123456789 *,-/#?LWH()@abcjanMONfri"), max_size=40)
FIVE = st.lists(st.text(st.sampled_from("0123456789*,-/#?LWH()MONFRI"), min_size=1, max_size=6), min_size=5, max_size=5)


@settings(QUICK, max_examples=600)
@given(st.one_of(st.text(max_size=300), CRON_LIKE, FIVE.map(" ".join)), st.text(max_size=5))
def test_any_text_is_a_cron_that_works_or_an_invalid_cron_in_one_line(text: str, seed: str) -> None:
    try:
        cron = parse_cron(text, seed=seed)
    except InvalidCron as error:
        said = str(error)
    else:
        said = cron.explain()
        assert cron.next(START) is not None
    assert len(said.splitlines()) == 1


def test_a_naive_datetime_is_refused_wherever_one_is_taken() -> None:
    cron, naive = parse_cron("* * * * *"), START.replace(tzinfo=None)
    for ask in (cron, cron.next, cron.prev, lambda dt: cron.between(dt, START), lambda dt: cron.between(START, dt)):
        with pytest.raises(NaiveDatetime, match="2026-01-01 00:00:00 has no time zone; give an aware datetime"):
            ask(naive)


# --- What a Cron is.


def test_a_cron_survives_pickling_with_its_seed() -> None:
    for expr in ("H H * * *", "@every 90s", "0 0 15W * FRIL"):
        cron = parse_cron(expr, seed="report")
        again = pickle.loads(pickle.dumps(cron))
        assert again == cron
        assert hash(again) == hash(cron)
        assert again.next(START) == cron.next(START)


def test_crons_are_equal_when_text_and_seed_are() -> None:
    assert parse_cron("H * * * *", seed="a") != parse_cron("H * * * *", seed="b")
    assert parse_cron("0 * * * *") != parse_cron("5 * * * *")
    assert parse_cron("0 * * * *") != "0 * * * *"
    assert repr(parse_cron("0 * * * *", seed="a")) == "parse_cron('0 * * * *', seed='a')"


@pytest.mark.parametrize("expr", ["* * * * *", "0 9 * * *", "@every 10m", "0 0 29 2 *"])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Kiritimati"])
def test_the_ends_of_the_calendar_end_the_search(expr: str, zone: str) -> None:
    cron = parse_cron(expr)
    first = datetime.min.replace(tzinfo=ZoneInfo(zone))
    last = datetime.max.replace(tzinfo=ZoneInfo(zone))
    assert cron.next(last) is None
    assert cron.prev(first) is None
    assert len(list(islice(cron.between(last - timedelta(minutes=30), last), 50))) <= 30
    assert cron.next(first) is not None
    assert cron.prev(last - timedelta(days=1)) is not None


def test_between_is_empty_when_it_ends_before_it_starts_and_includes_its_end() -> None:
    cron = parse_cron("0 * * * *")
    assert list(cron.between(START, START - timedelta(days=1))) == []
    assert list(cron.between(START, START)) == []
    assert list(cron.between(START - TICK, START)) == [START]
    assert list(cron.between(START, START + timedelta(hours=1))) == [START + timedelta(hours=1)]
