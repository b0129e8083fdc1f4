"""What a run asks of the state log while it runs, and what it hears from it: questions, runs of its own, their ends."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from .errors import TickpoolError
from .event_log import EventLog, LogNotFlushed
from .events import Event, iso, iso_exact
from .ids import base_of
from .masking import Mask
from .run_events import ended_before, events_of_run, last_words
from .run_request import RunRequest, run_fields
from .segments import LogReader
from .tasks import MAX_OUTPUTS_BYTES
from .waiting import ANSWERS, Waiting

__all__ = ["Before", "RunLink", "UnusablePark"]

logger = logging.getLogger(__name__)
# After a refusal of the log.
_PARK_AGAIN_S = 30.0
# What the run of a `dag` task has from the one that asks for it.
_INHERITED = ("project", "minute", "tenant", "priority")
# A moment of an event is cut to the millisecond; whoever is woken by it must not come too early.
_LATER = timedelta(milliseconds=1)
_TIME = re.compile(r"\.(\d{8}T\d{4})\d*Z")
# For what is told of the run itself, beside the outputs of its tasks.
_FACTS_BYTES = 1024


class UnusablePark(TickpoolError):
    """A `run_parked` of another hand, by which no run can go on: (the run, what is wrong)."""

    def __str__(self) -> str:
        return f"run `{self.args[0]!s:.200}` cannot go on by its `run_parked`: {self.args[1]!s:.300}"


class _Parked(msgspec.Struct):
    """What a run needs of its `run_parked`."""

    waits: list[Waiting]
    tasks: dict[str, int]
    worked_s: float = 0.0


class Before(NamedTuple):
    """What a run had come to when it was parked: the event by which each task had ended, what waited, for how long its
    tasks had been at work.
    """

    ended: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    waits: Sequence[Waiting] = ()
    worked_s: float = 0.0


class RunLink:
    """The line between an attempt of a run and the log, whose `reader` stands behind the run's start.

    A run by hand has `execute`, which performs a request in the calling process, without telling the log what a mask
    hides, and returns the exit code; others leave their requests to the service, and can be parked. `cancel` is the
    request to end the run, once it was heard.
    """

    def __init__(
        self,
        log: EventLog,
        reader: LogReader,
        task_log: Path,
        request: RunRequest,
        execute: Callable[[RunRequest, Mask], int] | None = None,
    ) -> None:
        self.execute = execute
        self.cancel: Event | None = None
        self._log = log
        self._reader = reader
        self._task_log = task_log
        self._request = request
        self._awaited: set[str] = set()
        self._news: list[Event] = []
        self._park_after = 0.0

    @property
    def can_park(self) -> bool:
        """Say whether the run may leave its process while it waits."""
        return self.execute is None

    def before(self) -> Before | None:
        """Return what the run had come to when it was parked, if it was.

        Raises UnusablePark, Forgotten, LogUnreadable.
        """
        request = self._request
        parked = request.get("parked")
        if parked is None:
            return None
        try:
            facts = msgspec.convert(parked, _Parked)
        except msgspec.ValidationError as error:
            raise UnusablePark(request["run_id"], str(error)) from None
        names, attempt = {each.task_id for each in facts.waits}, int(request.get("attempt") or 1)
        since = _day_before(request.get("timestamp"))
        ended = ended_before(self._task_log, str(request["run_id"]), attempt, facts.tasks, names, since)
        return Before(ended, facts.waits, facts.worked_s)

    def ask(self, waiting: Waiting) -> None:
        """Put the question of an approval on record. Raises LogUnwritable, LockTimeout, InvalidEvent."""
        event = {"event": "approval_requested", **run_fields(self._request), "task_id": waiting.task_id}
        more = {"message": waiting.message, "default": waiting.default, "until": _moment(waiting.until_s)}
        self._append({**event, **{key: value for key, value in more.items() if value}})

    def child(self, waiting: Waiting, dag: str, params: Mapping[str, Any]) -> RunRequest:
        """Return the request for the run of a `dag` task."""
        mine = self._request
        parent = {"run_id": mine["run_id"], "attempt": mine.get("attempt") or 1, "task_id": waiting.task_id}
        inherited: dict[str, Any] = {key: mine[key] for key in _INHERITED if key in mine}
        name = mine.get("schedule_id") or mine.get("for_schedule")
        return {
            "event": "run_requested",
            "run_id": waiting.run,
            "attempt": 1,
            "dag": dag,
            **inherited,
            **({"for_schedule": name} if name else {}),
            "params": dict(params),
            "parent": parent if self.can_park else {**parent, "by_hand": True},
        }

    def request(self, child: RunRequest) -> None:
        """Ask the service for a run. Raises LogUnwritable, LockTimeout, InvalidEvent."""
        self._append(child)

    def stop(self, waiting: Waiting, reason: str) -> None:
        """Ask for the end of a run that this one has asked for. Raises as `request`."""
        self._append({"event": "cancel_requested", "run_id": waiting.run, "reason": reason})

    def _append(self, event: Mapping[str, Any]) -> None:
        try:
            self._log.append(event)
        except LogNotFlushed as error:
            logger.error("run %s: %s", self._request["run_id"], error)  # noqa: TRY400 - it is on record

    def await_run(self, run_id: str) -> Event | None:
        """Hear of a run's end from now on; return it where it is on record already. Raises LogUnreadable."""
        self._hear()
        self._awaited.add(run_id)
        for event in events_of_run(self._log.path, run_id, _oldest(run_id)):
            if event.get("event") == "run_finished":
                return None if event.get("next_attempt") else event
            if event.get("event") in ("run_started", "run_requested", "schedule_enqueued"):
                return None
        return None

    def answer_to(self, waiting: Waiting) -> Event | None:
        """Return the answer to an approval, where it is on record already. Raises LogUnreadable."""
        self._hear()
        run_id = self._request["run_id"]
        for event in events_of_run(self._log.path, run_id, _oldest(run_id)):
            if event.get("task_id") == waiting.task_id:
                return event if event.get("event") in ANSWERS else None
        return None

    def outputs_of(self, run_id: str, since: str | None) -> dict[str, Any]:
        """Return the outputs of a run's tasks by their ids, as far as they are few enough to be handed on."""
        outputs: dict[str, Any] = {}
        size = 0
        for name, event in last_words(self._task_log, run_id, _day_before(since)).items():
            # A task has those of its items in its own.
            if event.get("outputs") and base_of(name) == name:
                size += len(json.dumps({name: event["outputs"]}))
                if size < MAX_OUTPUTS_BYTES - _FACTS_BYTES:
                    outputs[name] = event["outputs"]
        return outputs

    def news(self) -> list[Event]:
        """Return what has come since the last call: answers, and ends of runs that are awaited."""
        self._hear()
        news, self._news = self._news, []
        return news

    def park(self, waits: Sequence[Waiting], tasks: Mapping[str, int], worked_s: float) -> bool:
        """Record that the run waits and has left its process; False where that cannot be, or where there is news."""
        if time.monotonic() < self._park_after:
            return False
        until_s = min((at_s for each in waits if (at_s := each.next_s()) is not None), default=None)
        event = {
            "event": "run_parked",
            **run_fields(self._request),
            "waits": msgspec.to_builtins(list(waits)),
            "until": _moment(until_s),
            "tasks": dict(tasks),
            "worked_s": round(worked_s, 6),
        }

        def has_no_news(new: list[Event]) -> bool:
            self._take(new)
            return not self._news and self.cancel is None

        try:
            return bool(self._log.append_if(has_no_news, [event], self._reader))
        except LogNotFlushed as error:
            logger.error("run %s: %s", self._request["run_id"], error)  # noqa: TRY400 - it is on record
            return True
        except TickpoolError as error:
            logger.warning("run %s waits on its worker: %s", self._request["run_id"], error)
            self._park_after = time.monotonic() + _PARK_AGAIN_S
            return False

    def _hear(self) -> None:
        try:
            for batch in self._reader.batches():
                self._take(batch)
        except TickpoolError as error:
            logger.warning("run %s: what the log says cannot be read: %s", self._request["run_id"], error)

    def _take(self, events: Sequence[Event]) -> None:
        run_id = self._request["run_id"]
        for event in events:
            name, of = event.get("event"), event.get("run_id")
            if of == run_id and name == "cancel_requested":
                self.cancel = self.cancel or event
            elif (of == run_id and name in ANSWERS) or (
                name == "run_finished" and of in self._awaited and not event.get("next_attempt")
            ):
                self._news.append(event)


def _oldest(run_id: str) -> str | None:
    """Return a time before which nothing is on record of a run, by what its id says."""
    found = _TIME.search(run_id)
    with suppress(ValueError):  # a name that another hand made up
        return None if found is None else _day_before(datetime.strptime(f"{found[1]}Z", "%Y%m%dT%H%M%z").isoformat())
    return None


def _day_before(moment: object) -> str | None:
    """Return a time before which nothing of a run is on record that was asked for then: a clock may be set back."""
    with suppress(ValueError, OverflowError):
        time = datetime.fromisoformat(str(moment))
        return iso(time - timedelta(days=1)) if time.tzinfo is not None else None
    return None


def _moment(at_s: float | None) -> str | None:
    return None if at_s is None else iso_exact(datetime.fromtimestamp(at_s, UTC) + _LATER)
