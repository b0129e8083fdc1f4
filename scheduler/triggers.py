"""Triggers: what a schedule's fire times are made of. `Cron` is one; these are the others, and what joins them."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from .cron_times import EPOCH, Period, wall_time

__all__ = ["AnyOf", "Every", "Never", "Times", "Trigger", "in_utc", "read_time"]


class Trigger(Protocol):
    """Fire times in order. Every datetime it takes must be aware; it answers in the zone of that datetime.

    Two that are equal have the same fire times, so whoever asks for many schedules works them out once.
    """

    def next(self, after: datetime) -> datetime | None:
        """Return the first fire time strictly after `after`, or None."""

    def prev(self, before: datetime) -> datetime | None:
        """Return the last fire time strictly before `before`, or None."""

    def between(self, since: datetime, until: datetime) -> Iterator[datetime]:
        """Yield every fire time after `since` up to and including `until`, ascending."""

    def explain(self) -> str:
        """Say it in plain words."""

    def __hash__(self) -> int: ...


class Every(NamedTuple):
    """A period, counted from `anchor` (in UTC) in both directions, so that a restart never shifts it."""

    period: timedelta
    anchor: datetime = EPOCH

    def next(self, after: datetime) -> datetime | None:
        """See Trigger."""
        return next(Period(self.period, self.anchor).ascending(after), None)

    def prev(self, before: datetime) -> datetime | None:
        """See Trigger."""
        return next(Period(self.period, self.anchor).descending(before), None)

    def between(self, since: datetime, until: datetime) -> Iterator[datetime]:
        """See Trigger."""
        end = until.astimezone(UTC)
        for fire in Period(self.period, self.anchor).ascending(since):
            if fire.astimezone(UTC) > end:
                return
            yield fire

    def explain(self) -> str:
        """See Trigger."""
        anchored = f", counted from {self.anchor:%Y-%m-%d %H:%M:%S} UTC" if self.anchor != EPOCH else ""
        return f"every {self.period}{anchored}"


class Times(NamedTuple):
    """Single moments, ascending, in UTC."""

    moments: tuple[datetime, ...]

    def next(self, after: datetime) -> datetime | None:
        """See Trigger."""
        place = bisect_right(self.moments, after.astimezone(UTC))
        return self.moments[place].astimezone(after.tzinfo) if place < len(self.moments) else None

    def prev(self, before: datetime) -> datetime | None:
        """See Trigger."""
        place = bisect_left(self.moments, before.astimezone(UTC))
        return self.moments[place - 1].astimezone(before.tzinfo) if place else None

    def between(self, since: datetime, until: datetime) -> Iterator[datetime]:
        """See Trigger."""
        first, last = (bisect_right(self.moments, each.astimezone(UTC)) for each in (since, until))
        return (moment.astimezone(since.tzinfo) for moment in self.moments[first:last])

    def explain(self) -> str:
        """See Trigger."""
        texts = [f"{moment:%Y-%m-%d %H:%M:%S} UTC" for moment in self.moments]
        return f"at {texts[0]}" if len(texts) == 1 else f"at {len(texts)} times from {texts[0]} to {texts[-1]}"


class AnyOf(NamedTuple):
    """Several triggers; a time that more than one of them names is one fire time."""

    triggers: tuple[Trigger, ...]

    def next(self, after: datetime) -> datetime | None:
        """See Trigger."""
        return min(filter(None, (each.next(after) for each in self.triggers)), key=in_utc, default=None)

    def prev(self, before: datetime) -> datetime | None:
        """See Trigger."""
        return max(filter(None, (each.prev(before) for each in self.triggers)), key=in_utc, default=None)

    def between(self, since: datetime, until: datetime) -> Iterator[datetime]:
        """See Trigger."""
        last = None
        for fire in heapq.merge(*(each.between(since, until) for each in self.triggers), key=in_utc):
            if last is None or in_utc(fire) > last:
                yield fire
            last = in_utc(fire)

    def explain(self) -> str:
        """See Trigger."""
        return ", and ".join(each.explain() for each in self.triggers)


class Never(NamedTuple):
    """No fire time at all: the schedule waits for something other than the time, which `text` names."""

    text: str

    def next(self, after: datetime) -> datetime | None:
        """See Trigger."""
        return None

    def prev(self, before: datetime) -> datetime | None:
        """See Trigger."""
        return None

    def between(self, since: datetime, until: datetime) -> Iterator[datetime]:
        """See Trigger."""
        return iter(())

    def explain(self) -> str:
        """See Trigger."""
        return self.text


def read_time(text: str, zone: ZoneInfo) -> datetime:
    """Read an ISO 8601 time, in `zone` where it names no offset; return it in UTC. Raises ValueError.

    A time of day that the clock skips is the end of the gap, one that comes twice the first of the two, as in cron.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = wall_time(moment, zone)
    return moment.astimezone(UTC)


def in_utc(moment: datetime) -> datetime:
    """Return it in UTC: two times of one zone compare by their wall clocks, which a change of the clock turns round."""
    return moment.astimezone(UTC)
