"""Blackout windows: times in which a schedule does not run, and what becomes of its fire times there. Pure.

With `skip` a fire time in a window is skipped. With `defer` it is, too, but for all of them together there is one
further fire time where the windows end. A window holds its start and not its end; it lasts as long as a stopwatch
says, whatever the clock does meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, Protocol
from zoneinfo import ZoneInfo

import msgspec

from workers.units import Duration

from .cron_times import EPOCH
from .triggers import Trigger

__all__ = ["Blackout", "Deferring", "Period", "Repeated", "Windows", "end_of", "is_in"]

_INSTANT = timedelta(microseconds=1)
# So many windows in a row without a gap are no window any more.
_MOST_IN_A_ROW = 1000


class Blackout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Windows as a file has them: from each fire time of `cron` for `duration`, or once from `from` to `to`."""

    cron: str | None = None
    duration: Duration | None = None
    from_: str | None = msgspec.field(default=None, name="from")
    to: str | None = None
    then: Literal["skip", "defer"] = "skip"

    @property
    def keys(self) -> tuple[str, ...]:
        """Which of the keys that make a window are given."""
        given = {"cron": self.cron, "duration": self.duration, "from": self.from_, "to": self.to}
        return tuple(key for key, value in given.items() if value is not None)


class Windows(Protocol):
    """Windows that follow one rule. Every datetime is aware."""

    def first(self) -> datetime | None:
        """Return when the first window since 1970 begins."""

    def end(self, moment: datetime) -> datetime | None:
        """Return in UTC when the window ends in which `moment` lies, the last of them; None when it lies in none."""

    def __hash__(self) -> int: ...


class Repeated(NamedTuple):
    """From each fire time of `start`, in its zone, for `duration`."""

    start: Trigger
    zone: ZoneInfo
    duration: timedelta

    def first(self) -> datetime | None:
        """See Windows."""
        return self.start.next(EPOCH.astimezone(self.zone))

    def end(self, moment: datetime) -> datetime | None:
        """See Windows."""
        began = self.start.prev((moment.astimezone(UTC) + _INSTANT).astimezone(self.zone))
        end = None if began is None else began.astimezone(UTC) + self.duration
        return end if end is not None and end > moment.astimezone(UTC) else None


class Period(NamedTuple):
    """Once, between two moments in UTC."""

    since: datetime
    until: datetime

    def first(self) -> datetime | None:
        """See Windows."""
        return self.since

    def end(self, moment: datetime) -> datetime | None:
        """See Windows."""
        return self.until if self.since <= moment.astimezone(UTC) < self.until else None


def is_in(windows: Sequence[Windows], moment: datetime) -> bool:
    """Say whether a moment lies in a window."""
    return any(each.end(moment) is not None for each in windows)


def end_of(windows: Sequence[Windows], moment: datetime) -> datetime | None:
    """Return in UTC when the windows end in which `moment` lies, those included that overlap or touch them.

    None when it lies in none, or when they leave no gap for a thousand windows.
    """
    end, number = None, 0
    following = max(filter(None, (each.end(moment) for each in windows)), default=None)
    while following is not None:
        end, number = following, number + 1
        if number > _MOST_IN_A_ROW:
            return None
        following = max(filter(None, (each.end(end) for each in windows)), default=None)
    return end


class Deferring(NamedTuple):
    """A trigger with one more fire time where windows end, if any of its fire times lay in them. See Trigger."""

    trigger: Trigger
    windows: tuple[Windows, ...]

    def next(self, after: datetime) -> datetime | None:
        """See Trigger."""
        following = self.trigger.next(after)
        end = self._deferred_to(after)
        if end is None or (following is not None and following.astimezone(UTC) <= end):
            return following
        return end.astimezone(after.tzinfo)

    def prev(self, before: datetime) -> datetime | None:
        """See Trigger."""
        last = self.trigger.prev(before)
        end = None if last is None else end_of(self.windows, last)
        return last if end is None or end >= before.astimezone(UTC) else end.astimezone(before.tzinfo)

    def between(self, since: datetime, until: datetime) -> Iterator[datetime]:
        """See Trigger."""
        end = self._deferred_to(since)
        for fire in self.trigger.between(since, until):
            utc = fire.astimezone(UTC)
            if end is not None and end <= utc:
                if end < utc:
                    yield end.astimezone(since.tzinfo)
                end = None
            yield fire
            if end is None:
                end = end_of(self.windows, utc)
        if end is not None and end <= until.astimezone(UTC):
            yield end.astimezone(since.tzinfo)

    def explain(self) -> str:
        """See Trigger."""
        return f"{self.trigger.explain()}, and once where a blackout ends that has deferred one"

    def _deferred_to(self, moment: datetime) -> datetime | None:
        """Return the end, after `moment`, of the windows in which the last fire time up to it lies."""
        last = self.trigger.prev((moment.astimezone(UTC) + _INSTANT).astimezone(moment.tzinfo))
        end = None if last is None else end_of(self.windows, last)
        return end if end is not None and end > moment.astimezone(UTC) else None
