"""Open runs: what is known of each, from its request until its end."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from workers.events import LAST_S, Event
from workers.ids import ID_RULE, RUN_ID_RULE, is_id, is_run_id
from workers.process_id import Identity, recorded_identity

__all__ = ["Run", "epoch", "epoch_or_none", "is_fit", "number"]

logger = logging.getLogger(__name__)
_LONGEST_MINUTE = 64
_TEXT_CHARS = 200
_QUESTION = ("timestamp", "message", "until", "default")


@lru_cache(1024)
def epoch(moment: str) -> int:
    """Return an ISO 8601 time of the log as whole seconds since the Unix epoch. Raises ValueError."""
    time = datetime.fromisoformat(moment)
    seconds = int(time.timestamp())
    # A clock begins in 1970, a schedule a second before its first minute.
    if time.tzinfo is None or not -1 <= seconds <= LAST_S:
        raise ValueError(moment)
    return seconds


def epoch_or_none(moment: object) -> float | None:
    """Return a time of the log; None for what another hand wrote and is none."""
    try:
        if not isinstance(moment, str):
            return None
        # Without its fraction it is one that was read just now: events come many a second.
        return float(epoch(f"{moment[:19]}Z" if moment[-1:] == "Z" and len(moment) > 20 else moment))
    except (ValueError, OverflowError):
        return None


def is_fit(request: Event) -> bool:
    """Say whether the events of a run can be recorded; a request that was written by another hand may be odd."""
    schedule_id, minute = request.get("schedule_id") or "none", str(request.get("minute"))
    fits = is_run_id(request.get("run_id")) and is_id(schedule_id) and len(minute) <= _LONGEST_MINUTE
    if not fits:
        rule = ID_RULE if is_run_id(request.get("run_id")) else RUN_ID_RULE
        logger.error("run %.200r of schedule %.200r is left alone: %s", request.get("run_id"), schedule_id, rule)
    return fits


def number(value: Any) -> int:
    """Return a count of the log, of attempts or workers. Raises ValueError."""
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise ValueError(value)
    return value


def _is_past(moment: object, now: datetime) -> bool:
    """Say whether a moment of the log has come; one that another hand wrote, and that is none, never does."""
    with suppress(ValueError, TypeError, OverflowError):
        return datetime.fromisoformat(str(moment)) <= now
    return False


class Run(msgspec.Struct):
    """An open run: waiting (`queued`), on a worker (`running`) or `parked`, in its present attempt.

    `start` is the `run_started` of that attempt, while a process has it; `cancel` has the `reason` and the `by` of the
    first `cancel_requested`; `is_deadline_told` says that its `deadline_missed` is on record. `parked` is what this
    attempt's last `run_parked` says, `is_due` that what it waited for has come, `resumed` when and where in the log it
    was resumed, until it starts. `questions` are its approvals that nobody has answered, by task.
    """

    run_id: str
    schedule_id: str
    request: Event
    attempt: int = 1
    status: str = "queued"
    start: Event | None = None
    retry_at: str | None = None
    cancel: dict[str, str] | None = None
    is_deadline_told: bool = False
    parked: dict[str, Any] | None = None
    is_due: bool = False
    questions: dict[str, dict[str, Any]] = {}
    resumed: dict[str, Any] | None = None

    @property
    def place_in_log(self) -> int:
        """Where in the log it got in line."""
        seq = (self.resumed or self.request).get("seq")
        return seq if type(seq) is int else 0

    @property
    def process(self) -> Identity | None:
        """The worker process that has it."""
        return None if self.start is None else recorded_identity(self.start)

    @property
    def started_at(self) -> str | None:
        """When the attempt started, ISO 8601."""
        return None if self.start is None else str(self.start["timestamp"])

    def take_cancel(self, event: Event) -> None:
        """Take in a `cancel_requested`; the first one counts."""
        if self.cancel is None:
            self.cancel = {key: str(event[key])[:_TEXT_CHARS] for key in ("reason", "by") if event.get(key)}

    def tell_deadline(self) -> None:
        """Take in a `deadline_missed`."""
        self.is_deadline_told = True

    def bump(self, event: Event) -> None:
        """Take in a `run_bumped`. Raises what a history counts as unusable."""
        self.request = {**self.request, "bumped": number(event["seq"])}

    def ask(self, event: Event) -> None:
        """Take in an `approval_requested`."""
        question = {name: event[name] for name in _QUESTION if event.get(name)}
        self.questions = {**self.questions, str(event["task_id"]): question}

    def asks(self, now: datetime) -> dict[str, dict[str, Any]]:
        """Return the approvals that somebody may still answer: those whose time is not over."""
        return {name: each for name, each in self.questions.items() if not _is_past(each.get("until"), now)}

    def next_request(self) -> Event:
        """Return the request for the present attempt."""
        request = {**self.request, "attempt": self.attempt}
        if self.parked is None:
            return request
        # It goes on with the DAG that it began with.
        version = self.parked.get("dag_version")
        return {**request, "parked": self.parked, **({"dag_version": version} if version else {})}
