"""The state store: the public face of the state log.

Three functions for anybody (`record_event`, `last_runs`, `index_by`), and `StateStore`, which keeps a log and its
fold in step for whoever decides on them.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from workers.event_log import EventLog
from workers.events import Event
from workers.segments import LogReader, read_backward
from workers.settings import read_settings

from .history import History

__all__ = ["StateStore", "index_by", "last_events", "last_runs", "record_event"]

logger = logging.getLogger(__name__)
# What a new segment begins with: nothing that happened.
_BOOKKEEPING = ("segment_started", "checkpoint")
PathLike = str | os.PathLike[str]


def record_event(event: Mapping[str, Any], path: PathLike | None = None) -> Event:
    """Append one event to the state log and return it as recorded.

    `path` defaults to STATE_STORE_PATH; parent directories are made; `timestamp` (UTC, ISO 8601, `Z`) is added if
    absent. Safe between threads and processes. Raises LogUnwritable, LockTimeout, InvalidEvent.
    """
    settings = read_settings(os.environ)
    log = EventLog(path or settings.state_path, fsync=settings.fsync, lock_timeout_s=settings.lock_timeout_s)
    try:
        return log.append(event)[0]
    finally:
        log.close()


def last_runs(limit: int = 20, path: PathLike | None = None) -> list[Event]:
    """Return the last `limit` events of the log, oldest first.

    Reads backward, so its cost does not grow with the log. A missing or empty log has none; a line that is no event
    is skipped, and a warning says how many were.
    """
    events = list(islice(last_events(path), max(0, limit)))
    events.reverse()
    return events


def index_by(field: str, limit: int = 100, path: PathLike | None = None) -> dict[Any, list[Event]]:
    """Group the last `limit` events by the value of `field`, oldest first; events without the field are left out.

    A value that cannot be a key (a list, a mapping) is grouped under its JSON text.
    """
    groups: dict[Any, list[Event]] = {}
    for event in last_runs(limit, path):
        if field in event:
            value = event[field]
            key = json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value
            groups.setdefault(key, []).append(event)
    return groups


def last_events(path: PathLike | None = None) -> Iterator[Event]:
    """Yield the events of the log newest first, through its rotated segments, without what rotation repeats there."""
    place = Path(path or read_settings(os.environ).state_path)
    corrupt = 0
    try:
        for event in read_backward(place):
            if event is None:
                corrupt += 1
            elif event.get("event") not in _BOOKKEEPING:
                yield event
    finally:
        if corrupt:
            logger.warning("%s: skipped %d corrupt line(s)", place, corrupt)


class StateStore:
    """A log and the fold of it, kept in step."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.reader = LogReader(log.path)
        self.history = History()
        self._followers: list[Callable[[Event], None]] = []

    def follow(self, follower: Callable[[Event], None]) -> None:
        """Give every event from now on to `follower`, once the history has it. It must not read or write the log."""
        self._followers.append(follower)

    def refresh(self) -> None:
        """Fold in what was appended since the last call."""
        for batch in self.reader.batches():
            self._fold(batch)

    def commit(self, decide: Callable[[History], Sequence[Mapping[str, Any]]]) -> list[Event]:
        """Append what `decide(history as it is under the lock)` returns, and return it as recorded.

        Nothing can come between the decision and the append: this is where two deciders cannot both win.
        """

        def under_lock(new: list[Event]) -> Sequence[Mapping[str, Any]]:
            self._fold(new)
            return decide(self.history)

        recorded = self.log.transact(under_lock, self.reader)
        self._fold(recorded)
        return recorded

    def rotate(self, min_bytes: int) -> bool:
        """Begin a new segment when the active one has `min_bytes` and is mostly news, not checkpoint."""
        if self.history.events_since_checkpoint < len(self.history.schedules) + len(self.history.runs):
            return False

        def checkpoint(new: list[Event]) -> list[Event]:
            self._fold(new)
            return list(self.history.checkpoint())

        return self.log.rotate(min_bytes, checkpoint, self.reader)

    def close(self) -> None:
        """Close the files."""
        self.reader.close()
        self.log.close()

    def _fold(self, events: Sequence[Event]) -> None:
        for event in events:
            self.history.apply(event)
            for follow in self._followers:
                follow(event)
