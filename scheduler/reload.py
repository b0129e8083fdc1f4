"""Taking a configuration: recording what is in force, and noticing when the files say something else."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from workers.errors import Fault, TickpoolError
from workers.events import Event, iso, utc_timestamp

from .business_days import days_id, record_of
from .dag_files import Signature
from .event_lines import in_lines
from .history import History
from .judge import ON_TIME, first_since, missed_between, skipped_arrival
from .schedule_model import Schedule, schedule_from_spec, timing_of
from .schedules import Configuration, NoSchedules, read_configuration, signature
from .state_store import StateStore

__all__ = ["ConfigurationWatch", "limits_events", "loaded_events", "record_configuration", "record_faults"]

logger = logging.getLogger(__name__)

_MOST_FAULTS = 100
_LONGEST = 2000


class ConfigurationWatch:
    """Notices changed files by a scan, and reads them once two scans in a row have seen the same.

    The second scan is there for editors that write a file in place: between its truncation and its last write, a part
    of a file can be good YAML. Who polls leaves time between them. What was written while it was read is read again.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.current = self._read = read_configuration(directory)
        self._seen: Signature | None = None

    def is_settling(self) -> bool:
        """Say whether a change was seen that waits for its second scan."""
        return self._seen is not None

    def poll(self) -> Configuration | None:
        """Scan; return a configuration that is to be taken or, when it has `faults`, to be refused; else None.

        One that was refused is not told again until a file of it has changed.
        """
        now = signature(self._read)
        if now == self._read.signature:
            self._seen = None
            return None
        if now != self._seen:
            self._seen = now
            return None
        read = self._read_again(now)
        if not _has_rested(now, read):
            return None
        self._seen, self._read = None, read
        if not self._read.faults:
            self.current = self._read
        return self._read

    def _read_again(self, now: Signature) -> Configuration:
        try:
            return read_configuration(self.directory)
        except NoSchedules as error:
            place, reason = error.args
            return msgspec.structs.replace(self._read, faults=[Fault(place, 0, 0, reason)], signature=now)


def _has_rested(seen: Signature, read: Configuration) -> bool:
    """Say whether nothing was written between the scan that saw `seen` and the end of the reading."""
    places = {place for place, *_ in seen}
    return signature(read) == read.signature and {each for each in read.signature if each[0] in places} <= set(seen)


def record_configuration(store: StateStore, configuration: Configuration, now: datetime) -> None:
    """Record what is new, edited or gone against the log, and the faults. Nothing is recorded when nothing changed.

    While there are faults nothing counts as gone: it may be in a file that cannot be read now.
    """
    store.commit(lambda history: list(_set_back(history, now)))
    is_whole = not configuration.faults
    schedules = configuration.schedules
    store.commit(
        lambda history: [
            *limits_events(history, configuration),
            *loaded_events(history, schedules, now, is_whole=is_whole),
        ]
    )
    record_faults(store, configuration)


def record_faults(store: StateStore, configuration: Configuration) -> None:
    """Record the faults of a configuration, one event each, as one load."""
    load = utc_timestamp()
    faults = configuration.faults[:_MOST_FAULTS]
    if len(configuration.faults) > _MOST_FAULTS:
        faults.append(
            Fault(configuration.directory, 0, 0, f"has {len(configuration.faults)} faults; these are the first")
        )
    events = [
        {
            "event": "schedule_invalid",
            "file": f.path,
            "line": f.line,
            "col": f.col,
            "reason": f.message[:_LONGEST],
            "load": load,
        }
        for f in faults
    ]
    if events:
        store.commit(lambda _: events)


def limits_events(history: History, configuration: Configuration) -> Iterator[Event]:
    """Yield the `limits_loaded` by which `history` comes to these limits; while their file has faults, nothing."""
    if configuration.knows_limits and configuration.limits != history.limits:
        yield {"event": "limits_loaded", **configuration.limits.as_event()}


def _set_back(history: History, now: datetime) -> Iterator[Event]:
    """Yield a `clock_jumped` when the log knows later times than now: the clock was set back while nobody looked."""
    ahead = max((state.watermark for state in history.schedules.values()), default=0)
    if ahead > (now + ON_TIME).timestamp():
        was = datetime.fromtimestamp(ahead, UTC)
        jump_s = round((now - was).total_seconds(), 3)
        yield {"event": "clock_jumped", "from": iso(was), "to": iso(now), "jump_s": jump_s}


def loaded_events(
    history: History, schedules: Sequence[Schedule], now: datetime, *, is_whole: bool = True
) -> Iterator[Event]:
    """Yield the events by which `history` comes to these schedules; unless they are the whole, none is gone.

    What their calendars come to is kept, too: whoever reads the log later may have another version of the package.

    A schedule that is new, or fires at other times, starts at now, so nothing is replayed under an expression that was
    not in force. The fire times that its old expression still owed, because nobody was there to judge them, are missed.
    """
    wanted = {schedule.id: schedule.spec for schedule in schedules}
    known = {name: state.spec for name, state in history.schedules.items() if state.spec}
    removed = [name for name in known if name not in wanted] if is_whole else []
    fresh: dict[str, Any] = {}
    edited: dict[str, Any] = {}
    for name, spec in wanted.items():
        old = known.get(name, {})
        if timing_of(old) != timing_of(spec):
            fresh[name] = spec
        elif old != spec:
            edited[name] = spec
    days = {days_id(schedule.days): schedule.days for schedule in schedules if schedule.days is not None}
    unknown = {name: record_of(each) for name, each in days.items() if name not in history.calendars}
    for records in in_lines(unknown.items()):
        yield {"event": "calendars_loaded", "calendars": dict(records)}
    for name in [*fresh, *removed]:
        yield from _owed(history, name, known.get(name, {}), now)
        for arrival in history.arrivals.due_of(name):
            yield skipped_arrival(name, arrival, "redefined")
    for specs in in_lines(fresh.items()):
        yield {"event": "schedules_loaded", "since": iso(first_since(now)), "specs": dict(specs)}
    for specs in in_lines(edited.items()):
        yield {"event": "schedules_loaded", "specs": dict(specs)}
    for names in in_lines(removed):
        yield {"event": "schedules_loaded", "specs": {}, "removed": names}
    if history.faults and is_whole and not (fresh or edited or removed):
        yield {"event": "schedules_loaded", "specs": {}}


def _owed(history: History, name: str, spec: dict[str, Any], now: datetime) -> Iterator[Event]:
    """Yield as missed what a schedule with the old `spec` has no verdict on."""
    since = history.judged_until(name, now)
    if since is None or not spec.get("enabled"):
        return
    try:
        old = schedule_from_spec(name, spec, history.calendars)
        yield from missed_between(old, since, first_since(now), history, "down")
    except (TickpoolError, OSError, ValueError, KeyError) as error:
        # Written by another version, or on a machine with other time zones.
        logger.warning("schedule `%s`: what its old definition still owed is not accounted for: %s", name, error)
