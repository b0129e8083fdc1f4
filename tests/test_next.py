"""Next: the fire times ahead in the zone and in UTC, what a turned clock does to them, and why there are none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.ahead import fires_ahead
from scheduler.ahead_text import render_fires
from scheduler.daylight import remark_on
from scheduler.schedule_model import Schedule
from scheduler.schedule_rules import schedule_from

ROOT = Path(__file__).resolve().parents[1]
NOW = datetime(2026, 11, 24, 12, 0, 30, tzinfo=UTC)
NEW_YORK = "America/New_York"
BACK = "the clock goes back 02:00 -> 01:00"


def schedule(cron: str, name: str = "it", **keys: Any) -> Schedule:
    return schedule_from({"id": name, "cron": cron, "dag": "dags/d.yaml", **keys})


def remarks(cron: str, zone: str, *since: int, count: int = 8) -> dict[str, str]:
    """Return the remarks on the fire times after a moment in UTC, by their time in the zone."""
    it = schedule(cron, timezone=zone)
    rows = fires_ahead([it], datetime(*since, tzinfo=UTC), count=count)  # type: ignore[misc]
    return {row.fire_time: row.remark for row in rows if row.remark}


# -- what the clock does ---------------------------------------------------------------------------------------------


def test_a_schedule_that_waits_for_something_else_says_for_what() -> None:
    follows = schedule_from({"id": "report", "dag": "d", "after": ["extract", {"schedule": "rates", "status": "any"}]})
    loads = schedule_from({"id": "orders", "dag": "d", "on_file": {"path": "in/orders.csv"}})
    rows = fires_ahead([follows, loads], NOW, count=3)
    assert [(row.schedule_id, row.utc, row.remark) for row in rows] == [
        ("orders", None, "no fire times: it runs when another file lies at in/orders.csv"),
        ("report", None, "no fire times: it runs after `extract` (success) and `rates` (any)"),
    ]


@pytest.mark.parametrize(
    ("cron", "zone", "since", "expected"),
    [
        (
            "30 2 * * *",
            NEW_YORK,
            (2027, 3, 12),
            {"2027-03-14T03:00:00-04:00": "the clock goes forward 02:00 -> 03:00: 02:30 fires at 03:00"},
        ),
        (
            "0,15,30 2 * * *",
            NEW_YORK,
            (2027, 3, 14),
            {"2027-03-14T03:00:00-04:00": "the clock goes forward 02:00 -> 03:00: 02:00 to 02:30 fire at 03:00"},
        ),
        (
            "30 1 * * *",
            NEW_YORK,
            (2027, 11, 6),
            {
                "2027-11-07T01:30:00-04:00": (
                    "the clock goes back 02:00 -> 01:00: 01:30 comes twice; fires the first time"
                )
            },
        ),
        (
            "*/30 1 * * *",
            NEW_YORK,
            (2027, 11, 7),
            {
                "2027-11-07T01:00:00-04:00": f"{BACK}: 01:00 comes twice; this is the first time",
                "2027-11-07T01:30:00-04:00": f"{BACK}: 01:30 comes twice; this is the first time",
                "2027-11-07T01:00:00-05:00": f"{BACK}: 01:00 comes twice; this is the second time",
                "2027-11-07T01:30:00-05:00": f"{BACK}: 01:30 comes twice; this is the second time",
            },
        ),
        (
            "*/15 2 * * *",
            NEW_YORK,
            (2027, 3, 14),
            {
                "2027-03-15T02:00:00-04:00": (
                    "on 2027-03-14 the clock goes forward 02:00 -> 03:00: 02:00 to 02:45 do not come"
                )
            },
        ),
        (
            "0 * * * *",
            NEW_YORK,
            (2027, 3, 14, 5),
            {"2027-03-14T03:00:00-04:00": "the clock goes forward 02:00 -> 03:00: 02:00 does not come"},
        ),
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            (2027, 10, 1),
            {"2027-10-03T02:30:00+11:00": "the clock goes forward 02:00 -> 02:30: 02:15 fires at 02:30"},
        ),
        (
            "0 12 * * *",
            "Pacific/Apia",
            (2011, 12, 28),
            {
                "2011-12-31T00:00:00+14:00": (
                    "the clock goes forward 2011-12-30 00:00 -> 2011-12-31 00:00: 12:00 fires at 00:00"
                )
            },
        ),
        ("30 2 * * *", "America/Sao_Paulo", (2027, 1, 1), {}),
        ("@every 1h", NEW_YORK, (2027, 3, 14, 4), {}),
        ("30 5 * * *", NEW_YORK, (2027, 3, 12), {}),
    ],
)
def test_a_fire_time_says_what_the_clock_does_to_it(
    cron: str, zone: str, since: tuple[int, ...], expected: dict[str, str]
) -> None:
    assert remarks(cron, zone, *since) == expected


ZONES = [NEW_YORK, "Europe/London", "Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia", "Africa/Cairo"]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.integers(2007, 2028),
    st.sampled_from(["0", "15", "30", "45"]),
    st.integers(0, 23),
)
def test_a_daily_fire_time_has_a_remark_exactly_where_brute_force_sees_a_turn(
    name: str, year: int, minute: str, hour: int
) -> None:
    it = schedule(f"{minute} {hour} * * *", timezone=name)
    zone = ZoneInfo(name)
    since = datetime(year, 1, 15, tzinfo=UTC)
    for fire in islice(it.fires.between(since.astimezone(zone), since + timedelta(days=366)), 400):
        wall = fire.replace(tzinfo=None, fold=0)
        day_before = [(wall - timedelta(days=1)).replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1)]
        # Apia left out the whole of 2011-12-30: its time of day fires at the end of that gap, too.
        is_day_lost = (day_before[1] or timedelta()) - (day_before[0] or timedelta()) >= timedelta(days=1)
        is_moved = (wall.hour, wall.minute) != (hour, int(minute)) or (is_day_lost and (hour, minute) == (0, "0"))
        first, second = (wall.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
        assert first is not None
        assert second is not None
        text = remark_on(it, fire)
        assert ("fires at" in text, "comes twice" in text) == (is_moved, second < first), fire
        assert bool(text) is (is_moved or second < first)


# -- which fire times ------------------------------------------------------------------------------------------------


def test_fire_times_come_soonest_first_in_their_zone_and_in_utc() -> None:
    schedules = [schedule("0 9 * * *", "paris", timezone="Europe/Paris"), schedule("30 8 * * *", "utc")]
    rows = fires_ahead(schedules, NOW, count=2)
    assert [(row.schedule_id, row.fire_time, row.utc) for row in rows] == [
        ("paris", "2026-11-25T09:00:00+01:00", "2026-11-25T08:00:00+00:00"),
        ("utc", "2026-11-25T08:30:00+00:00", "2026-11-25T08:30:00+00:00"),
        ("paris", "2026-11-26T09:00:00+01:00", "2026-11-26T08:00:00+00:00"),
        ("utc", "2026-11-26T08:30:00+00:00", "2026-11-26T08:30:00+00:00"),
    ]
    assert rows[0].in_s == 71970.0


def test_until_takes_every_fire_time_up_to_and_with_it_and_count_still_bounds() -> None:
    it = schedule("0 * * * *")
    until = datetime(2026, 11, 24, 15, tzinfo=UTC)
    hours = [row.utc[11:16] for row in fires_ahead([it], NOW, count=None, until=until)]
    assert hours == ["13:00", "14:00", "15:00"]
    assert len(fires_ahead([it], NOW, count=2, until=until)) == 2


def test_a_schedule_without_a_fire_time_says_why() -> None:
    schedules = [
        schedule("0 9 * * *", "off", enabled=False),
        schedule("0 0 1 1 *", "later"),
        schedule("0 * * * *", "hourly"),
    ]
    rows = fires_ahead(schedules, NOW, count=1, until=NOW + timedelta(hours=2))
    assert [(row.schedule_id, row.utc is None, row.remark) for row in rows] == [
        ("hourly", False, None),
        ("later", True, "fires next at 2027-01-01T00:00:00+00:00"),
        ("off", True, "disabled: it does not fire"),
    ]
    [row] = fires_ahead([schedule("0 9 * * *")], datetime(9999, 12, 31, 12, tzinfo=UTC), count=3)
    assert (row.fire_time, row.remark) == (None, "it never fires again")


# -- the screen ------------------------------------------------------------------------------------------------------


def test_the_screen_shows_times_remarks_and_what_each_schedule_says() -> None:
    schedules = [
        schedule("30 2 * * *", "nightly", timezone=NEW_YORK),
        schedule("@every 12h", "twice"),
        schedule("0 9 * * *", "off", enabled=False),
    ]
    now = datetime(2027, 3, 14, 0, 0, 30, tzinfo=UTC)
    assert render_fires(fires_ahead(schedules, now, count=1), 80).splitlines() == [
        "SCHEDULE  FIRES AT                  UTC    IN",
        "nightly   Sun 2027-03-14 03:00 EDT  07:00  6h 59m",
        "    the clock goes forward 02:00 -> 03:00: 02:30 fires at 03:00",
        "twice     Sun 2027-03-14 12:00 UTC  12:00  11h 59m",
        "off: disabled: it does not fire",
        "",
        "SCHEDULE  CRON        IN WORDS",
        "nightly   30 2 * * *  at 02:30 every day",
        "twice     @every 12h  every 12h",
        "off       0 9 * * *   at 09:00 every day",
    ]


def test_the_screen_names_the_day_in_utc_where_it_is_another_and_seconds_where_there_are_any() -> None:
    it = [schedule("0 0 * * *", "paris", timezone="Europe/Paris"), schedule("@every 90s", "often")]
    text = render_fires(fires_ahead(it, NOW, count=1), None)
    assert "paris     Wed 2026-11-25 00:00 CET     Tue 23:00  10h 59m" in text
    assert "often     Tue 2026-11-24 12:01:30 UTC  12:01:30   1m 0s" in text


@pytest.mark.parametrize("width", [30, 60, 80])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    schedules = [
        schedule("*/15 2 * * MON,TUE,SUN", "a_schedule_with_a_name_that_goes_on_and_on", timezone=NEW_YORK),
        schedule("0 9 * * *", "off", enabled=False),
    ]
    rows = fires_ahead(schedules, datetime(2027, 3, 14, tzinfo=UTC), count=3)
    assert any(row.remark for row in rows)
    assert all(len(line) <= width for line in render_fires(rows, width).splitlines())


def test_a_schedule_without_an_expression_is_shown_in_words() -> None:
    poll = schedule_from({"id": "poll", "every": "90s", "dag": "dags/d.yaml"})
    rows = fires_ahead([poll], NOW, count=1)
    assert rows[0].cron is None
    shown = render_fires(rows, None)
    assert "every 1m30s" in shown
    assert "poll" in shown


def test_no_rows_are_a_sentence() -> None:
    assert render_fires([], 80) == "No fire times ahead"


# -- the command -----------------------------------------------------------------------------------------------------

Next = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(tmp_path: Path) -> Next:
    for name in ("schedules", "dags"):
        (tmp_path / name).mkdir()
    (tmp_path / "dags" / "d.yaml").write_text('id: d\ntasks:\n  - {id: t, run: ["true"]}\n')
    (tmp_path / "schedules" / "a.yaml").write_text(
        "- {id: hourly, cron: '0 * * * *', dag: dags/d.yaml}\n"
        "- {id: new_year, cron: '0 0 1 1 *', dag: dags/d.yaml, timezone: Europe/Paris}\n"
        "- {id: off, cron: '0 0 1 1 *', dag: dags/d.yaml, enabled: false}\n"
    )

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        line = [sys.executable, "-m", "scheduler.cli", "next", *words]
        return subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_next_shows_fire_times_in_their_zone_and_in_words(command: Next) -> None:
    rows = json.loads(command("new_year", "--count", "2", "--json").stdout)
    assert [row["fire_time"][4:] for row in rows] == ["-01-01T00:00:00+01:00"] * 2
    assert rows[0]["utc"].endswith("-12-31T23:00:00+00:00")
    assert (rows[0]["explained"], rows[0]["cron"]) == ("at 00:00 on the 1st of January", "0 0 1 1 *")
    text = command("new_year", "--count", "1").stdout.splitlines()
    assert text[0].split()[:3] == ["SCHEDULE", "FIRES", "AT"]
    assert len(text) == 5


def test_next_counts_five_of_each_and_all_up_to_a_moment(command: Next) -> None:
    def shown(*words: str) -> int:
        return sum(row["utc"] is not None for row in json.loads(command("hourly", "--json", *words).stdout))

    assert shown() == 5
    assert shown("--until", "7h") == 7
    assert shown("--until", "7h", "--count", "2") == 2
    # The clock goes on until the command reads it.
    assert shown("--until", (datetime.now(UTC) + timedelta(hours=9)).isoformat()) in (8, 9)
    assert shown("--until", "2020-01-01T00:00:00Z") == 0


def test_next_of_a_disabled_schedule_says_so(command: Next) -> None:
    assert command("off").stdout.splitlines()[0] == "off: disabled: it does not fire"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ("--until", "soon"),
            "--until 'soon': write a duration such as 7d, or an ISO 8601 time with its zone,"
            " such as 2026-11-23T09:00:00Z, before the year 9999",
        ),
        (
            ("--until", "2026-11-23T09:00:00"),
            "--until '2026-11-23T09:00:00': write a duration such as 7d, or an ISO 8601 time with its zone,"
            " such as 2026-11-23T09:00:00Z, before the year 9999",
        ),
        (("hourli",), "no schedule `hourli`; did you mean `hourly`?"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(command: Next, words: tuple[str, ...], line: str) -> None:
    done = command(*words)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{line}\n")
