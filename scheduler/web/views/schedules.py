"""The page Schedules: all of them, a row each; only the rows that are shown are worked out."""

from __future__ import annotations

import bisect
import heapq
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from scheduler.history import History
from scheduler.pauses import Pause, Scope
from scheduler.schedule_model import by_tag, tags_of
from scheduler.web.feed import Feed
from scheduler.web.run_index import BAD, OPEN, RunRow

__all__ = [
    "PAGE_ROWS", "SORTS", "STATUSES", "FaultRow", "Outcome", "Place", "Roster", "SchedulePage", "ScheduleRow",
    "Wanted", "faults_of", "row_of", "schedule_list", "schedule_page",
]  # fmt: skip

PAGE_ROWS = 100
SORTS = ("name", "next")
# What may be asked for: how the last run ended, or how the schedule is.
STATUSES = ("ok", "failing", "running", "never", "paused", "disabled", "invalid")
_OUTCOMES = 20
# So many are offered, those that most schedules have; any other may be typed.
_MOST_TAGS = 500
# A place in the order of schedules: the next fire time, where that is the order, and the name.
Place = tuple[float, str]
_NEVER_S = 1e12
_TELLS_NOTHING = (*OPEN, "cancelled")
_NAMED = re.compile(r"schedule `([^`]+)`")


class Outcome(msgspec.Struct):
    """One of the last runs: how it ended, or is, and how long it took."""

    run_id: str
    status: str
    duration_s: float | None


class FaultRow(msgspec.Struct):
    """A fault of the configuration, and the schedule that it names, if it names one."""

    place: str
    reason: str
    schedule_id: str | None


class ScheduleRow(msgspec.Struct):
    """A schedule: when it runs in plain words, and how its last runs went, oldest first.

    `state` is `active`, `paused`, `disabled`, `invalid` or `removed`; `why` says who paused it, until when, what for,
    or where it is invalid. `next_s` is None where it has no fire time to come, or is held.
    """

    schedule_id: str
    tenant: str
    tags: list[str]
    dag: str
    words: str
    timezone: str
    state: str
    why: str
    next_s: float | None
    paused_until_s: float | None
    outcomes: list[Outcome]
    runs: int

    @property
    def took_s(self) -> float | None:
        """How long the newest run took that has ended; None where none of those that are shown has."""
        return next((each.duration_s for each in reversed(self.outcomes) if each.duration_s is not None), None)


class SchedulePage(msgspec.Struct):
    """A page of schedules: `first` counts from 1, `total` are all that were asked for, `pages` how many pages."""

    rows: list[ScheduleRow]
    first: int
    total: int
    page: int
    pages: int
    known: int
    tenants: list[str]
    tags: list[str]
    faults: list[FaultRow]


class Wanted(NamedTuple):
    """What is asked for: a part of name or DAG, a tenant, a tag, one of STATUSES, one of SORTS; empty is any."""

    q: str = ""
    tenant: str = ""
    tag: str = ""
    status: str = ""
    sort: str = "name"


class Roster:
    """The names in order, the tenants, the tags, and what is searched; made anew when schedules were loaded."""

    def __init__(self) -> None:
        self._version: object = None
        self.names: list[str] = []
        self.tenants: dict[str, str] = {}
        self.all_tenants: list[str] = []
        self.all_tags: list[str] = []
        self._tagged: dict[str, set[str]] = {}
        self._texts: dict[str, str] = {}

    def refresh(self, feed: Feed) -> None:
        """Bring it up to date."""
        if self._version == feed.loads:
            return
        specs = {name: state.spec for name, state in feed.history.schedules.items() if state.spec}
        self.names = sorted(specs)
        self.tenants = {name: str(spec.get("tenant") or "default") for name, spec in specs.items()}
        self.all_tenants = sorted(set(self.tenants.values()))
        self._tagged = by_tag(specs)
        self.all_tags = sorted(heapq.nlargest(_MOST_TAGS, self._tagged, key=lambda tag: len(self._tagged[tag])))
        self._texts = {name: f"{name}\n{spec.get('dag')}".lower() for name, spec in specs.items()}
        self._version = feed.loads

    def wanted(self, feed: Feed, wanted: Wanted, now: datetime, names: Sequence[str] | None = None) -> Iterator[str]:
        """Yield the names that are asked for, of these or of all, in their order."""
        names = self.names if names is None else names
        if wanted.tag:
            tagged = self._tagged.get(wanted.tag, ())
            names = [name for name in names if name in tagged]
        if not (wanted.q or wanted.tenant or wanted.status):
            yield from names
            return
        text = wanted.q.strip().lower()
        is_so = _test_of(feed, wanted.status, now, self.tenants)
        for name in names:
            if (not wanted.tenant or self.tenants[name] == wanted.tenant) and text in self._texts[name] and is_so(name):
                yield name


