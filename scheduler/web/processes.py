"""The processes of the service as they are looked at, and told of: no event of the log says that one was killed."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

from scheduler.history import History
from scheduler.service_processes import NoService, Service, WorkerFacts, processes

from .feed import Feed

__all__ = ["Processes"]

_KEPT_S = 1.0


class Processes:
    """The supervisor and the workers, looked up at most once a second while nothing starts or ends.

    A look at all of them takes milliseconds.
    """

    def __init__(self) -> None:
        self._at = float("-inf")
        self._runs: frozenset[tuple[str, int]] = frozenset()
        self._found: tuple[Service | NoService, list[WorkerFacts]] = (NoService(""), [])

    def look(self, history: History, now: datetime) -> tuple[Service | NoService, list[WorkerFacts]]:
        """Return the supervisor and the workers."""
        runs = frozenset((run.run_id, run.attempt) for run in history.runs.values() if run.status == "running")
        if runs != self._runs or time.monotonic() - self._at > _KEPT_S:
            self._found, self._runs, self._at = processes(history, now), runs, time.monotonic()
        return self._found

    async def watch(self, feed: Feed) -> None:
        """Let a feed tell those who listen when a process has come or gone, until it is cancelled."""
        known: object = None
        while True:
            await asyncio.sleep(_KEPT_S)
            if not feed.listeners():
                known = None
                continue
            supervisor, workers = self.look(feed.history, datetime.now(UTC))
            alive = (supervisor.pid, [(each.pid, each.state == "gone") for each in workers])
            if alive != known:
                feed.announce()
            known = alive
