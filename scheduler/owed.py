"""What is owed to the log: events that it must have, kept while it takes none."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from workers.event_log import LogNotFlushed, LogUnwritable
from workers.events import Event
from workers.lock import LockTimeout

from .history import History
from .state_store import StateStore

__all__ = ["Owed"]

logger = logging.getLogger(__name__)
_AGAIN_S = 1.0


class Owed:
    """Ends of runs and deaths of workers that have to go on record; a log that refuses them is left to rest a while."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._events: list[Event] = []
        self._held_until = 0.0

    def __len__(self) -> int:
        return len(self._events)

    def add(self, *events: Event, place: int | None = None) -> None:
        """Owe these events, after those that are owed already or before the one at `place`."""
        at = len(self._events) if place is None else place
        self._events[at:at] = events

    def ends(self) -> set[str]:
        """Return the runs whose end is owed."""
        return {str(event["run_id"]) for event in self._events if event["event"] == "run_finished"}

    def record(self) -> None:
        """Append what is owed; what the log will not take is kept for the next time."""
        if not self._events or self.held_s():
            return

        def still_due(history: History) -> list[Event]:
            return [
                event
                for event in self._events
                if event["event"] != "run_finished" or history.is_running(event["run_id"], event["attempt"])
            ]

        if self.commit(still_due, f"{len(self._events)} event(s) wait"):
            self._events.clear()

    def commit(self, decide: Callable[[History], Sequence[Event]], waits: str) -> bool:
        """Append what `decide` returns; say whether the log took it. If not, it rests, and `waits` says what waits."""
        try:
            self._store.commit(decide)
        except LogNotFlushed as error:
            logger.error("%s", error)  # noqa: TRY400
        except (LogUnwritable, LockTimeout) as error:
            logger.error("%s: %s", waits, error)  # noqa: TRY400
            self.hold()
            return False
        return True

    def hold(self) -> None:
        """Let a log that takes nothing rest: trying at once again would only spin."""
        self._held_until = time.monotonic() + _AGAIN_S

    def let_go(self) -> None:
        """Try again at once: there may be no later."""
        self._held_until = 0.0

    def held_s(self) -> float:
        """Return for how many seconds the log is left to rest."""
        return max(0.0, self._held_until - time.monotonic())
