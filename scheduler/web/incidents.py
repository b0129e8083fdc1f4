"""What the log tells besides runs: the slots that did not run and why, and the deaths of services and workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from workers.events import time_of
from workers.segments import Chunk

from .fold_lines import UNUSABLE, wanted_lines

__all__ = ["Death", "Incidents", "NotRun"]

_WANTED = (
    b'"schedule_skipped"', b'"schedule_missed"', b'"supervisor_started"', b'"supervisor_stopped"', b'"worker_exited"',
)  # fmt: skip
_KEPT_OF_SCHEDULE = 20
_KEPT_DEATHS = 500


class NotRun(msgspec.Struct):
    """Fire times of a schedule that did not run: from `first_s` to `last_s`, `count` of them, and the recorded reason.

    `kind` is `skipped` or `missed`; `open_run` is the run that stood in the way, where one did.
    """

    kind: str
    first_s: float
    last_s: float
    count: int
    reason: str
    open_run: str | None = None


class Death(msgspec.Struct):
    """An end that nobody asked for: of a `service` or a `worker`, its process, and the run that it had."""

    kind: str
    at_s: float
    pid: int
    reason: str
    run_id: str | None = None


class _Line(msgspec.Struct):
    event: str = ""
    timestamp: str = ""
    pid: int = 0
    schedule_id: str | None = None
    minute: str | None = None
    from_: str | None = msgspec.field(default=None, name="from")
    to: str | None = None
    count: int = 1
    reason: str | None = None
    open_run: str | None = None
    worker_pid: int = 0
    run_id: str | None = None


class Incidents:
    """The fold: the last slots of each schedule that did not run, and the last deaths, oldest first."""

    def __init__(self) -> None:
        self.deaths: deque[Death] = deque(maxlen=_KEPT_DEATHS)
        self._not_run: dict[str, deque[NotRun]] = {}
        self._decoder = msgspec.json.Decoder(_Line)
        self._leader: tuple[int, float] | None = None

    def take(self, chunk: Chunk) -> None:
        """Take in lines of the state log; what cannot be read is passed over."""
        lines = chunk.lines
        if not any(mark in lines for mark in _WANTED):
            return
        for _, line in wanted_lines(lines, _WANTED):
            with suppress(*UNUSABLE):
                self._apply(self._decoder.decode(line))

    def not_run(self, schedule_id: str) -> Iterator[NotRun]:
        """Yield the last slots of a schedule that did not run, newest first."""
        return reversed(self._not_run.get(schedule_id, ()))

    def _apply(self, line: _Line) -> None:
        at_s = time_of(line.timestamp)
        if line.event == "schedule_skipped" and line.schedule_id:
            self._skip(line.schedule_id, "skipped", line.minute, line.minute, line)
        elif line.event == "schedule_missed" and line.schedule_id:
            self._skip(line.schedule_id, "missed", line.from_, line.to, line)
        elif line.event == "worker_exited" and at_s is not None:
            self.deaths.append(Death("worker", at_s, line.worker_pid, line.reason or "it is gone", line.run_id))
        elif line.event == "supervisor_started" and at_s is not None:
            if self._leader is not None:
                reason = "gone without having stopped; another has taken over"
                self.deaths.append(Death("service", at_s, self._leader[0], reason))
            self._leader = (line.pid, at_s)
        elif line.event == "supervisor_stopped" and self._leader is not None and self._leader[0] == line.pid:
            self._leader = None

    def _skip(self, name: str, kind: str, first: str | None, last: str | None, line: _Line) -> None:
        first_s, last_s = time_of(first), time_of(last)
        if first_s is None or last_s is None:
            return
        rows = self._not_run.setdefault(name, deque(maxlen=_KEPT_OF_SCHEDULE))
        rows.append(NotRun(kind, first_s, last_s, line.count, line.reason or "", line.open_run))
