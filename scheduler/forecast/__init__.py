"""The forecast: what a configuration will do with its workers, told by the code that decides in the service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from .choice import drawn_from
from .figures import Outcome
from .pools import Pools
from .simulation import Choose, Ending, Plan, play

__all__ = ["Choose", "Ending", "Outcome", "Plan", "drawn_from", "play", "simulate"]


def simulate(plan: Plan, choose: Choose, on_time: Callable[[float], object] = lambda _: None) -> Outcome:
    """Return what becomes of a plan; `on_time` hears now and then how many seconds of it have been played."""
    begin_s, told_s = plan.begin.timestamp(), 0.0
    members = Counter(schedule.pool for schedule in plan.schedules if schedule.enabled and schedule.pool)
    pools = Pools(begin_s, plan.until.timestamp(), plan.limits.pools, members)
    outcome = Outcome(plan.begin, plan.until, plan.workers, pools)
    for now_s, events in play(plan, choose):
        outcome.take(now_s, events)
        if now_s - begin_s - told_s >= _TELL_S:
            told_s = now_s - begin_s
            on_time(told_s)
    outcome.close()
    return outcome


_TELL_S = 3600
