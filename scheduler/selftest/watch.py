"""What the log of the attacked service says so far: who is at work, what is open, what has ended."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from workers.events import Event
from workers.segments import LogReader

__all__ = ["Watch"]


class Watch:
    """A fold of the log, on its own: it must not share a fault with the one that is tested."""

    def __init__(self, log: Path) -> None:
        self._reader = LogReader(log, from_start=True)
        self._open: set[str] = set()
        self._at_work: dict[str, int] = {}
        self.asked = 0
        self.ends = 0
        self.ended: Counter[str] = Counter()
        self.repaired = 0
        self.leader = 0

    def look(self) -> None:
        """Take in what is new."""
        for event in self._reader.read():
            self._apply(event)

    def open_runs(self) -> int:
        """Return how many runs were asked for and have no last end."""
        return len(self._open)

    def busy(self) -> set[int]:
        """Return the pids of the workers that have a run."""
        return set(self._at_work.values())

    def close(self) -> None:
        """Close the log."""
        self._reader.close()

    def _apply(self, event: Event) -> None:
        name, run_id = event.get("event"), str(event.get("run_id"))
        if name in ("schedule_enqueued", "run_requested"):
            self.asked += 1
            self._open.add(run_id)
        elif name == "run_started":
            self._at_work[run_id] = event["pid"]
        elif name == "run_parked":
            self._at_work.pop(run_id, None)
        elif name == "run_finished":
            self._at_work.pop(run_id, None)
            self.ends += 1
            if not event.get("next_attempt"):
                self._open.discard(run_id)
                self.ended[event["status"]] += 1
        elif name == "supervisor_started":
            self.leader = event["pid"]
        elif name == "log_repaired":
            self.repaired += 1
