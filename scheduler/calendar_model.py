"""The models of calendars: what a schedule says about holidays, and what an entry of `calendars.yaml` does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

__all__ = ["CalendarRule", "OwnCalendar", "Range", "Source", "wrong_source"]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose holidays: those of a country, or a part of it, or of a market; `categories` as the package has them."""

    country: str | None = None
    subdivision: str | None = None
    market: str | None = None
    categories: str | list[str] = []

    @property
    def kinds(self) -> list[str]:
        """The categories as a list."""
        return [self.categories] if isinstance(self.categories, str) else self.categories


class CalendarRule(Source, frozen=True, forbid_unknown_fields=True):
    """The calendar of a schedule, and what it has the schedule do; `name` is one of `calendars.yaml`."""

    name: str | None = None
    on_holiday: Literal["skip", "next_business_day", "previous_business_day"] | None = None
    business_day: int | list[int] | None = None

    @property
    def numbers(self) -> list[int]:
        """The business days of the month at which the schedule fires; none means that it need not be one."""
        given = self.business_day
        return [given] if isinstance(given, int) else list(given or ())


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From a day to another, both included."""

    from_: str = msgspec.field(name="from")
    to: str


class OwnCalendar(Source, frozen=True, forbid_unknown_fields=True):
    """One calendar of `calendars.yaml`: holidays by `dates` and `ranges`, beside those that it takes over."""

    dates: list[str] = []
    ranges: list[Range] = []
    workdays: list[str] = []
    weekend: list[str] | None = None


def wrong_source(source: Source) -> Iterator[str]:
    """Yield what is wrong with the keys that say whose holidays."""
    given = [key for key in ("name", "country", "market") if getattr(source, key, None) is not None]
    if len(given) > 1:
        yield f"{' and '.join(f'`{key}`' for key in given)} stand together; write one of them, or a calendar of both"
    if source.subdivision is not None and source.country is None:
        yield "`subdivision` has no meaning without `country`"
    if source.kinds and source.country is None and source.market is None:
        yield "`categories` has no meaning without `country` or `market`"
