"""Which of two waiting runs of a tenant goes first, as a rank that never changes while a run waits. Pure."""

from __future__ import annotations

from workers.run_request import RunRequest

from .limits import PRIORITIES

__all__ = ["rank_of"]

# A minute of waiting is worth one step of priority, so what has the lowest is passed over by what has the highest, and
# comes later, for 200 minutes at most: minutes are what schedules count in, and hours what nobody likes to wait for.
_AGE_S = 60
_BUMPED, _LIVE, _BACKFILL = 0, 1, 2


def rank_of(request: RunRequest, clock_s: int) -> tuple[int, int]:
    """Return the class and the rank of a request that gets in line at `clock_s`; the lowest goes first.

    A class goes before the next one whosever turn it is: first what an operator has bumped, the last one first; last
    what a backfill asks for. The rank is the moment less the priority's worth of waiting: two runs that wait keep their
    order however long it is, so nothing is ever sorted again.
    """
    bumped = request.get("bumped")
    if type(bumped) is int:
        return _BUMPED, -bumped
    priority = request.get("priority")
    steps = priority if type(priority) is int and priority in PRIORITIES else 0
    return _BACKFILL if request.get("backfill") else _LIVE, clock_s - _AGE_S * steps
