"""The schedules that wait for something other than the time, at one tick: what has come, and the verdicts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from workers.events import Event

from .arrivals import Due
from .file_watch import FileId, WatchedFile
from .history import History
from .judge import judge_arrival
from .schedule_model import Schedule

__all__ = ["Found", "arrived", "verdicts_on_arrivals", "watched_files"]

# A schedule, and the file that lies at its path.
Found = tuple[str, FileId]


def arrived(
    schedules: Mapping[str, Schedule], history: History, files: Iterable[Found], now: datetime
) -> Iterator[tuple[Schedule, Due]]:
    """Yield what has come and has no verdict: of each schedule the oldest, for one may stand in the other's way."""
    by_file = ((name, history.arrivals.due_by_file(name, file, int(now.timestamp()))) for name, file in files)
    for name, due in (*history.arrivals.due(), *by_file):
        schedule = schedules.get(name)
        if due is not None and schedule is not None and schedule.enabled:
            yield schedule, due


def verdicts_on_arrivals(
    schedules: Mapping[str, Schedule], history: History, files: Iterable[Found], now: datetime
) -> list[Event]:
    """Return the verdict on each of them."""
    found = arrived(schedules, history, files, now)
    return [event for schedule, due in found for event in judge_arrival(schedule, due, now, history)]


def watched_files(schedules: Iterable[Schedule]) -> Iterator[WatchedFile]:
    """Yield the files that the enabled schedules wait for; a relative path starts from the project directory."""
    for schedule in schedules:
        if schedule.enabled and (on_file := schedule.on_file) is not None:
            place = str(Path(schedule.project, on_file.path))
            yield WatchedFile(schedule.id, place, on_file.stable_for.total_seconds())
