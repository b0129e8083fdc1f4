"""Calendars: whose holidays, what becomes of fire times on them, and that the log alone tells which days these were."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from service import Service, WaitFor
from story import Story

from scheduler.ahead import fires_ahead
from scheduler.audit import audit
from scheduler.business_days import Days, days_id, record_of
from scheduler.calendars import read_calendars
from scheduler.history import History
from scheduler.judge import due, judge
from scheduler.public_holidays import public_holidays
from scheduler.reload import loaded_events
from scheduler.schedule_model import Schedule, schedule_from_spec
from scheduler.schedule_rules import schedule_from
from scheduler.schedules import read_configuration
from workers.event_log import EventLog
from workers.events import Event, decode_line, encode_line, iso

DAY = timedelta(days=1)
# A Thursday; Friday is Christmas, and nobody works on Saturday and Sunday.
EVE = datetime(2026, 12, 24, 12, 0, tzinfo=UTC)


def daily(**fields: Any) -> Schedule:
    return schedule_from({"id": "s", "cron": "0 9 * * *", "dag": "dags/d.yaml", **fields})


def times(schedule: Schedule, since: datetime = EVE, days: int = 5) -> list[tuple[str, str | None]]:
    zone = schedule.zone
    fires = due(schedule, since, since + timedelta(days=days))
    return [(f"{fire.astimezone(zone):%a %d %H:%M}", schedule.closed(fire)) for fire in fires]


# -- whose holidays -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "day", "is_holiday"),
    [
        ({"country": "DE"}, "2026-12-25", True),
        ({"country": "DE"}, "2026-06-04", False),  # Corpus Christi, which parts of it keep
        ({"country": "DE", "subdivision": "BY"}, "2026-06-04", True),
        ({"country": "DE", "subdivision": "BY"}, "2026-08-15", False),  # Assumption, in its Catholic towns
        ({"country": "DE", "subdivision": "BY", "categories": ["public", "catholic"]}, "2026-08-15", True),
        ({"country": "FR"}, "2026-07-14", True),
        ({"market": "NYSE"}, "2026-07-03", True),  # Independence Day is a Saturday
        ({"market": "XNYS"}, "2026-04-03", True),  # Good Friday, which the country does not keep
        ({"country": "US"}, "2026-04-03", False),
        ({"market": "XETR"}, "2026-10-03", False),
    ],
)
def test_the_holidays_are_those_of_the_country_the_part_or_the_market(
    rule: dict[str, Any], day: str, is_holiday: bool
) -> None:
    days = daily(calendar=rule).days
    assert days is not None
    assert (date.fromisoformat(day) in days.holidays) is is_holiday


def test_the_weekend_and_its_workdays_are_those_of_the_country() -> None:
    egypt, china = (public_holidays(country, None, None) for country in ("EG", "CN"))
    assert egypt.weekend == {4, 5}
    saturday = date(2026, 2, 14)  # worked before the Spring Festival
    assert china.is_business_day(saturday)
    assert not china.is_business_day(saturday - 7 * DAY)
    assert china.business_day(date(2026, 9, 30), 1) == date(2026, 10, 8)


# -- what becomes of fire times -----------------------------------------------------------------------------------


def test_on_a_holiday_it_is_skipped_and_on_the_weekend_it_is_not() -> None:
    expected = [
        ("Fri 25 09:00", "holiday"),
        ("Sat 26 09:00", "holiday"),
        ("Sun 27 09:00", None),
        ("Mon 28 09:00", None),
    ]
    assert times(daily(calendar={"country": "DE"}))[:4] == expected
    assert times(daily(calendar={"country": "DE", "on_holiday": "skip"}))[:4] == expected


def test_the_day_is_that_of_the_schedules_zone() -> None:
    rule = {"country": "US"}
    # It is Christmas in Auckland from the 24th, 11:00 UTC.
    assert times(daily(cron="0 1 * * *", timezone="Pacific/Auckland", calendar=rule), EVE - 2 * DAY, 3) == [
        ("Thu 24 01:00", None),
        ("Fri 25 01:00", "holiday"),
        ("Sat 26 01:00", None),
    ]


@pytest.mark.parametrize(
    ("on_holiday", "cron", "expected"),
    [
        ("next_business_day", "0 9 25 * *", [("Mon 28 09:00", None)]),
        ("previous_business_day", "0 15 25 * *", [("Thu 24 15:00", None)]),
        ("next_business_day", "0 9,15 25,26 * *", [("Mon 28 09:00", None), ("Mon 28 15:00", None)]),
        ("next_business_day", "0 9 27 * *", [("Sun 27 09:00", None)]),
    ],
)
def test_on_a_holiday_it_comes_at_the_business_day_beside(
    on_holiday: str, cron: str, expected: list[tuple[str, str | None]]
) -> None:
    assert times(daily(cron=cron, calendar={"country": "DE", "on_holiday": on_holiday})) == expected


def test_it_fires_on_the_numbered_business_days_of_the_month() -> None:
    close = daily(timezone="America/New_York", cron="30 17 * * *", calendar={"market": "NYSE", "business_day": [1, -1]})
    assert [time for time, _ in times(close, EVE, 37)] == ["Thu 31 17:30", "Mon 04 17:30", "Fri 29 17:30"]
    summer = daily(cron=["0 9 * 6 *", "0 10 * 7 *"], calendar={"country": "DE", "business_day": 2})
    assert [time for time, _ in times(summer, EVE, 366)] == ["Wed 02 09:00", "Fri 02 10:00"]


def judged(schedule: Schedule, now: datetime) -> list[tuple[str, str, str | None]]:
    told = []
    for event in judge(schedule, due(schedule, EVE, now), now, History(), "down"):
        span = event.get("minute") or f"{event['from']}/{event['to']}"
        told.append((event["event"].removeprefix("schedule_"), span, event.get("reason")))
    return told


def test_a_holidays_fire_time_is_skipped_in_time_and_missed_when_late_and_never_caught_up() -> None:
    schedule = daily(calendar={"country": "DE"}, catchup="all", overlap="queue")
    first, last = (iso(EVE.replace(day=day, hour=9)) for day in (25, 26))
    assert judged(schedule, EVE.replace(day=25, hour=9)) == [("skipped", first, "holiday")]
    assert judged(schedule, EVE.replace(day=27, hour=10)) == [
        ("missed", f"{first}/{last}", "holiday"),
        ("enqueued", iso(EVE.replace(day=27, hour=9)), None),
    ]


def test_what_is_skipped_as_a_holidays_is_not_deferred_by_a_blackout() -> None:
    nights = {"cron": "0 8 * * *", "duration": "2h", "then": "defer"}
    assert times(daily(calendar={"country": "DE"}, blackout=nights), days=4) == [
        ("Fri 25 09:00", "holiday"),
        ("Sat 26 09:00", "holiday"),
        ("Sun 27 09:00", "deferred"),
        ("Sun 27 10:00", None),
        ("Mon 28 09:00", "deferred"),
        ("Mon 28 10:00", None),
    ]
    moved = daily(cron="0 9 25 * *", calendar={"country": "DE", "on_holiday": "next_business_day"}, blackout=nights)
    assert times(moved) == [("Mon 28 09:00", "deferred"), ("Mon 28 10:00", None)]


def test_next_says_what_is_not_run_and_what_was_moved() -> None:
    skips = daily(calendar={"country": "DE"})
    moves = daily(cron="0 9 25,26 * *", calendar={"country": "DE", "on_holiday": "next_business_day"})
    rows = [*fires_ahead([skips], EVE, count=1), *fires_ahead([moves], EVE, count=1)]
    assert [row.remark for row in rows] == [
        "not run: holiday",
        "in place of Fri 2026-12-25 and Sat 2026-12-26, a holiday",
    ]


# -- calendars.yaml -----------------------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "d.yaml").write_text("id: d\ntasks: [{id: t, run: 'true'}]\n")
    (tmp_path / "schedules").mkdir()
    return Path("schedules")


def calendars(directory: Path, text: str) -> dict[str, Days]:
    (directory / "calendars.yaml").write_text(text)
    found, faults = read_calendars(directory / "calendars.yaml")
    assert faults == []
    return found


def test_a_calendar_of_ones_own_has_dates_ranges_workdays_and_a_weekend(directory: Path) -> None:
    plant = calendars(
        directory,
        "plant:\n"
        "  dates: [2026-11-25, 12-06, 02-29]\n"
        "  ranges: [{from: 2026-08-03, to: 2026-08-05}, {from: 12-31, to: 01-02}]\n"
        "  workdays: [2026-08-04]\n"
        "  weekend: [fri, SAT]\n",
    )["plant"]
    of_2026 = sorted(f"{day:%m-%d}" for day in plant.holidays if day.year == 2026)
    assert of_2026 == ["01-01", "01-02", "08-03", "08-05", "11-25", "12-06", "12-31"]
    assert {day.year for day in plant.holidays if (day.month, day.day) == (2, 29)} == set(range(2020, 2050, 4))
    assert {date(2049, 12, 31), date(2050, 1, 2)} <= plant.holidays
    assert (plant.workdays, plant.weekend) == ({date(2026, 8, 4)}, {4, 5})


def test_a_calendar_of_ones_own_may_begin_with_those_of_a_country(directory: Path) -> None:
    found = calendars(
        directory,
        "works: {country: DE, dates: [12-24], workdays: [2026-10-03]}\n"
        "gulf: {country: EG, weekend: []}\n"
        "china: {country: CN, dates: [2026-02-14]}\n",
    )
    germany, works = public_holidays("DE", None, None), found["works"]
    eves = {date(year, 12, 24) for year in range(2020, 2050)}
    assert works.holidays == (germany.holidays | eves) - {date(2026, 10, 3)}
    assert works.is_business_day(date(2026, 10, 3))  # a Saturday
    assert found["gulf"].weekend == frozenset()
    assert not found["china"].is_business_day(date(2026, 2, 14))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[x]", "1:1: calendars are a mapping: `name:`, then the keys of the calendar below"),
        ("bad name: {dates: [01-01]}", "1:1: 'bad name' is no id; "),
        ("x: {}", "1:4: calendar `x`: it has no holidays; write `dates`, `ranges`, `country` or `market`"),
        ("x: [2026-11-24]", "1:4: calendar `x` is a mapping with `dates`, `ranges`, `country` or `market`"),
        ("x: {hollidays: 1}", "1:5: calendar `x`: unknown key `hollidays`; "),
        ("x: {date: [01-01]}", "1:5: calendar `x`: unknown key `date`; did you mean `dates`?"),
        ("x: {dates: [2026-11-31]}", "1:13: calendar `x`: `dates` '2026-11-31' is no date; write a date such as"),
        ("x: {dates: [2026-W52-4]}", "1:13: calendar `x`: `dates` '2026-W52-4' is no date; "),
        ("x: {dates: [0000-01-01]}", "1:13: calendar `x`: `dates` '0000-01-01' is no date; "),
        ("x: {dates: [01-01], workdays: [1-1]}", "1:32: calendar `x`: `workdays` '1-1' is no date; "),
        ("x: {ranges: [{from: 08-01}]}", "1:14: range 1: `to` is missing"),
        (
            "x: {ranges: [{from: 2026-08-02, to: 2026-08-01}]}",
            "1:14: calendar `x`: `ranges` from '2026-08-02' to '2026-08-01' is no range of 1 to 366 days",
        ),
        (
            "x: {ranges: [{from: 2026-08-02, to: 2027-08-03}]}",
            "1:14: calendar `x`: `ranges` from '2026-08-02' to '2027-08-03' is no range of 1 to 366 days",
        ),
        (
            "x: {ranges: [{from: 2026-08-02, to: 08-03}]}",
            "1:14: calendar `x`: `ranges` from '2026-08-02' to '08-03' is of one year and of every year; write both",
        ),
        (
            "x: {ranges: [{from: 02-20, to: 02-29}]}",
            "1:14: calendar `x`: `ranges` from '02-20' to '02-29' has a day that most years lack; write `02-28`",
        ),
        ("x: {ranges: [{from: soon, to: 08-03}]}", "1:14: calendar `x`: `ranges` 'soon' is no date; "),
        ("x: {dates: [01-01], weekend: [sunday]}", "1:31: calendar `x`: `weekend` 'sunday' is no day; allowed: MON, "),
        (
            "x: {dates: [01-01], weekend: [MON, TUE, WED, THU, FRI, SAT, SUN]}",
            "1:30: calendar `x`: `weekend` leaves no business day; leave a day out",
        ),
        ("x: {country: DX}", "1:4: calendar `x`: `country` 'DX' is not known; "),
        (
            "x: {country: DE, market: XETR}",
            "1:4: calendar `x`: `country` and `market` stand together; write one of them, or a calendar of both",
        ),
        (
            f"x: {{ranges: [{', '.join(f'{{from: {year}-01-01, to: {year}-12-31}}' for year in range(2020, 2026))}]}}",
            "1:4: calendar `x`: it has 2192 days; at most 2000 are allowed",
        ),
    ],
)
def test_a_wrong_calendar_is_refused_with_its_place_and_the_way_out(directory: Path, text: str, fault: str) -> None:
    (directory / "calendars.yaml").write_text(text + "\n")
    [found] = read_configuration(directory).faults
    assert str(found).startswith(f"schedules/calendars.yaml:{fault}")


def test_calendars_under_another_name_are_refused_and_none_are_none(directory: Path) -> None:
    (directory / "calendars.yml").write_text("x: {dates: [01-01]}\n")
    [fault] = read_configuration(directory).faults
    assert str(fault) == "schedules/calendars.yml: calendars are read from `calendars.yaml`; give it that name"
    (directory / "calendars.yml").rename(directory / "calendars.yaml")
    assert read_configuration(directory).faults == []
    (directory / "calendars.yaml").write_text("# none yet\n")
    assert read_configuration(directory).faults == []


# -- what a schedule says -----------------------------------------------------------------------------------------


def fault_of(directory: Path, rule: object, **fields: Any) -> str:
    entry = {"id": "s", "cron": "0 9 * * *", "dag": "dags/d.yaml", **fields}
    keys = "".join(
        f"  {key}: {json.dumps(value)}\n" for key, value in entry.items() if value is not None and key != "id"
    )
    text = f"- id: {entry['id']}\n{keys}  calendar: {json.dumps(rule)}\n"
    (directory / "a.yaml").write_text(text)
    faults = read_configuration(directory).faults
    assert {fault.line for fault in faults} == {text.count("\n")}, faults
    return "; ".join(fault.message.removeprefix("schedule `s`: ") for fault in faults)


@pytest.mark.parametrize(
    ("rule", "fields", "fault"),
    [
        ({"contry": "DE"}, {}, "unknown key `calendar.contry`; did you mean `country`?"),
        (
            {"country": "FX"},
            {},
            "`calendar`: `country` 'FX' is not known; allowed: the codes of ISO 3166, such as `FR`",
        ),
        ({"country": "Germany"}, {}, "`calendar`: `country` 'Germany' is not known; did you mean `DE`?"),
        (
            {"country": "DE", "subdivision": "BAY"},
            {},
            "`calendar`: `subdivision` 'BAY' is not known; did you mean `BY`?",
        ),
        (
            {"country": "VA", "subdivision": "X"},
            {},
            "`calendar`: `subdivision` 'X': VA has none; leave it out",
        ),
        ({"market": "NYSX"}, {}, "`calendar`: `market` 'NYSX' is not known; did you mean `XNYS`?"),
        (
            {"country": "DE", "categories": ["catolic"]},
            {},
            "`calendar`: `categories` 'catolic' is not known; did you mean `catholic`?",
        ),
        (
            {"country": "DE", "name": "plant"},
            {},
            "`calendar`: `name` and `country` stand together; write one of them, or a calendar of both",
        ),
        ({"name": "plant", "subdivision": "BY"}, {}, "`calendar`: `subdivision` has no meaning without `country`"),
        (
            {"name": "plant", "categories": "bank"},
            {},
            "`calendar`: `categories` has no meaning without `country` or `market`",
        ),
        (
            {"on_holiday": "skip"},
            {},
            "`calendar`: it names no holidays; write `country`, `market`, or the `name` of one in calendars.yaml",
        ),
        ("plnt", {}, "`calendar`: no calendar `plnt` in calendars.yaml; did you mean `plant`?"),
        (
            "FR",
            {},
            "`calendar`: no calendar `FR` in calendars.yaml; allowed: plant; for public holidays write `{country: FR}` "
            "or `{market: XNYS}`",
        ),
        (
            {"country": "DE", "on_holiday": "next_busines_day"},
            {},
            '`calendar.on_holiday`: "next_busines_day" is not one of its values; did you mean `next_business_day`?',
        ),
        (
            {"country": "DE", "on_holiday": "skip", "business_day": 1},
            {},
            "`calendar`: `on_holiday` has no meaning with `business_day`, which is no holiday; leave it out",
        ),
        (
            {"country": "DE", "business_day": 0},
            {},
            "`calendar`: `business_day` 0 is no number; allowed: 1 to 23, -1 (the last) and below",
        ),
        (
            {"country": "DE", "business_day": []},
            {},
            "`calendar`: `business_day` names no day; write `1` for the first of the month, `-1` for the last",
        ),
        (
            {"country": "DE", "business_day": [1, 1]},
            {},
            "`calendar`: `business_day` has a number twice; write it once",
        ),
        (
            {"country": "DE", "business_day": 1},
            {"cron": "0 9 * * MON"},
            "`calendar`: `business_day` picks the day, and `0 9 * * MON` does, too; write `*` for its days",
        ),
        (
            {"country": "DE", "business_day": 1},
            {"cron": "@every 90s"},
            "`calendar`: `business_day` picks the day, and `@every 90s` does, too; write `*` for its days",
        ),
        (
            {"country": "DE", "business_day": 1},
            {"every": "1h"},
            "`calendar`: `business_day` picks days for `cron`, and `every` names its own; write two schedules",
        ),
        (
            {"country": "DE"},
            {"cron": None, "on_file": {"path": "x"}},
            "`calendar` is for fire times, which `on_file` has none of; leave it out",
        ),
    ],
)
def test_a_calendar_that_cannot_be_meant_is_refused_with_its_place_and_the_way_out(
    directory: Path, rule: object, fields: dict[str, Any], fault: str
) -> None:
    calendars(directory, "plant: {dates: [12-24]}\n")
    assert fault_of(directory, rule, **fields) == fault


def test_while_the_calendars_have_faults_no_schedule_runs_without_its_own(directory: Path) -> None:
    (directory / "calendars.yaml").write_text("plant: {dates: [12-32]}\n")
    text = "- {id: s, cron: '0 9 * * *', dag: dags/d.yaml, calendar: plant}\n"
    (directory / "a.yaml").write_text(text)
    configuration = read_configuration(directory)
    assert [str(fault).partition(": ")[2] for fault in configuration.faults] == [
        "calendar `plant`: `dates` '12-32' is no date; write a date such as `2026-12-24`, or `12-24` for one of every "
        "year",
        "schedule `s`: `calendar`: `plant` is not known while calendars.yaml has faults; mend them first",
    ]
    assert configuration.schedules == []


def test_without_the_package_one_line_says_how_to_install_it(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "none" / "holidays").mkdir(parents=True)
    (tmp_path / "none" / "holidays" / "__init__.py").write_text("raise ImportError('not installed')\n")
    paths = [str(tmp_path / "none"), str(Path(__file__).resolve().parents[1])]
    entry = "- {id: s, cron: '0 9 * * *', dag: dags/d.yaml, calendar: "
    (directory / "a.yaml").write_text(entry + "{market: XNYS}}\n")
    command = [sys.executable, "-m", "scheduler.cli", "validate"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert (done.stdout + done.stderr).splitlines()[0] == (
        "schedules/a.yaml:1:58: schedule `s`: `calendar`: `market` needs the package `holidays`: pip install "
        "holidays; or list the dates in calendars.yaml"
    )
    calendars(directory, "plant: {dates: [12-24]}\n")
    (directory / "a.yaml").write_text(entry + "plant}\n")
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# -- what the log keeps -------------------------------------------------------------------------------------------


def known(*schedules: Schedule) -> dict[str, Any]:
    return {days_id(each.days): record_of(each.days) for each in schedules if each.days is not None}


@pytest.mark.parametrize(
    "rule",
    [
        {"country": "DE"},
        {"country": "DE", "on_holiday": "next_business_day"},
        {"country": "CN", "on_holiday": "previous_business_day"},
        {"market": "XNYS", "business_day": [3, -1]},
    ],
)
def test_what_is_on_record_has_the_same_fire_times_without_the_package(rule: dict[str, Any]) -> None:
    schedule = daily(calendar=rule, timezone="Europe/Paris")
    records = json.loads(json.dumps(known(schedule)))
    again = schedule_from_spec("s", json.loads(json.dumps(schedule.spec)), records)
    assert again.spec == schedule.spec
    assert times(again, EVE, 400) == times(schedule, EVE, 400)
    assert again.fires == schedule.fires
    with pytest.raises(LookupError):
        schedule_from_spec("s", schedule.spec, {})


def test_many_schedules_keep_one_record_of_their_days_in_the_log() -> None:
    schedules = [daily(id=f"s{number}", calendar={"country": "DE"}) for number in range(50)]
    events = list(loaded_events(History(), schedules, EVE))
    assert [event["event"] for event in events[:2]] == ["calendars_loaded", "schedules_loaded"]
    assert sum(event["event"] == "calendars_loaded" for event in events) == 1
    history = History(events)
    assert history.unusable == 0
    assert list(loaded_events(history, schedules, EVE)) == []


def test_a_checkpoint_keeps_the_calendars_that_are_used_and_no_others() -> None:
    german, french = daily(calendar={"country": "DE"}), daily(id="f", calendar={"country": "FR"})
    history = History(loaded_events(History(), [german, french], EVE))
    again = History(history.checkpoint())
    assert again.calendars == known(german, french)
    for event in loaded_events(again, [french], EVE):
        again.apply(event)
    assert History(again.checkpoint()).calendars == known(french)


def test_days_that_change_make_a_schedule_begin_anew_as_an_edit_does(directory: Path) -> None:
    (directory / "a.yaml").write_text("- {id: s, cron: '0 9 * * *', dag: dags/d.yaml, calendar: plant}\n")
    calendars(directory, "plant: {dates: [2026-12-24]}\n")
    history = History(loaded_events(History(), read_configuration(directory).schedules, EVE))
    # A name, a comment, another way to write the same day: nothing has changed.
    calendars(directory, "plant: {ranges: [{from: 2026-12-24, to: 2026-12-24}]} # the eve\n")
    assert list(loaded_events(history, read_configuration(directory).schedules, EVE)) == []
    calendars(directory, "plant: {dates: [2026-12-24, 2026-12-25]}\n")
    events = list(loaded_events(history, read_configuration(directory).schedules, EVE + 2 * DAY))
    told = [(event["event"], event.get("reason"), event.get("since")) for event in events]
    assert told == [
        ("calendars_loaded", None, None),
        ("schedule_missed", "down", None),
        ("schedules_loaded", None, "2026-12-26T11:59:59Z"),
    ]


ENTRIES: list[dict[str, Any]] = [
    {"id": "skips", "cron": "*/20 * * * *", "calendar": {"country": "DE"}},
    {"id": "all", "cron": "10 * * * *", "calendar": {"country": "DE"}, "catchup": "all", "overlap": "queue"},
    {"id": "moves", "cron": "*/30 * 25 * *", "calendar": {"country": "DE", "on_holiday": "next_business_day"}},
    {"id": "third", "cron": "15 * * * *", "calendar": {"market": "NYSE", "business_day": [-4, -5]}},
]


@pytest.fixture
def lived(tmp_path: Path) -> Iterator[list[Event]]:
    """A log from Christmas Eve, in which the service dies, is stopped, and begins new segments."""
    story = Story(tmp_path / "log", seed=2, start=EVE + timedelta(hours=9))
    events: list[Event] = []
    story.store.follow(events.append)
    story.begin(*ENTRIES)
    for happening, hours in ((story.rotate, 0), (story.die, 20), (story.stop, 44), (story.rotate, 0)):
        story.live(240)
        happening()
        if hours:
            story.pass_time(3600 * hours)
            story.begin(*ENTRIES)
            story.recover()
    story.live(20)
    story.drain()
    story.stop()
    yield events
    assert audit(tmp_path / "log", story.now, final=True).violations == []


def test_every_fire_time_has_one_verdict_whatever_befalls_the_service(lived: list[Event]) -> None:
    reasons = {(event["event"], event["reason"]) for event in lived if event.get("reason") == "holiday"}
    assert reasons == {("schedule_skipped", "holiday"), ("schedule_missed", "holiday")}
    runs = [event for event in lived if event["event"] == "schedule_enqueued"]
    assert {event["schedule_id"] for event in runs} == {entry["id"] for entry in ENTRIES}
    assert not {event["minute"][:10] for event in runs if event["schedule_id"] in ("skips", "all")} & {
        "2026-12-25",
        "2026-12-26",
    }
    assert {event["minute"][:10] for event in runs if event["schedule_id"] == "moves"} == {"2026-12-28"}
    assert sum(event["event"] == "calendars_loaded" for event in lived) == 1


@pytest.mark.parametrize("change", ["run", "reason", "open", "days", "gone", "checkpoint"])
def test_the_audit_knows_the_days_from_the_log_alone(tmp_path: Path, change: str) -> None:
    story = Story(tmp_path / "story", seed=1, start=EVE + timedelta(hours=9))
    story.begin(ENTRIES[0] | {"overlap": "allow"})
    story.live(240)
    story.rotate()
    story.live(60)
    story.drain()
    story.stop()
    assert audit(tmp_path / "story", story.now).violations == []
    segments = [*sorted(tmp_path.glob("story.0*")), tmp_path / "story"]
    lines = [line for each in segments for line in each.read_bytes().splitlines(keepends=True)]
    events = [event for event in map(decode_line, lines) if event]
    skips = [place for place, event in enumerate(events) if event.get("reason") == "holiday"]
    asks = [place for place, event in enumerate(events) if event["event"] == "schedule_enqueued"]
    (loaded,) = (place for place, event in enumerate(events) if event["event"] == "calendars_loaded")
    (kept,) = (place for place, event in enumerate(events) if event["event"] == "checkpoint" and "calendars" in event)
    ((name, record),) = events[loaded]["calendars"].items()
    other = {**record, "holidays": {**record["holidays"], "2026": "0101"}}
    if change == "run":
        events[skips[0]] = {**events[asks[0]], "minute": events[skips[0]]["minute"], "run_id": "s.other"}
    elif change == "reason":
        events[skips[0]] = {**events[skips[0]], "reason": "overlap", "open_run": "x"}
    elif change == "open":
        events[asks[0]] = {**events[skips[0]], "minute": events[asks[0]]["minute"]}
    elif change == "days":
        events[loaded]["calendars"][name] = other
    elif change == "gone":
        del events[loaded]
    else:
        events[kept]["calendars"][name] = other
    plain = [{key: value for key, value in event.items() if key != "crc"} for event in events]
    (tmp_path / "log").write_bytes(b"".join(encode_line({**each, "seq": seq}) for seq, each in enumerate(plain, 1)))
    told = [violation.text for violation in audit(tmp_path / "log", story.now).violations]
    expected = {
        "days": "are not those for which that name stands",
        "gone": "the definition of schedule `skips` cannot be read",
        "checkpoint": "is another in the checkpoint than in the older segments",
    }.get(change, "and by its definition it is")
    assert any(expected in text for text in told), told


def test_a_log_of_another_hand_does_not_stop_a_checkpoint() -> None:
    for calendar in ("x", 5, None, {"days": ["y"]}, {}):
        event = {"event": "schedules_loaded", "since": iso(EVE), "specs": {"s": {"calendar": calendar}}}
        assert History(History([event]).checkpoint()).schedules["s"].spec == {"calendar": calendar}


# -- a real service -----------------------------------------------------------------------------------------------


def test_a_service_keeps_the_holidays_of_the_file_and_takes_changed_ones(service: Service, wait_for: WaitFor) -> None:
    today = datetime.now(UTC).date()
    around = ", ".join(str(today + number * DAY) for number in (-1, 0, 1, 2))
    file = service.root / "schedules" / "calendars.yaml"
    file.write_text(f"plant: {{dates: [{around}]}}\n")
    service.schedule("s", "@every 1s", service.dag("d", "true"), calendar="plant")
    supervisor = service.start()
    wait_for(lambda: len(service.events("schedule_skipped")) >= 2, 30)
    assert {event["reason"] for event in service.events("schedule_skipped")} == {"holiday"}
    assert service.events("schedule_enqueued") == []
    file.write_text("plant: {dates: [2020-01-01]}\n")
    wait_for(lambda: service.events("run_finished"), 30)
    supervisor.terminate()
    assert supervisor.wait(20) == 0
    assert len(service.events("calendars_loaded")) == 2
    command = [sys.executable, "-m", "scheduler.cli", "audit", "--json"]
    done = subprocess.run(command, cwd=service.root, env=service.env(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, json.loads(done.stdout)["violations"]) == (0, [])
    status = [sys.executable, "-m", "scheduler.cli", "status", "--json"]
    done = subprocess.run(status, cwd=service.root, env=service.env(), capture_output=True, text=True, timeout=60)
    assert [each["schedule_id"] for each in json.loads(done.stdout)["next"]] == ["s"]


def test_a_thousand_schedules_with_a_calendar_take_little_of_the_log(tmp_path: Path) -> None:
    schedules = [daily(id=f"s{number}", calendar={"country": "DE"}) for number in range(1000)]
    log = EventLog(tmp_path / "log", fsync="off")
    for event in loaded_events(History(), schedules, EVE):
        log.append(event)
    log.close()
    assert (tmp_path / "log").stat().st_size < 300_000
