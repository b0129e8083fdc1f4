"""Public holidays and those of markets, from the package `holidays`: the only place that knows it."""

from __future__ import annotations

import functools
from collections.abc import Collection
from datetime import date
from typing import TYPE_CHECKING

from workers.errors import TickpoolError, did_you_mean

from .business_days import Days

if TYPE_CHECKING:
    from holidays import HolidayBase

__all__ = ["YEARS", "InvalidCalendar", "public_holidays"]

# Fixed, so that the same package gives the same days in every year; some countries are known for fewer.
YEARS = range(2020, 2050)


class InvalidCalendar(TickpoolError):
    """A calendar that cannot be used: (what is wrong and the way out)."""


@functools.lru_cache(256)
def public_holidays(
    country: str | None, subdivision: str | None, market: str | None, categories: tuple[str, ...] = ()
) -> Days:
    """Return the holidays of a country, or a part of it, or else of a market, from 2020 to 2049.

    `categories` are those of the package, such as `public`, `bank` or `catholic`; none is what it takes for usual.
    Raises InvalidCalendar.
    """
    try:
        import holidays  # an extra, and 50 ms
    except ImportError:
        key = "market" if country is None else "country"
        way_out = "pip install holidays; or list the dates in calendars.yaml"
        raise InvalidCalendar(f"`{key}` needs the package `holidays`: {way_out}") from None
    if country is not None:
        # Whoever writes a country's name means its code.
        named = holidays.registry.COUNTRIES.get(country.lower().replace(" ", "_"), ("", country))[1]
        codes = holidays.list_supported_countries()
        _check("country", country, codes, "the codes of ISO 3166, such as `FR`", named)
        entity = functools.partial(holidays.country_holidays, country)
    else:
        market = market or ""
        _check("market", market, holidays.list_supported_financial(), "codes such as `XNYS`")
        entity = functools.partial(holidays.financial_holidays, market)
    known = entity()
    if subdivision is not None:
        parts = [*known.subdivisions, *known.subdivisions_aliases]
        if not parts:
            raise InvalidCalendar(f"`subdivision` {subdivision[:40]!r}: {country} has none; leave it out")
        _check("subdivision", subdivision, parts, None)
    for category in categories:
        _check("categories", category, known.supported_categories, None)
    years = range(max(YEARS[0], known.start_year), min(YEARS[-1], known.end_year) + 1)
    return _days(entity(subdivision, years, categories=categories or None), years)


def _days(found: HolidayBase, years: Collection[int]) -> Days:
    workdays: set[date] = getattr(found, "weekend_workdays", set())
    kept = frozenset(day for day in workdays if day.year in years)
    # A holiday of the last year may be kept in the next one, which is not told in full.
    return Days(frozenset(day for day in found if day.year in years) - kept, kept, frozenset(found.weekend))


def _check(key: str, name: str, valid: Collection[str], rule: str | None, meant: str = "") -> None:
    if name in valid:
        return
    near = f"; did you mean `{meant}`?" if meant in valid else did_you_mean(name, valid)
    hint = near if rule is None or near.endswith("?") else f"; allowed: {rule}"
    raise InvalidCalendar(f"`{key}` {name[:40]!r} is not known{hint}")
