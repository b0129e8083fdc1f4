"""Every run, newest first, as far as filters leave it; a page at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from scheduler.web.run_index import RunIndex, RunRow

__all__ = ["KINDS", "ROWS", "STATUSES", "Filters", "RunPage", "run_page"]

ROWS = 50
STATUSES = ("success", "failed", "timeout", "crashed", "cancelled", "running", "queued", "parked")
KINDS = ("schedule", "manual", "backfill", "rerun", "deadline", "dag", "hand")


class Filters(msgspec.Struct, frozen=True):
    """What runs are looked for; empty is any. `q` is looked for in id, DAG and reason, in whichever case."""

    q: str = ""
    schedule: str = ""
    tenant: str = ""
    status: str = ""
    kind: str = ""
    since_s: float | None = None
    until_s: float | None = None


class RunPage(msgspec.Struct):
    """Some of the runs that were asked for, newest first. `count` and `counts`, by status, are of all of them.

    `counts` leave the filter by status aside. The next page is `before=next_before`; None at the end.
    """

    runs: list[RunRow]
    count: int
    counts: dict[str, int]
    next_before: int | None


def run_page(index: RunIndex, filters: Filters, before: int | None = None, limit: int = ROWS) -> RunPage:
    """Return a page of the runs that the filters leave."""
    counts: Counter[str] = Counter()
    runs: list[RunRow] = []
    for row in _matching(index, filters):
        counts[row.status] += 1
        is_on_page = len(runs) <= limit and (before is None or row.number < before)
        if is_on_page and filters.status in ("", row.status):
            runs.append(row)
    count = counts[filters.status] if filters.status else counts.total()
    following = runs[limit - 1].number if len(runs) > limit else None
    return RunPage(runs[:limit], count, {name: counts[name] for name in _ordered(counts)}, following)


def _matching(index: RunIndex, filters: Filters) -> Iterator[RunRow]:
    """Yield the rows that the filters leave, that by status aside, newest first."""
    rows: Iterable[RunRow] = index.newest(filters.schedule or None)
    if filters.tenant:
        rows = (row for row in rows if row.tenant == filters.tenant)
    if filters.kind:
        rows = (row for row in rows if row.kind == filters.kind)
    if filters.since_s is not None or filters.until_s is not None:
        since_s, until_s = filters.since_s or 0.0, filters.until_s or float("inf")
        rows = (row for row in rows if since_s <= (row.asked_s or row.started_s or 0.0) <= until_s)
    if filters.q:
        word = filters.q.casefold()
        rows = (row for row in rows if word in f"{row.run_id}\n{row.dag}\n{row.reason}".casefold())
    return iter(rows)


def _ordered(counts: Iterable[str]) -> list[str]:
    """Return the statuses that there are, in the order of STATUSES, others behind them."""
    return [*(each for each in STATUSES if each in counts), *sorted(set(counts) - set(STATUSES))]
