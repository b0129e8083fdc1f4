"""The forecast as a whole: the figures, what they were made from, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from scheduler.forecast_facts import Advice, ComparisonFacts, ForecastFacts, HourFigures
from workers.events import iso

from .figures import Outcome, ScheduleFigures, waits_of
from .heat_map import worst_minutes

__all__ = ["LONG_S", "Forecast"]

# A wait that is told of in the first sentence: cron itself counts in minutes.
LONG_S = 60.0


class Forecast(NamedTuple):
    """Figures for so many enabled schedules, of which `unknown` have no durations and count as `assumed_s`."""

    outcome: Outcome
    schedules: int
    unknown: Sequence[str]
    assumed_s: float
    advice: Sequence[Advice] = ()

    def facts(self, against: ComparisonFacts | None = None) -> ForecastFacts:
        """Return what it tells; times are UTC, seconds have three digits."""
        outcome = self.outcome
        waits_s = outcome.waits_s()
        names = sorted(outcome.schedules)
        return ForecastFacts(
            begin=iso(outcome.begin),
            until=iso(outcome.until),
            workers=outcome.workers,
            schedules=self.schedules,
            assumed_s=self.assumed_s,
            without_history=list(self.unknown),
            runs=outcome.runs,
            wait_s=waits_of(waits_s),
            long_waits=sum(wait_s > LONG_S for wait_s in waits_s),
            skipped=dict(outcome.skipped),
            missed=dict(outcome.missed),
            cancelled=dict(outcome.cancelled),
            deadline_misses=outcome.deadline_misses,
            timeouts=sum(each.timeouts for each in outcome.schedules.values()),
            utilisation=round(outcome.utilisation, 4),
            waiting_at_end=outcome.waiting_at_end,
            running_at_end=outcome.running_at_end,
            hours=[_hour(outcome, first) for first in range(0, len(outcome.busy_s), 60)],
            pools=outcome.pools.facts(),
            worst_minutes=worst_minutes(outcome),
            advice=list(self.advice),
            by_schedule={name: outcome.schedules[name].facts() for name in names},
            against=against,
        )

    def worst(self, most: int) -> list[tuple[str, ScheduleFigures]]:
        """Return the schedules that fare worst: missed deadlines, then what never ran, then the longest waits."""
        found = [(name, each) for name, each in self.outcome.schedules.items() if _badness(each) > (0, 0, 1.0)]
        return sorted(found, key=lambda pair: (*(-part for part in _badness(pair[1])), pair[0]))[:most]


def _badness(figures: ScheduleFigures) -> tuple[int, int, float]:
    return figures.deadline_misses, figures.lost, max(figures.waits_s, default=0.0)


def _hour(outcome: Outcome, first: int) -> HourFigures:
    minutes = slice(first, first + 60)
    return HourFigures(
        begin=iso(outcome.minute(first)),
        due=sum(outcome.due[minutes]),
        busy_s=round(sum(outcome.busy_s[minutes]), 3),
        queued_s=round(sum(outcome.queued_s[minutes]), 3),
        deepest=max(outcome.deepest[minutes]),
    )
