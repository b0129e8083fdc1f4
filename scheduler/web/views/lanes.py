"""A window of time as lanes, a schedule each: those that failed first, then those at work, then the newest."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from scheduler.web.feed import Feed
from scheduler.web.run_index import OPEN

from .figures import WINDOWS

__all__ = ["LANE_SLOTS", "Lane", "lanes_of"]

# Of a day these are parts of ten minutes.
LANE_SLOTS = 144
_LANES = 12
# So many of the newest runs are looked at for schedules that have run of late.
_NEWEST = 400


class Lane(msgspec.Struct):
    """What a schedule has run in a window: for each part of it, oldest first, the runs that were asked for, and how
    many of them failed. `is_open` says that the newest one has not ended.
    """

    schedule_id: str
    runs: list[int]
    failures: list[int]
    is_open: bool


def lanes_of(feed: Feed, first: Iterable[str | None], window: str, now_s: float) -> list[Lane]:
    """Return the lanes of the schedules that come `first`, and behind them of those that were asked for last."""
    slot_s = WINDOWS[window][0] // LANE_SLOTS
    last = int(now_s // slot_s) * slot_s
    bounds = [float(last - slot_s * number) for number in range(LANE_SLOTS - 1, -1, -1)]
    names = dict.fromkeys(name for name in first if name)
    rows = feed.index.rows
    for row in reversed(rows[-_NEWEST:]):
        if len(names) >= _LANES or (row.asked_s or 0.0) < bounds[0]:
            break
        if row.schedule_id:
            names[row.schedule_id] = None
    return [_lane(feed, name, bounds) for name in list(names)[:_LANES]]


def _lane(feed: Feed, name: str, bounds: list[float]) -> Lane:
    rows = feed.index.of_schedule.get(name, [])
    runs, failures = feed.lanes.of(name, rows, bounds)
    return Lane(name, runs, failures, bool(rows) and rows[-1].status in OPEN)
