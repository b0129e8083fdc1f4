"""The book of workers: which run each of them has, and that a dead one keeps none."""

from __future__ import annotations

from workers.events import Event

from .report import Ledger, Place

__all__ = ["Worker", "WorkerBook"]

# G6: so long after the word of a worker's death its run may still be open.
_BURIED_WITHIN_S = 2.0
# Boot, pid and start of its process.
Worker = tuple[str, int, int]


class WorkerBook:
    """The runs at work by their workers; `dead` are those whose runs have not been looked for yet: when that was said,
    and where.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.dead: dict[int, tuple[float, Place]] = {}
        self._ledger = ledger
        self._busy: dict[Worker, str] = {}

    def take(self, worker: Worker, run_id: str) -> None:
        """Let a worker have a run."""
        other = self._busy.get(worker)
        if other is not None:
            self._ledger.violate("G6", f"worker {worker[1]} starts run `{run_id}` while it has `{other}`")
        self._busy[worker] = run_id

    def let_go(self, worker: Worker | None, run_id: str) -> None:
        """Let a run leave its worker."""
        if worker is not None and self._busy.get(worker) == run_id:
            del self._busy[worker]

    def bury(self, event: Event, now: float) -> None:
        """Take in a `worker_exited`."""
        self._ledger.count("G6", "dead workers")
        self.dead[int(event["worker_pid"])] = (now, self._ledger.place)

    def look_after_the_dead(self, now: float) -> None:
        """See that no run stays with a worker that is known to be dead."""
        for pid, (died_at, place) in list(self.dead.items()):
            left = [run_id for (_, other, _), run_id in self._busy.items() if other == pid]
            if not left:
                del self.dead[pid]
            elif now > died_at + _BURIED_WITHIN_S:
                self._ledger.violate(
                    "G6", f"run `{left[0]}` is open {now - died_at:.1f} s after its worker died", place
                )
                del self.dead[pid]
