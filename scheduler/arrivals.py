"""Arrivals: what has come for the schedules that wait for something other than the time. A part of the fold.

A schedule with `after` is due each time every schedule that it names has come to an end it waits for since it was due
last; one with `on_file` each time another file lies at its path. What is due is kept until it has its verdict, which
carries it as `trigger`, so that a restart neither loses it nor runs it twice. A file is due as soon as it is seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from workers.events import Event, Second
from workers.run_request import ANY_END

from .file_watch import FileId

__all__ = ["Arrivals", "Due", "Waiting"]


class Due(msgspec.Struct, frozen=True):
    """A schedule is due since `second` of the Unix epoch, the `number`th time in it, because of its `trigger`.

    That is {"after": {the schedule followed: its run}} or {"file": what tells the file from the next one there}.
    """

    second: Second
    number: int
    trigger: dict[str, dict[str, Any]]


class Waiting(msgspec.Struct):
    """What has come for one schedule.

    `ends` are the runs, by schedule, that count towards the next time it is due; `due` has what is without a verdict,
    oldest first; `last` is the newest (second, number) it was due; `file` the one that it was last judged for.
    """

    wants: dict[str, list[str]] = {}
    ends: dict[str, str] = {}
    due: list[Due] = []
    last: tuple[int, int] = (0, 0)
    file: FileId | None = None


class Arrivals:
    """The fold; `History` hands it the events that it needs."""

    def __init__(self) -> None:
        self.waiting: dict[str, Waiting] = {}
        self._followers: dict[str, dict[str, None]] = {}
        self._due: dict[str, None] = {}

    def due(self) -> Iterator[tuple[str, Due]]:
        """Yield the oldest that each schedule has no verdict on yet."""
        for name in self._due:
            yield name, self.waiting[name].due[0]

    def due_of(self, schedule_id: str) -> list[Due]:
        """Return all that a schedule has no verdict on yet, oldest first."""
        waiting = self.waiting.get(schedule_id)
        return [] if waiting is None else list(waiting.due)

    def is_due(self) -> bool:
        """Say whether anything has no verdict yet."""
        return bool(self._due)

    def due_by_file(self, schedule_id: str, file: FileId, second: int) -> Due | None:
        """Return what a schedule is due for by the file that lies there at `second`; None when it is judged already."""
        waiting = self.waiting.get(schedule_id) or Waiting()
        return None if waiting.file == file else Due(*_next_number(waiting, second), {"file": file})

    def file_of(self, schedule_id: str) -> FileId | None:
        """Return the file that a schedule was last judged for."""
        waiting = self.waiting.get(schedule_id)
        return None if waiting is None else waiting.file

    def load(self, specs: Mapping[str, Mapping[str, Any]]) -> None:
        """Take definitions; one that waits for other ends than before begins anew. An empty one is gone."""
        for name, spec in specs.items():
            wants = msgspec.convert(spec.get("after") or {}, dict[str, list[str]]) if spec.get("enabled") else {}
            waiting = self.waiting.get(name)
            if waiting is None and not wants:
                continue
            if waiting is None:
                waiting = self.waiting[name] = Waiting()
            if waiting.wants != wants:
                self._follow(name, waiting, wants)

    def end(self, schedule_id: str, run_id: str, status: str, second: int) -> None:
        """Take in that a run has come to its end, `second` since the Unix epoch."""
        for name in self._followers.get(schedule_id, ()):
            waiting = self.waiting[name]
            if not {status, ANY_END}.intersection(waiting.wants[schedule_id]):
                continue
            waiting.ends[schedule_id] = run_id
            if len(waiting.ends) == len(waiting.wants):
                waiting.last = _next_number(waiting, second)
                waiting.due.append(Due(*waiting.last, {"after": waiting.ends}))
                waiting.ends = {}
                self._due[name] = None

    def judge(self, event: Event) -> None:
        """Take in a verdict that carries a `trigger`."""
        name, trigger = event["schedule_id"], event["trigger"]
        if "file" in trigger:
            waiting = self.waiting.setdefault(name, Waiting())
            waiting.file = msgspec.convert(trigger["file"], FileId)
            waiting.last = _next_number(waiting, int(datetime.fromisoformat(event["minute"]).timestamp()))
        elif name in self._due:
            waiting = self.waiting[name]
            waiting.due = [each for each in waiting.due if each.trigger != trigger]
            if not waiting.due:
                del self._due[name]

    def rows(self) -> Iterator[list[Any]]:
        """Yield from what `restore` rebuilds this state, a row a schedule."""
        for name, waiting in self.waiting.items():
            yield [name, msgspec.to_builtins(waiting)]

    def restore(self, row: list[Any]) -> None:
        """Take a row of a checkpoint. Raises msgspec.ValidationError."""
        name, waiting = msgspec.convert(row, tuple[str, Waiting])
        self._follow(name, self.waiting.get(name) or Waiting(), {})
        self.waiting[name] = waiting
        for other in waiting.wants:
            self._followers.setdefault(other, {})[name] = None
        if waiting.due:
            self._due[name] = None

    def _follow(self, name: str, waiting: Waiting, wants: dict[str, list[str]]) -> None:
        for other in waiting.wants:
            self._followers[other].pop(name)
        for other in wants:
            self._followers.setdefault(other, {})[name] = None
        waiting.wants, waiting.ends, waiting.due = wants, {}, []
        self._due.pop(name, None)


def _next_number(waiting: Waiting, second: int) -> tuple[int, int]:
    """Return the name of the next due: never one before the last, for a clock may be set back."""
    if second > waiting.last[0]:
        return second, 1
    return waiting.last[0], waiting.last[1] + 1
