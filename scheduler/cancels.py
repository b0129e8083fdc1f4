"""Cancels: what was asked for by `cancel_requested`, from the request until the run has ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator

from workers.events import Event
from workers.pool import WorkerPool
from workers.process import Identity
from workers.run_request import cancel_text

from .history import History
from .open_runs import Run
from .process_watch import ProcessWatch
from .run_timers import unstarted_end

__all__ = ["Cancels"]

# Beyond the grace that the worker gives its tasks.
_ENDED_WITHIN_S = 5.0


class Cancels:
    """The open runs that somebody wants ended. One that waits or is parked is closed; of one that runs, the worker gets
    SIGTERM.

    An attempt is signalled once; a worker that has not ended it within the grace of tasks and 5 s is killed.
    """

    def __init__(self, history: History, grace_s: float) -> None:
        self._history = history
        self._within_s = grace_s + _ENDED_WITHIN_S
        self._pending: dict[str, None] = {}
        # The attempt that was signalled, and when its worker is killed, on the monotonic clock.
        self._told: dict[str, tuple[int, float]] = {}

    def load(self, runs: Iterable[Run]) -> None:
        """Take the open runs of a history."""
        self._pending.update((run.run_id, None) for run in runs if run.cancel is not None)

    def follow(self, event: Event) -> None:
        """Follow one event of the log, which the history has."""
        name, run_id = event.get("event"), str(event.get("run_id"))
        if name == "cancel_requested" and run_id in self._history.runs:
            self._pending[run_id] = None
        elif name == "run_finished" and run_id not in self._history.runs:
            self._pending.pop(run_id, None)
            self._told.pop(run_id, None)

    def is_pending(self) -> bool:
        """Say whether the end of an open run is asked for."""
        return bool(self._pending)

    def has_waiting(self) -> bool:
        """Say whether a run that waits is to be closed."""
        return any(run.status != "running" for run in self._open())

    def ends(self) -> Iterator[Event]:
        """Yield the ends of those that wait."""
        for run in self._open():
            if run.status != "running":
                yield unstarted_end(run, cancel_text(run.cancel or {}))

    def signal(self, pool: WorkerPool, watch: ProcessWatch) -> set[Identity]:
        """Tell the workers of those that run; return the foreign ones that were killed."""
        now = time.monotonic()
        killed = set()
        for run in self._open():
            if run.status != "running" or run.process is None:
                continue
            attempt, kill_at = self._told.get(run.run_id, (0, 0.0))
            if attempt == run.attempt and now < kill_at:
                continue
            number = signal.SIGTERM if attempt != run.attempt else signal.SIGKILL
            if not pool.cancel(run.run_id, number) and watch.signal(run.process, number) and number == signal.SIGKILL:
                killed.add(run.process)
            self._told[run.run_id] = (run.attempt, now + self._within_s)
        return killed

    def wake_s(self) -> float | None:
        """Return in how many seconds a worker is to be killed; None when none is."""
        now = time.monotonic()
        return min((max(0.0, kill_at - now) for _, kill_at in self._told.values()), default=None)

    def _open(self) -> list[Run]:
        return [run for name in self._pending if (run := self._history.runs.get(name)) is not None]
