"""Open runs: what is known of each, from its request until its end."""

from __future__ import annotations

from typing import Any

import msgspec

from workers.events import Event
from workers.process_id import Identity, recorded_identity

__all__ = ["Run", "number"]


def number(value: Any) -> int:
    """Return a count of the log, of attempts or workers. Raises ValueError."""
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise ValueError(value)
    return value


class Run(msgspec.Struct):
    """An open run: waiting (`queued`) or on a worker (`running`), in its present attempt.

    `start` is the `run_started` of that attempt, once there is one; `cancel` has the `reason` and the `by` of the first
    `cancel_requested`; `is_deadline_told` says that its `deadline_missed` is on record.
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

    @property
    def process(self) -> Identity | None:
        """The worker process that has it."""
        return None if self.start is None else recorded_identity(self.start)

    @property
    def started_at(self) -> str | None:
        """When the attempt started, ISO 8601."""
        return None if self.start is None else str(self.start["timestamp"])

    def next_request(self) -> Event:
        """Return the request for the present attempt."""
        return {**self.request, "attempt": self.attempt}
