"""What the logs say of one run, open or long ended: its requests, its attempts, its tasks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from workers.events import Event
from workers.run_events import events_of_run
from workers.segments import read_backward
from workers.settings import Settings

from .open_runs import number

__all__ = ["ASKING", "RunRecord", "attempt_of", "read_record", "record_of"]

# The events that ask for a run.
ASKING = ("schedule_enqueued", "run_requested")


class RunRecord(msgspec.Struct):
    """The events of a run, oldest first; `tasks` are those of the task log.

    Where the line of its request is gone with an old segment, `kept` is what a checkpoint says of the run.
    """

    run_id: str
    events: list[Event] = []
    tasks: list[Event] = []
    kept: dict[str, Any] = {}

    @property
    def request(self) -> Event:
        """What asked for it first; empty where nothing on record has."""
        request: Event = self.kept.get("request", {})
        return next((each for each in self.events if each.get("event") in ASKING), request)

    @property
    def ends(self) -> list[Event]:
        """The end of each attempt that has one."""
        return self.named("run_finished")

    @property
    def attempts(self) -> list[int]:
        """The attempts of which something is on record, ascending; one that is still to come is among them."""
        found = {attempt_of(each) for each in self.named("run_finished", "run_started", *ASKING)}
        found |= {each["next_attempt"] for each in self.ends if each.get("next_attempt")}
        # The request that a checkpoint keeps may be that of an attempt of which nothing else is left.
        found |= {attempt_of(self.kept)} if self.kept else set()
        return sorted(found) or [attempt_of(self.request)]

    @property
    def attempt(self) -> int:
        """The newest attempt."""
        return self.attempts[-1]

    @property
    def is_open(self) -> bool:
        """Say whether its last word is no end, or one that another attempt follows."""
        words = self.named("run_finished", "run_started", *ASKING)
        return not words or words[-1].get("event") != "run_finished" or bool(words[-1].get("next_attempt"))

    def named(self, *names: str) -> list[Event]:
        """Return the events of these names."""
        return [each for each in self.events if each.get("event") in names]

    def of_attempt(self, attempt: int) -> list[Event]:
        """Return the task events of one attempt."""
        return [each for each in self.tasks if each.get("attempt") == attempt]


def attempt_of(event: Event) -> int:
    """Return the attempt that an event of a run is of."""
    return event.get("attempt") or 1


def read_record(settings: Settings, run_id: str, *, with_tasks: bool = True) -> RunRecord | None:
    """Read what is on record of a run; None when nothing is. Raises LogUnreadable.

    Events whose attempt is none are left out, as the fold of the log does.
    """
    path = Path(settings.state_path)
    record = record_of(run_id, events_of_run(path, run_id))
    if not record.request:
        record.kept = _of_checkpoint(path, run_id)
        # The start of an attempt that runs is kept as the event it was.
        start = record.kept.get("start")
        if isinstance(start, dict) and _is_usable(start) and not record.named("run_started"):
            record.events.insert(0, start)
    if not record.events and not record.kept:
        return None
    if with_tasks:
        since = str(record.request.get("timestamp") or "") or None
        record.tasks = list(events_of_run(Path(settings.events_path), run_id, since))[::-1]
    return record


def record_of(run_id: str, newest_first: Iterable[Event]) -> RunRecord:
    """Return the record that the events of a run make, those of its tasks not among them."""
    record = RunRecord(run_id)
    for event in filter(_is_usable, newest_first):
        record.events.append(event)
        if event.get("event") in ASKING and not event.get("retry_of"):
            break
    record.events.reverse()
    return record


def _is_usable(event: Event) -> bool:
    try:
        number(event.get("attempt") or 1), number(event.get("next_attempt") or 1)
    except ValueError:
        return False
    return True


def _of_checkpoint(path: Path, run_id: str) -> dict[str, Any]:
    """Return the newest checkpoint's words on an open run; a long request stands in lines of its own behind it."""
    mark, parts = run_id.encode(), dict[str, Any]()
    for event in read_backward(path, wanted=lambda line: mark in line and b'"checkpoint"' in line):
        if event is None:
            continue
        part, run = event.get("request"), event.get("run")
        if isinstance(part, list) and len(part) == 2 and part[0] == run_id and isinstance(part[1], dict):
            parts = {**part[1], **parts}
        if isinstance(run, dict) and run.get("run_id") == run_id and isinstance(run.get("request"), dict):
            request = {**run["request"], **parts}
            if _is_usable(run) and _is_usable(request):
                return {**run, "request": request}
    return {}
