"""What a forecast tells, as `forecast --json` prints it and the dashboard reads it; lengths are in seconds."""

from __future__ import annotations

import msgspec

__all__ = [
    "Advice",
    "ComparisonFacts",
    "Difference",
    "ForecastFacts",
    "ForecastFigures",
    "HourFigures",
    "Measures",
    "PoolForecast",
    "ScheduleForecast",
    "Waits",
    "WorstMinute",
]


class Waits(msgspec.Struct):
    """The middle, the 95th percentile and the longest of waits."""

    p50: float = 0.0
    p95: float = 0.0
    max: float = 0.0


class HourFigures(msgspec.Struct):
    """An hour: the runs asked for, workers and waiting runs times seconds, and the longest queue."""

    begin: str
    due: int
    busy_s: float
    queued_s: float
    deepest: int


class PoolForecast(msgspec.Struct):
    """A pool, its slots, how many enabled schedules are in it, and its load by the hour.

    There `due` are its runs, `busy_s` its slots that are taken, times seconds; `queued_s` and `deepest` are of its runs
    that wait while no slot is free.
    """

    pool: str
    slots: int
    schedules: int
    hours: list[HourFigures]


class ScheduleForecast(msgspec.Struct):
    """What becomes of one schedule; fire times and runs that were not to be, by reason."""

    runs: int
    wait_s: Waits
    skipped: dict[str, int]
    missed: dict[str, int]
    cancelled: dict[str, int]
    deadline_misses: int
    timeouts: int
    busy_s: float

    @property
    def lost(self) -> int:
        """How many fire times never run."""
        late = self.cancelled.get("start_deadline", 0)
        return sum(self.skipped.values()) + sum(self.missed.values()) + late


class WorstMinute(msgspec.Struct):
    """A time of day (UTC, `09:00`) with the longest queue it ever has, how many fire then, and on how many days.

    `schedules` are due at once on the day with the longest queue, who waits most first; `more` are those beyond eight.
    """

    time: str
    deepest: int
    due: int
    days: int
    schedules: list[str] = []
    more: int = 0


class Advice(msgspec.Struct):
    """A schedule's expression and a better one, with the mean wait of its runs on the fullest day under both."""

    schedule_id: str
    cron: str
    proposed: str
    wait_s: float
    proposed_wait_s: float


class Measures(msgspec.Struct):
    """What a configuration is judged by, of one schedule."""

    runs: int
    skipped: int
    deadline_misses: int
    wait_p95_s: float


class Difference(msgspec.Struct):
    """A schedule whose measures are not the same in both; None: it is not in that one."""

    schedule_id: str
    old: Measures | None
    new: Measures | None


class ComparisonFacts(msgspec.Struct):
    """Whether the new configuration is worse than the old, in sentences by what, and where they differ."""

    is_worse: bool
    worse: list[str]
    differences: list[Difference]


class ForecastFigures(msgspec.Struct, kw_only=True):
    """A forecast at a glance, of `schedules` that are enabled; those `without_history` count as `assumed_s`.

    `utilisation` is the share of the workers' time that is worked, 0 to 1; `long_waits` took more than a minute.
    """

    workers: int = 0
    schedules: int = 0
    runs: int = 0
    assumed_s: float = 0.0
    without_history: list[str] = []
    wait_s: Waits = msgspec.field(default_factory=Waits)
    long_waits: int = 0
    deadline_misses: int = 0
    utilisation: float = 0.0
    worst_minutes: list[WorstMinute] = []
    advice: list[Advice] = []


class ForecastFacts(ForecastFigures, kw_only=True):
    """A forecast; docs/reference.md says what each of it is."""

    begin: str
    until: str
    skipped: dict[str, int]
    missed: dict[str, int]
    cancelled: dict[str, int]
    timeouts: int
    waiting_at_end: int
    running_at_end: int
    hours: list[HourFigures]
    pools: list[PoolForecast]
    by_schedule: dict[str, ScheduleForecast]
    against: ComparisonFacts | None