def schedule_page(feed: Feed, roster: Roster, now: datetime, wanted: Wanted, page: int) -> SchedulePage:
    """Return one page of what is asked for; a page behind the last one is the last one."""
    roster.refresh(feed)
    names = list(roster.wanted(feed, wanted, now))
    if wanted.sort == "next":
        names = [name for _, name in sorted(_by_fire_time(feed, roster, now, names))]
    pages = max(1, -(-len(names) // PAGE_ROWS))
    page = min(max(1, page), pages)
    first = (page - 1) * PAGE_ROWS
    rows = _rows(feed, now, names[first : first + PAGE_ROWS])
    faults = faults_of(feed.history)[:10]
    known, tenants, tags = len(roster.names), roster.all_tenants, roster.all_tags
    return SchedulePage(rows, first + 1, len(names), page, pages, known, tenants, tags, faults)


def schedule_list(
    feed: Feed, roster: Roster, now: datetime, wanted: Wanted, after: Place | None, limit: int
) -> tuple[list[ScheduleRow], Place | None, int]:
    """Return those asked for behind a place, the place of the last where more follow, and how many there are in all."""
    roster.refresh(feed)
    names = list(roster.wanted(feed, wanted, now))
    places = [(0.0, name) for name in names]
    if wanted.sort == "next":
        places = sorted(_by_fire_time(feed, roster, now, names))
    first = 0 if after is None else bisect.bisect_right(places, after)
    shown = places[first : first + limit]
    rows = _rows(feed, now, [name for _, name in shown])
    return rows, shown[-1] if first + limit < len(places) else None, len(places)


def _by_fire_time(feed: Feed, roster: Roster, now: datetime, names: Sequence[str]) -> Iterator[Place]:
    held = _held_names(feed, now, roster.tenants)
    for name in names:
        at_s = None if name in held else feed.fire_times.at_s(name)
        yield _NEVER_S if at_s is None else at_s, name


def row_of(feed: Feed, now: datetime, name: str) -> ScheduleRow:
    """Return one schedule that is on record."""
    return _rows(feed, now, [name])[0]


def faults_of(history: History) -> list[FaultRow]:
    """Return the faults of the configuration as it stands in the files."""
    found = []
    for fault in history.faults:
        reason = str(fault.get("reason") or "")
        line, col = fault.get("line"), fault.get("col")
        named = _NAMED.search(reason)
        place = f"{fault.get('file')}:{line}:{col}" if line else str(fault.get("file"))
        found.append(FaultRow(place, reason, named[1] if named else None))
    return found


def _rows(feed: Feed, now: datetime, names: Sequence[str]) -> list[ScheduleRow]:
    held = dict(feed.history.pauses.in_force(now))
    faults = {fault.schedule_id: fault for fault in reversed(faults_of(feed.history)) if fault.schedule_id}
    return [_row(feed, name, held, faults, now) for name in names]


def _row(
    feed: Feed, name: str, held: Mapping[Scope, Pause], faults: Mapping[str, FaultRow], now: datetime
) -> ScheduleRow:
    spec = feed.history.schedules[name].spec
    tenant = str(spec.get("tenant") or "default")
    scope, pause = _pause_of(name, tenant, held)
    state, why = "active", ""
    if not spec:
        state, why = "removed", "it is in no file any more"
    elif name in faults:
        state, why = "invalid", f"{faults[name].place}: {faults[name].reason}; it goes on as it was"
    elif pause is not None and scope is not None:
        state, why = "paused", _pause_text(scope, pause)
    elif not spec.get("enabled", True):
        state, why = "disabled", "disabled in its file"
    rows = feed.index.of_schedule.get(name, [])
    at_s = feed.fire_times.at_s(name)
    is_due = state in ("active", "invalid") and at_s is not None and at_s >= now.timestamp() - 60
    return ScheduleRow(
        schedule_id=name,
        tenant=tenant,
        tags=tags_of(spec),
        dag=str(spec.get("dag") or ""),
        words=feed.fire_times.words(feed.history, name) or str(spec.get("cron") or ""),
        timezone=str(spec.get("timezone") or "UTC"),
        state=state,
        why=why,
        next_s=at_s if is_due else None,
        paused_until_s=None if pause is None else pause.until,
        outcomes=[Outcome(row.run_id, row.status, row.duration_s) for row in rows[-_OUTCOMES:]],
        runs=len(rows),
    )


def _pause_of(name: str, tenant: str, held: Mapping[Scope, Pause]) -> tuple[Scope | None, Pause | None]:
    scopes: tuple[Scope, ...] = (("schedule", name), ("tenant", tenant), ("all", ""))
    return next(((scope, held[scope]) for scope in scopes if scope in held), (None, None))


def _pause_text(scope: Scope, pause: Pause) -> str:
    what = {"tenant": f"tenant {scope[1]}, ", "all": "all schedules, "}.get(scope[0], "")
    return f"{what}by {pause.by or 'somebody'}" + (f": {pause.reason}" if pause.reason else "")


def _held_names(feed: Feed, now: datetime, tenants: Mapping[str, str]) -> set[str]:
    """Return the schedules that have no fire time to show: paused, each for itself, by tenant or all."""
    scopes = {scope for scope, _ in feed.history.pauses.in_force(now)}
    if ("all", "") in scopes:
        return set(tenants)
    held = {name for kind, name in scopes if kind == "schedule"}
    names = {name for kind, name in scopes if kind == "tenant"}
    return held | {name for name, tenant in tenants.items() if tenant in names} if names else held


def _test_of(feed: Feed, status: str, now: datetime, tenants: Mapping[str, str]) -> Any:
    """Return what says of a name whether its schedule is so."""
    of, specs = feed.index.of_schedule, feed.history.schedules
    if status == "paused":
        return _held_names(feed, now, tenants).__contains__
    if status == "invalid":
        return {fault.schedule_id for fault in faults_of(feed.history)}.__contains__
    if status == "disabled":
        return lambda name: not specs[name].spec.get("enabled", True)
    if status == "never":
        return lambda name: not of.get(name)
    if status == "running":
        return lambda name: any(row.status in OPEN for row in of.get(name, ())[-3:])
    if status in ("failing", "ok"):
        return lambda name: _last_end(of.get(name, ())) == status
    return lambda name: True


def _last_end(rows: Sequence[RunRow]) -> str:
    for row in reversed(rows[-5:]):
        if row.status not in _TELLS_NOTHING:
            return "failing" if row.status in BAD else "ok"
    return ""
