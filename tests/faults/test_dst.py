"""Daylight saving: turns of the clock in five zones, in six forms of expression, against a walk over all minutes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from cron_oracle import MINUTE, Meaning, Minute, timeline, transitions, verdicts

from scheduler.cron import Cron, parse_cron
from scheduler.schedule_model import Schedule
from scheduler.state_store import StateStore
from scheduler.ticker import Ticker
from workers.event_log import EventLog
from workers.segments import LogReader

# Each with the years in which the reduced test meets both its turns; the full one meets all from 1970 to 2037.
ZONES = {
    "America/New_York": (2026, 2026),
    "Europe/London": (2026, 2026),
    "Australia/Lord_Howe": (2026, 2026),  # half an hour
    "America/Sao_Paulo": (2017, 2018),  # at midnight
    "Pacific/Apia": (2011, 2012),  # and 2011-12-30 never came
}
BEFORE, AFTER = timedelta(days=1, hours=2), timedelta(days=2)
LENGTH = int((BEFORE + AFTER) / MINUTE)


def _forms(wall: datetime) -> dict[str, str]:
    """Six forms, their times of day around `wall`, which the clock skips or shows twice."""
    hours = sorted({(wall.hour + step) % 24 for step in (-1, 0, 1)})
    day = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"][wall.isoweekday() % 7]
    nth = (wall.day + 6) // 7
    return {
        "time of day": f"{wall.minute} {wall.hour} * * *",
        "minute of every hour": f"{wall.minute} * * * *",
        "steps": "*/20 * * * *",
        "every minute": "* * * * *",
        "hours in a list": f"7,{wall.minute},53 {','.join(map(str, hours))} * * *",
        "days": f"{wall.minute},15 0-{wall.hour or 23} L,{wall.day}W * {day}#{nth},{day}L",
    }


def _walls(minutes: tuple[Minute, ...], zone: str) -> list[datetime]:
    """Return wall clocks that this turn of the clock skips or shows twice: the first, the middle, the last of them."""
    odd = [(day, of_day) for minute in minutes for day, of_day in minute.skipped]
    odd = odd or [(minute.day, minute.of_day) for minute in minutes if minute.is_again]
    assert odd, (zone, minutes[0])
    chosen = {odd[0], odd[len(odd) // 2], odd[-1]}
    return [datetime(day.year, day.month, day.day, *divmod(of_day, 60)) for day, of_day in sorted(chosen)]  # noqa: DTZ001


def _told(cron: Cron, minutes: tuple[Minute, ...], zone: str) -> dict[str, list[int]]:
    """Return the product's fire times in these minutes, by each of its three ways of asking."""
    tz = ZoneInfo(zone)
    since = datetime.fromtimestamp(minutes[0].at - 1, UTC)
    until = datetime.fromtimestamp(minutes[-1].at + 59, UTC)
    found: dict[str, list[int]] = {"between": [], "next": [], "prev": []}
    found["between"] = [int(fire.timestamp()) for fire in cron.between(since.astimezone(tz), until.astimezone(tz))]
    at, end = cron.next(since.astimezone(tz)), until.timestamp()
    while at is not None and at.timestamp() <= end and len(found["next"]) <= len(found["between"]):
        found["next"].append(int(at.timestamp()))
        at = cron.next(at)
    at, begin = cron.prev((until + timedelta(microseconds=1)).astimezone(tz)), since.timestamp()
    while at is not None and at.timestamp() > begin and len(found["prev"]) <= len(found["between"]):
        found["prev"].insert(0, int(at.timestamp()))
        at = cron.prev(at)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("zone", ZONES)
def test_every_turn_of_the_clock_fires_as_a_walk_over_each_minute_says(
    zone: str, count: Callable[[int, int], int], figure: Callable[[str], None]
) -> None:
    years = ZONES[zone] if count(0, 1) == 0 else (1970, 2037)
    turns = transitions(zone, *years)
    compared = fires = 0
    for turn in turns:
        minutes = timeline.__wrapped__(zone, turn - BEFORE, LENGTH)
        for wall in _walls(minutes, zone):
            for form, text in _forms(wall).items():
                expected = Meaning(text).fires(minutes)
                for way, told in _told(parse_cron(text), minutes, zone).items():
                    assert told == expected, (zone, turn, form, text, way)
                compared, fires = compared + 3, fires + len(expected)
    assert len(turns) >= 2
    figure(f"{zone} {years[0]}-{years[1]}: {len(turns)} turns, {compared} comparisons of {fires} fire times, 0 differ")


@pytest.mark.parametrize("period", ["45m", "90s", "1h", "7s"])
def test_a_period_knows_nothing_of_the_clocks_turns(period: str, figure: Callable[[str], None]) -> None:
    compared = 0
    for zone, years in ZONES.items():
        for turn in transitions(zone, *years):
            minutes = timeline(zone, turn - timedelta(hours=2), 240)
            text = f"@every {period}"
            expected = Meaning(text).fires(minutes)
            for way, told in _told(parse_cron(text), minutes, zone).items():
                assert told == expected, (zone, turn, way)
            compared += len(expected)
    figure(f"@every {period}: {compared} fire times around turns of the clock, 0 differ")


@pytest.mark.parametrize("zone", ZONES)
def test_a_service_that_ticks_through_a_turn_gives_each_fire_time_one_verdict(
    zone: str, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """Tick by tick through both turns, a new process every few hours: what the log tells is what the oracle tells."""
    log, told, turns = tmp_path / "state.jsonl", 0, transitions(zone, *ZONES[zone])
    store = StateStore(EventLog(log, fsync="off"))
    for number, turn in enumerate(turns):
        minutes = timeline(zone, turn - timedelta(hours=3), 30 * 60)
        wall = _walls(minutes, zone)[1]
        crons = {f"{form.replace(' ', '_')}.{number}": text for form, text in _forms(wall).items()}
        schedules = [Schedule(name, text, "d", timezone=zone, overlap="allow") for name, text in crons.items()]
        for minute in minutes:
            now = datetime.fromtimestamp(minute.at + 7, UTC)
            if minute is minutes[0] or minute.at % (4 * 3600) == 0:
                store.close()
                store = StateStore(EventLog(log, fsync="off"))
                store.refresh()
                ticker = Ticker(store, schedules, now)
            ticker.tick(now)
        reader = LogReader(log, from_start=True)
        events = reader.read()
        reader.close()
        for name, text in crons.items():
            fires = Meaning(text).fires(minutes)
            assert verdicts(events, name, fires) == dict.fromkeys(fires, 1), (turn, text)
            assert all(e["event"] != "schedule_missed" for e in events if e.get("schedule_id") == name)
            told += len(fires)
    store.close()
    figure(f"{zone}: {told} fire times through {len(turns)} turns, each one verdict, none missed")
