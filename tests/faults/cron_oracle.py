"""An oracle of fire times: the rules of docs/reference.md#cron, read once more and applied to every minute of UTC.

It shares nothing with the product but the text of an expression: no search, no `fold`, no jump. A clock change is what
shows when a wall clock is looked at minute by minute: it leaps forward, or it comes back to where it has been.
"""

from __future__ import annotations

import random
from calendar import monthrange
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

DAY = 24 * 60
MINUTE = timedelta(minutes=1)
MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * SUN",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


# -- the clock, minute by minute -------------------------------------------------------------------------------------


class Minute(NamedTuple):
    """One minute of UTC: when it begins (seconds since the epoch), and what the wall clock shows.

    `is_again`: the wall clock has shown this before. `skipped`: what it leapt over to come here.
    """

    at: int
    day: date
    of_day: int
    is_again: bool
    skipped: tuple[tuple[date, int], ...]


@cache
def timeline(zone: str, start: datetime, minutes: int) -> tuple[Minute, ...]:
    """Return the minutes from `start` on; a day before it is walked too, for what the clock has shown already."""
    tz, told, latest = ZoneInfo(zone), [], None
    for count in range(-DAY, minutes):
        instant = start + count * MINUTE
        wall = instant.astimezone(tz).replace(tzinfo=None)
        skipped: list[tuple[date, int]] = []
        if latest is not None:
            leapt = latest + MINUTE
            while leapt < wall:
                skipped.append((leapt.date(), leapt.hour * 60 + leapt.minute))
                leapt += MINUTE
        is_again = latest is not None and wall <= latest
        latest = wall if latest is None else max(latest, wall)
        if count >= 0:
            of_day = wall.hour * 60 + wall.minute
            told.append(Minute(int(instant.timestamp()), wall.date(), of_day, is_again, tuple(skipped)))
    return tuple(told)


def transitions(zone: str, first_year: int, last_year: int) -> list[datetime]:
    """Return the hours of UTC in which the zone's offset changes."""
    tz, found = ZoneInfo(zone), []
    now, end = datetime(first_year, 1, 1, tzinfo=UTC), datetime(last_year + 1, 1, 1, tzinfo=UTC)
    while now < end:
        if now.astimezone(tz).utcoffset() != (now + timedelta(days=1)).astimezone(tz).utcoffset():
            hours = [now + timedelta(hours=hour) for hour in range(25)]
            offsets = [hour.astimezone(tz).utcoffset() for hour in hours]
            found += [hours[n] for n in range(24) if offsets[n] != offsets[n + 1]]
        now += timedelta(days=1)
    return found


# -- what five fields mean -------------------------------------------------------------------------------------------


class Meaning:
    """What an expression says, after docs/reference.md#cron."""

    def __init__(self, text: str) -> None:
        self.text = text
        words = ALIASES.get(text.lower(), text).upper().split()
        self.period_s = _seconds(words[1].lower()) if words[0] == "@EVERY" else 0
        if self.period_s:
            return
        minute, hour, self._days, month, self._weekdays = words
        minutes, hours = _numbers(minute, 0, 60), _numbers(hour, 0, 24)
        self.of_day = frozenset(h * 60 + m for h in hours for m in minutes)
        self.months = _numbers(month, 1, 12, MONTHS)
        self.is_fixed = not minute.startswith("*") and not hour.startswith("*")
        self.needs_both = self._days[0] in "*?" or self._weekdays[0] in "*?"
        self._known: dict[date, bool] = {}

    def has_day(self, day: date) -> bool:
        """Say whether it fires on such a day at all."""
        if day not in self._known:
            both = [_is_day(self._days, day), _is_weekday(self._weekdays, day)]
            self._known[day] = day.month in self.months and (all(both) if self.needs_both else any(both))
        return self._known[day]

    def fires(self, minutes: Iterable[Minute]) -> list[int]:
        """Return its fire times in these minutes, in seconds since the epoch."""
        if self.period_s:
            return [at for minute in minutes for at in range(minute.at, minute.at + 60) if at % self.period_s == 0]
        return [minute.at for minute in minutes if self._fires_at(minute)]

    def _fires_at(self, minute: Minute) -> bool:
        is_shown = minute.of_day in self.of_day and self.has_day(minute.day)
        if not self.is_fixed:
            return is_shown
        if is_shown and not minute.is_again:
            return True
        return any(of_day in self.of_day and self.has_day(day) for day, of_day in minute.skipped)

    def next_in_utc(self, after: datetime, days: int) -> datetime | None:
        """Return its first fire time after `after` in UTC, where no clock turns; None where so many days have none."""
        for count in range(days):
            midnight = datetime(after.year, after.month, after.day, tzinfo=UTC) + timedelta(days=count)
            if self.has_day(midnight.date()):
                later = [midnight + of_day * MINUTE for of_day in sorted(self.of_day)]
                found = next((at for at in later if at > after), None)
                if found is not None:
                    return found
        return None


def _seconds(text: str) -> int:
    total, digits = 0, ""
    for sign in text:
        if sign.isdigit():
            digits += sign
        else:
            total, digits = total + int(digits) * _UNITS[sign], ""
    return total


def _numbers(text: str, low: int, span: int, names: Sequence[str] = ()) -> set[int]:
    return {number for item in text.split(",") for number in _item(item, low, span, names)}


