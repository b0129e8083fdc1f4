"""Two configurations beside each other: is the new one worse, by what, and for whom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from scheduler.forecast_facts import ComparisonFacts, Difference, Measures

from .figures import Outcome, quantile
from .report import Forecast

__all__ = ["Comparison", "compare"]

# A p95 wait counts as greater when it is by a tenth and by so much: of all runs, and of one schedule.
_TOLERANCE = 1.1
_ALL_S, _ONE_S = 1.0, 60.0


class Comparison(NamedTuple):
    """The new configuration beside the old; `worse` says in sentences by what, and is empty when it is not."""

    old: Forecast
    new: Forecast
    differences: list[Difference]
    worse: list[str]

    def facts(self) -> ComparisonFacts:
        """Return what it tells."""
        return ComparisonFacts(bool(self.worse), self.worse, self.differences)


def compare(old: Forecast, new: Forecast) -> Comparison:
    """Compare two forecasts of one span, one number of workers and the same durations.

    Worse is: more missed deadlines, more fire times that never run (skipped, missed, or too late to start), more runs
    that give way to the next, more that wait at the end, a p95 wait of all runs that is greater by 10 % and a second,
    or of one schedule in both by 10 % and a minute.
    """
    names = sorted(old.outcome.schedules.keys() | new.outcome.schedules.keys())
    pairs = [Difference(name, _measures(old.outcome, name), _measures(new.outcome, name)) for name in names]
    worse = [*_worse_in_all(old.outcome, new.outcome), *_worse_for_one(pairs)]
    return Comparison(old, new, [each for each in pairs if each.old != each.new], worse)


def _measures(outcome: Outcome, name: str) -> Measures | None:
    figures = outcome.schedules.get(name)
    if figures is None:
        return None
    return Measures(figures.runs, figures.lost, figures.deadline_misses, _p95_s(figures.waits_s))


def _p95_s(waits_s: Iterable[float]) -> float:
    return round(quantile(sorted(waits_s), 95), 3)


def _worse_in_all(old: Outcome, new: Outcome) -> Iterable[str]:
    counts = (
        ("deadlines missed", old.deadline_misses, new.deadline_misses),
        ("fire times that never run", old.lost, new.lost),
        ("runs that give way to the next", old.cancelled["replaced"], new.cancelled["replaced"]),
        ("runs that wait at the end", old.waiting_at_end, new.waiting_at_end),
    )
    for what, before, after in counts:
        if after > before:
            yield f"{what}: {before:,} -> {after:,}"
    before_s, after_s = _p95_s(old.waits_s()), _p95_s(new.waits_s())
    if _is_longer(before_s, after_s, _ALL_S):
        yield f"p95 wait of all runs: {before_s:.1f} s -> {after_s:.1f} s"


def _worse_for_one(pairs: Iterable[Difference]) -> Iterable[str]:
    for each in pairs:
        name, old, new = each.schedule_id, each.old, each.new
        if old is not None and new is not None and _is_longer(old.wait_p95_s, new.wait_p95_s, _ONE_S):
            yield f"p95 wait of `{name}`: {old.wait_p95_s:.1f} s -> {new.wait_p95_s:.1f} s"


def _is_longer(before_s: float, after_s: float, least_s: float) -> bool:
    return after_s > _TOLERANCE * before_s and after_s - before_s > least_s
