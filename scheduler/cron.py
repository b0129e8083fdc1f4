"""When a schedule fires: cron expressions and `@every`, judged in the time zone of the datetime that is asked about."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import takewhile

from workers.errors import TickpoolError, did_you_mean
from workers.units import Duration, InvalidDuration

from .cron_fields import InvalidCron, read_fields
from .cron_text import explain_fields
from .cron_times import EPOCH, Calendar, Period

__all__ = ["Cron", "InvalidCron", "NaiveDatetime", "parse_cron", "read_texts"]

_LONGEST_EXPR = 256
_MINUTE = timedelta(minutes=1)
_ONE_TICK = timedelta(microseconds=1)
_FORM = "write five: minute hour day-of-month month day-of-week, or `@daily`, `@every 5m`"
_ALIASES = {
    "@YEARLY": "0 0 1 1 *",
    "@ANNUALLY": "0 0 1 1 *",
    "@MONTHLY": "0 0 1 * *",
    "@WEEKLY": "0 0 * * 0",
    "@DAILY": "0 0 * * *",
    "@MIDNIGHT": "0 0 * * *",
    "@HOURLY": "0 * * * *",
}


class NaiveDatetime(TickpoolError):
    """A datetime without a time zone."""

    def __str__(self) -> str:
        return f"{self.args[0]} has no time zone; give an aware datetime, such as datetime.now(UTC)"


class Cron:
    """A parsed expression. Equal when text and seed are; every datetime it takes must be aware.

    It judges in that datetime's own zone and answers in it. Debian cron's rule for daylight saving: a time of day that
    the clock skips fires once, at the end of the gap; one that comes twice fires the first time; where minute or hour
    starts with a star, every minute whose wall clock matches fires, so both of a pair and none that was skipped.
    Compare the answers in UTC: Python compares two times of one zone by their wall clocks alone.
    """

    __slots__ = ("_times", "expr", "seed")

    def __init__(self, expr: str, seed: str, times: Calendar | Period) -> None:
        self.expr, self.seed, self._times = expr, seed, times

    def __call__(self, dt: datetime) -> bool:
        """Whether a fire time falls into the minute of `dt`."""
        minute = _aware(dt).replace(second=0, microsecond=0)
        start = minute.astimezone(UTC)
        fire = self.next((start - _ONE_TICK).astimezone(minute.tzinfo))
        return fire is not None and fire.astimezone(UTC) - start < _MINUTE

    def next(self, after: datetime) -> datetime | None:
        """The first fire time strictly after `after`; None when 50 years hold none."""
        return next(self._times.ascending(_aware(after)), None)

    def prev(self, before: datetime) -> datetime | None:
        """The last fire time strictly before `before`; None when 50 years hold none."""
        return next(self._times.descending(_aware(before)), None)

    def between(self, since: datetime, until: datetime) -> Iterator[datetime]:
        """Every fire time after `since` up to and including `until`, ascending, lazily, in the zone of `since`."""
        end = _aware(until) - EPOCH
        return takewhile(lambda fire: fire - EPOCH <= end, self._times.ascending(_aware(since)))

    def explain(self) -> str:
        """Say it in plain words, such as `at 09:00 on Monday to Friday`, with `H` resolved."""
        if isinstance(self._times, Period):
            return f"every {self._times.period}"
        return explain_fields(read_texts(self.expr), self.seed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cron) and (self.expr, self.seed) == (other.expr, other.seed)

    def __hash__(self) -> int:
        return hash((self.expr, self.seed))

    def __repr__(self) -> str:
        return f"parse_cron({self.expr!r}, seed={self.seed!r})"

    def __reduce__(self) -> tuple[partial[Cron], tuple[()]]:
        return partial(parse_cron, self.expr, seed=self.seed), ()


def parse_cron(expr: str, *, seed: str = "") -> Cron:
    """Read five fields, an @alias or `@every 90s`; `H` hashes `seed`, the schedule's id. Raises InvalidCron."""
    if not isinstance(expr, str):
        raise InvalidCron("", "", "", f"must be text such as `*/5 * * * *`, not {type(expr).__name__}")
    texts = read_texts(expr)
    if texts[0] == "@EVERY":
        return Cron(expr, seed, Period(_read_period(expr, texts)))
    calendar = Calendar(read_fields(expr, texts, seed))
    if not calendar.ever_fires():
        raise InvalidCron(expr, "", "", "never fires; no month it allows has such a day")
    return Cron(expr, seed, calendar)


def read_texts(expr: str) -> list[str]:
    """Split into five fields in upper case, or `@EVERY` and its period. Raises InvalidCron."""
    if len(expr) > _LONGEST_EXPR:
        raise InvalidCron(expr, "", "", f"has {len(expr)} characters; allowed: {_LONGEST_EXPR}")
    if not expr.isascii() or not expr.replace("\t", " ").isprintable():
        # Before upper(), which would turn a dotless i into the I of FRI.
        raise InvalidCron(expr, "", "", "holds a character that is neither printable ASCII nor a tab")
    texts = expr.upper().split()
    if texts and texts[0].startswith("@"):
        return _texts_of_alias(expr, texts)
    if len(texts) == 6:
        hint = "there is no field for seconds, use `@every 30s` for less than a minute"
        raise InvalidCron(expr, "", "", f"has 6 fields; {hint}; {_FORM}")
    if len(texts) != 5:
        raise InvalidCron(expr, "", "", f"has {len(texts)} field{'s' * (len(texts) != 1)}; {_FORM}")
    return texts


def _texts_of_alias(expr: str, texts: list[str]) -> list[str]:
    name = texts[0]
    if name == "@EVERY" and len(texts) == 2:
        return texts
    if name in _ALIASES and len(texts) == 1:
        return _ALIASES[name].split()
    if name == "@EVERY" or name in _ALIASES:
        form = "`@every` and one duration, `@every 1h30m`" if name == "@EVERY" else f"`{name.lower()}` alone"
        raise InvalidCron(expr, "", "", f"cannot be read; write {form}")
    if name == "@REBOOT":
        rule = "is refused; a restart is no point in time, so it could neither be caught up nor de-duplicated"
        raise InvalidCron(expr, "", "", rule)
    names = [alias.lower() for alias in (*_ALIASES, "@EVERY")]
    raise InvalidCron(expr, "alias", name.lower(), f"is unknown{did_you_mean(name.lower(), names)}")


def _read_period(expr: str, texts: list[str]) -> Duration:
    text = texts[1].lower()
    try:
        period = Duration.parse(text)
    except InvalidDuration as error:
        raise InvalidCron(expr, "@every", text, str(error).split(" ", 1)[1]) from None
    if period < timedelta(seconds=1):
        raise InvalidCron(expr, "@every", text, "is too short; allowed: 1s and longer")
    return period


def _aware(dt: datetime) -> datetime:
    if dt.utcoffset() is None:
        raise NaiveDatetime(dt)
    return dt
