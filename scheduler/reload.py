"""Taking a configuration: recording what is in force, and noticing when the files say something else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

from workers.events import Event, iso, utc_timestamp

from .cron import parse_cron
from .history import History, ScheduleState
from .schedules import Configuration, Schedule, Signature, read_configuration, signature
from .state_store import StateStore
from .ticker import first_since

__all__ = ["ConfigurationWatch", "loaded_events", "record_configuration", "record_faults"]

_SPECS_A_LINE = 200


class ConfigurationWatch:
    """Notices changed files by a scan, and reads them once two scans in a row have seen the same.

    The second scan is there for editors that write a file in place: between its truncation and its last write, a part
    of a file can be good YAML.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.current = read_configuration(directory)
        self._refused: Signature | None = None
        self._seen: Signature | None = None

    def is_settling(self) -> bool:
        """Say whether a change was seen that waits for its second scan."""
        return self._seen is not None

    def poll(self) -> Configuration | None:
        """Scan; return a configuration that is to be taken or, when it has `faults`, to be refused; else None."""
        now = signature(self.current)
        if now == (self._refused or self.current.signature):
            self._seen = None
            return None
        if now != self._seen:
            self._seen = now
            return None
        self._seen = None
        fresh = read_configuration(self.directory)
        if fresh.faults:
            # The old one stays, but its signature must cover the files that the new one names.
            self._refused = signature(self.current)
            return fresh
        self._refused = None
        self.current = fresh
        return fresh


def record_configuration(store: StateStore, configuration: Configuration, now: datetime) -> None:
    """Record what is new, edited or gone against the log, and the faults. Nothing is recorded when nothing changed."""
    store.commit(lambda history: list(loaded_events(history, configuration.schedules, now)))
    record_faults(store, configuration)


def record_faults(store: StateStore, configuration: Configuration) -> None:
    """Record the faults of a configuration, one event each, as one load."""
    load = utc_timestamp()
    events = [
        {"event": "schedule_invalid", "file": f.path, "line": f.line, "col": f.col, "reason": f.message, "load": load}
        for f in configuration.faults
    ]
    if events:
        store.commit(lambda _: events)


def loaded_events(history: History, schedules: Iterable[Schedule], now: datetime) -> Iterator[Event]:
    """Yield the events by which `history` comes to these schedules.

    A schedule that is new or edited starts at now, so nothing is replayed under an expression that was not in force.
    The fire times that its old expression still owed, because nobody was there to judge them, are missed.
    """
    wanted = {schedule.id: schedule.spec for schedule in schedules}
    known = {name: state for name, state in history.schedules.items() if state.spec}
    changed = {name: spec for name, spec in wanted.items() if name not in known or known[name].spec != spec}
    removed = [name for name in known if name not in wanted]
    for name in [*changed, *removed]:
        if name in known:
            yield from _owed(name, known[name], now)
    since = iso(first_since(now))
    items = iter(changed.items())
    while specs := dict(islice(items, _SPECS_A_LINE)):
        yield {"event": "schedules_loaded", "since": since, "specs": specs}
    if removed or (history.faults and not changed):
        yield {"event": "schedules_loaded", "since": since, "specs": {}, "removed": removed}


def _owed(name: str, state: ScheduleState, now: datetime) -> Iterator[Event]:
    spec = state.spec
    if not spec.get("enabled"):
        return
    zone = ZoneInfo(spec["timezone"])
    since = datetime.fromtimestamp(state.watermark, zone)
    fires = list(islice(parse_cron(spec["cron"], seed=name).between(since, first_since(now).astimezone(zone)), 100_000))
    if fires:
        yield {
            "event": "schedule_missed",
            "schedule_id": name,
            "from": iso(fires[0]),
            "to": iso(fires[-1]),
            "count": len(fires),
            "reason": "down",
        }
