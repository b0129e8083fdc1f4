"""Random expressions of every form against the oracle: days in many zones, and the next fire time however far it is."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cron_oracle import Meaning, random_expression, timeline, transitions

from scheduler.cron import Cron, InvalidCron, parse_cron

SEED = 20261123
ZONES = (
    *("UTC", "America/New_York", "Europe/London", "Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia"),
    *("Asia/Kolkata", "Antarctica/Troll", "Africa/Casablanca", "Asia/Tehran", "America/St_Johns", "Pacific/Chatham"),
)
WINDOW = 26 * 60
# Weekdays and leap years come round after 28 years; so many days without a fire time are a proof that none comes.
CYCLE_DAYS = 28 * 366


def _windows(dice: random.Random, some: int) -> list[tuple[str, datetime]]:
    """Return days at random, in every zone, and the days of its last turns of the clock."""
    windows = []
    for zone in ZONES:
        windows += [(zone, turn - timedelta(hours=13)) for turn in transitions(zone, 2016, 2018)[-2:]]
        for _ in range(some):
            minutes = dice.randrange(120 * 365 * 1440)
            day = datetime(1975, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
            windows.append((zone, day))
    return windows


def _parsed(text: str) -> Cron | None:
    try:
        return parse_cron(text)
    except InvalidCron as error:
        if not error.rule.startswith("never fires"):
            raise
        return None


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_random_expressions_fire_exactly_as_the_oracle_says(
    count: Callable[[int, int], int], figure: Callable[[str], None]
) -> None:
    dice, expressions = random.Random(SEED), count(3_000, 100_000)
    windows = _windows(dice, count(2, 8))
    fires = never = 0
    for number in range(expressions):
        text = random_expression(dice)
        meaning, cron = Meaning(text), _parsed(text)
        if cron is None:
            assert meaning.next_in_utc(datetime(2000, 1, 1, tzinfo=UTC), CYCLE_DAYS) is None, text
            never += 1
            continue
        zone, start = dice.choice(windows)
        minutes = timeline(zone, start, WINDOW)
        expected = meaning.fires(minutes)
        since, until = (datetime.fromtimestamp(at, ZoneInfo(zone)) for at in (minutes[0].at - 1, minutes[-1].at + 59))
        told = [int(fire.timestamp()) for fire in cron.between(since, until)]
        assert told == expected, (SEED, number, text, zone, start)
        fires += len(expected)
        if not meaning.period_s:
            assert cron.next(start) == meaning.next_in_utc(start, CYCLE_DAYS), (SEED, number, text, start)
    told = f"{expressions} expressions, each over a day and to its next fire time"
    figure(f"seed {SEED}: {told}: {fires} fire times, {never} never fire, 0 differ")