def _item(item: str, low: int, span: int, names: Sequence[str]) -> list[int]:
    body, _, step = item.partition("/")
    every = int(step or 1)
    is_week = span == 7

    def number(word: str) -> int:
        return names.index(word) + low if word in names else int(word)

    if body in ("*", "?"):
        return list(range(low, low + span))[::every]
    if "-" not in body:
        first = number(body)
        # A step from a number on goes to the end of the field, which is 7 in the days of the week.
        ring = list(range(first, low + span + is_week)) if step else [first]
    else:
        first, last = (number(word) for word in body.split("-"))
        round_the_end = [*range(first, low + span), *range(low, last + 1)]
        ring = list(range(first, last + 1)) if first <= last else round_the_end
    return [each % 7 if is_week else each for each in ring[::every]]


def _is_day(text: str, day: date) -> bool:
    last = monthrange(day.year, day.month)[1]
    workdays = [n for n in range(1, last + 1) if day.replace(day=n).isoweekday() <= 5]
    for item in text.split(","):
        if item == "L":
            found = day.day == last
        elif item == "LW":
            found = day.day == workdays[-1]
        elif item.endswith("W"):
            wanted = int(item[:-1])
            found = wanted <= last and day.day == min(workdays, key=lambda n, wanted=wanted: (abs(n - wanted), n))
        else:
            found = day.day in _item(item, 1, 31, ())
        if found:
            return True
    return False


def _is_weekday(text: str, day: date) -> bool:
    today = day.isoweekday() % 7
    for item in text.split(","):
        if "#" in item:
            name, _, nth = item.partition("#")
            found = today == _item(name, 0, 7, WEEKDAYS)[0] and (day.day + 6) // 7 == int(nth)
        elif item.endswith("L"):
            last = monthrange(day.year, day.month)[1]
            found = today == _item(item[:-1], 0, 7, WEEKDAYS)[0] and day.day + 7 > last
        else:
            found = today in _item(item, 0, 7, WEEKDAYS)
        if found:
            return True
    return False


# -- expressions at random -------------------------------------------------------------------------------------------


def random_expression(dice: random.Random) -> str:
    """Return an expression of any form that the reference lists; it may be one that never fires."""
    kind = dice.random()
    if kind < 0.02:
        return dice.choice([*ALIASES, "@DAILY"])
    if kind < 0.05:
        periods = ("1h30m", "90s", "7s", "1d", f"{dice.randint(1, 90)}m", f"{dice.randint(1, 40)}h")
        return f"@every {dice.choice(periods)}"
    # Few of every minute: they take most of the time and tell the least.
    minute = "*" if dice.random() < 0.1 else _random_list(dice, 0, 60)
    fields = [minute, _random_field(dice, 0, 24)]
    fields.append(_random_days(dice) if dice.random() < 0.2 else _random_field(dice, 1, 31))
    fields.append(_random_field(dice, 1, 12, MONTHS) if dice.random() < 0.4 else "*")
    fields.append(_random_weekdays(dice) if dice.random() < 0.2 else _random_field(dice, 0, 7, WEEKDAYS))
    return dice.choice([" ", " ", "  ", "\t"]).join(fields)


def _random_field(dice: random.Random, low: int, span: int, names: Sequence[str] = ()) -> str:
    return "*" if dice.random() < 0.35 else _random_list(dice, low, span, names)


def _random_list(dice: random.Random, low: int, span: int, names: Sequence[str] = ()) -> str:
    return ",".join(_random_item(dice, low, span, names) for _ in range(dice.choice([1, 1, 1, 2, 3, 4])))


def _random_item(dice: random.Random, low: int, span: int, names: Sequence[str]) -> str:
    def number() -> str:
        value = dice.randint(low, low + span - (span != 7))
        if names and dice.random() < 0.4:
            name = names[(value - low) % span]
            return dice.choice([name, name.lower(), name.title()])
        return f"{value:02}" if dice.random() < 0.1 else str(value)

    step = dice.randint(1, span)
    forms = ("*", f"*/{step}", number(), number(), f"{number()}-{number()}", f"{number()}-{number()}/{step}")
    return dice.choice((*forms, f"{number()}/{step}"))


def _random_days(dice: random.Random) -> str:
    some = ["L", "LW", "l", f"{dice.randint(1, 31)}W", f"{dice.randint(1, 31)}w", str(dice.randint(1, 31))]
    return "?" if dice.random() < 0.3 else ",".join(dice.sample(some, dice.choice([1, 1, 2, 3])))


def _random_weekdays(dice: random.Random) -> str:
    some = [f"{dice.randint(0, 7)}L", f"{dice.choice(WEEKDAYS)}L", f"{dice.randint(0, 7)}#{dice.randint(1, 5)}"]
    some += [f"{dice.choice(WEEKDAYS).lower()}#{dice.randint(1, 5)}", str(dice.randint(0, 7))]
    return "?" if dice.random() < 0.3 else ",".join(dice.sample(some, dice.choice([1, 1, 2, 3])))


# -- what a log says of them -----------------------------------------------------------------------------------------


def verdicts(events: Iterable[dict[str, Any]], schedule_id: str, fires: Sequence[int]) -> Counter[int]:
    """Count the verdicts that the events give to each fire time (seconds); a missed range tells all that lie in it."""
    told: Counter[int] = Counter()
    for event in events:
        if event.get("schedule_id") != schedule_id:
            continue
        if event["event"] in ("schedule_enqueued", "schedule_skipped"):
            told[_at(event["minute"])] += 1
        elif event["event"] == "schedule_missed":
            within = [fire for fire in fires if _at(event["from"]) <= fire <= _at(event["to"])]
            assert len(within) == event["count"] or event.get("is_more"), event
            told.update(within)
    return told


def enqueued(events: Iterable[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """Count how often each {schedule_id, minute} was enqueued."""
    return Counter((e["schedule_id"], e["minute"]) for e in events if e["event"] == "schedule_enqueued")


def _at(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp())
