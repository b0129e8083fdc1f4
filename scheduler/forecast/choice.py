"""How long each attempt of a forecast takes: a draw from what history knows of its schedule.

One draw an attempt, and not a pass with p50 and one with p95 for all: waits come from runs that differ, so that all
middling ones at once would show too few of them, and all slow ones at once a day that never comes. The draw hashes the
run's id. So a forecast says the same each time, and of two configurations the runs that both have take as long in
both: what differs between the figures is what was changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from scheduler.durations import Durations
from workers.run_request import RunRequest

from .simulation import Choose, Ending

__all__ = ["drawn_from", "length_at"]


def drawn_from(durations: Mapping[str, Durations], assumed_s: float) -> Choose:
    """Return the choice by these durations, in which every run succeeds or times out.

    A schedule without any takes `assumed_s`, or its `timeout` where that is shorter.
    """

    def choose(request: RunRequest) -> Ending:
        known = durations.get(request.get("schedule_id") or "")
        if known is None:
            limit_s = request.get("timeout_s")
            return Ending(assumed_s if limit_s is None else min(assumed_s, limit_s))
        if known.p50_s == known.max_s:
            return Ending(known.p50_s)
        seed = f"{request['run_id']}:{request['attempt']}".encode("ascii", "replace")
        return Ending(length_at(known, int.from_bytes(blake2b(seed, digest_size=4).digest()) / 2**32))

    return choose


def length_at(known: Durations, share: float) -> float:
    """Return the length in seconds that this share of runs (0 to 1) does not exceed.

    It goes straight from p50 to p95 to the longest. What is below the middle counts as the middle: of that half only
    its upper end is known, and a forecast had better not be too bright.
    """
    if share <= 0.5:
        return known.p50_s
    if share <= 0.95:
        return known.p50_s + (known.p95_s - known.p50_s) * (share - 0.5) / 0.45
    return known.p95_s + (known.max_s - known.p95_s) * (share - 0.95) / 0.05
