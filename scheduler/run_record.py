"""What the logs say of one run, open or long ended: its requests, its attempts, its tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from workers.events import Event
from workers.run_events import events_of_run
from workers.segments import read_backward
from workers.settings import Settings

__all__ = ["RunRecord", "read_record"]

_ASKING = ("schedule_enqueued", "run_requested")


class RunRecord(msgspec.Struct):
    """The events of a run, oldest first; `tasks` are those of the task log.

    Where the line of its request is gone with an old segment, a checkpoint's copy of it stands for it.
    """

    run_id: str
    events: list[Event] = []
    tasks: list[Event] = []
    kept_request: Event | None = None

    @property
    def request(self) -> Event:
        """What asked for it first; empty where nothing on record has."""
        return next((each for each in self.events if each.get("event") in _ASKING), self.kept_request or {})

    @property
    def ends(self) -> list[Event]:
        """The end of each attempt that has one."""
        return self.named("run_finished")

    @property
    def attempt(self) -> int:
        """The newest attempt."""
        return max((int(each.get("attempt") or 1) for each in self.events), default=1)

    @property
    def is_open(self) -> bool:
        """Say whether its last word is no end, or one that another attempt follows."""
        words = self.named("run_finished", "run_started", *_ASKING)
        return not words or words[-1].get("event") != "run_finished" or bool(words[-1].get("next_attempt"))

    def named(self, *names: str) -> list[Event]:
        """Return the events of these names."""
        return [each for each in self.events if each.get("event") in names]

    def of_attempt(self, attempt: int) -> list[Event]:
        """Return the task events of one attempt."""
        return [each for each in self.tasks if each.get("attempt") == attempt]


def read_record(settings: Settings, run_id: str, *, with_tasks: bool = True) -> RunRecord | None:
    """Read what is on record of a run; None when nothing is. Raises LogUnreadable."""
    record = RunRecord(run_id)
    for event in events_of_run(Path(settings.state_path), run_id):
        record.events.insert(0, event)
        if event.get("event") in _ASKING and not event.get("retry_of"):
            break
    if not record.events or not record.request:
        record.kept_request = _of_checkpoint(Path(settings.state_path), run_id)
    if not record.events and record.kept_request is None:
        return None
    if with_tasks:
        since = str(record.request.get("timestamp") or "") or None
        record.tasks = list(events_of_run(Path(settings.events_path), run_id, since))[::-1]
    return record


def _of_checkpoint(path: Path, run_id: str) -> Event | None:
    mark = run_id.encode()
    for event in read_backward(path, wanted=lambda line: mark in line and b'"checkpoint"' in line):
        run: Any = event.get("run") if event is not None else None
        if isinstance(run, dict) and run.get("run_id") == run_id and isinstance(run.get("request"), dict):
            request: Event = run["request"]
            return request
    return None
