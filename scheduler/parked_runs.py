"""Parked runs, and the runs that others have asked for: what they wait for, and whether that has come. A fold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from workers.events import Event

from .open_runs import Run

__all__ = ["ChildRuns", "ParkedRuns", "parent_of"]

# What is kept of a `run_parked`.
_FACTS = ("waits", "until", "tasks", "worked_s")


class ParkedRuns:
    """The parked runs: those that wait for the end of a run by that run's id, and those whose wait is over.

    A run has looked for that end when it is parked, and nothing comes between: an end that counts is yet to come.
    """

    def __init__(self) -> None:
        self._awaited: dict[str, dict[str, Run]] = {}
        self._due: dict[str, Run] = {}

    # running -> parked
    def park(self, run: Run, event: Event) -> None:
        """Take in a `run_parked`."""
        version = (run.start or {}).get("dag_version") or (run.parked or {}).get("dag_version")
        facts = {name: event[name] for name in _FACTS if name in event}
        run.status, run.start, run.is_due = "parked", None, False
        run.parked = {**facts, "dag_version": version} if version else facts
        self.add(run)

    # parked -> queued
    def resume(self, run: Run, event: Event) -> None:
        """Take in a `run_resumed`."""
        if run.status == "parked":
            self.remove(run)
            run.status, run.retry_at = "queued", None
            run.resumed = {name: event[name] for name in ("timestamp", "seq") if name in event}

    def answer(self, run: Run, event: Event) -> None:
        """Take in a `task_approved` or `task_rejected`."""
        run.questions = {name: each for name, each in run.questions.items() if name != event["task_id"]}
        if run.status == "parked":
            self._mark(run)

    def add(self, run: Run) -> None:
        """Take a run that is parked, as a checkpoint has it."""
        for name in _awaited_by(run):
            self._awaited.setdefault(name, {})[run.run_id] = run
        if run.is_due:
            self._due[run.run_id] = run

    def remove(self, run: Run) -> None:
        """Let go of a run that is parked no longer; most never were."""
        if run.parked is None and not run.is_due:
            return
        self._due.pop(run.run_id, None)
        for name in _awaited_by(run):
            waiting = self._awaited.get(name, {})
            waiting.pop(run.run_id, None)
            if not waiting:
                self._awaited.pop(name, None)

    def end(self, run_id: str) -> None:
        """Take note that a run has ended."""
        if run_id in self._awaited:
            for run in self._awaited[run_id].values():
                self._mark(run)

    def due(self) -> list[Run]:
        """Return the runs that are to go on."""
        return list(self._due.values())

    def _mark(self, run: Run) -> None:
        run.is_due = True
        self._due[run.run_id] = run


class ChildRuns:
    """The open runs that others have asked for, by those."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, Run]] = {}
        self._is_touched = False

    def open(self, run: Run) -> None:
        """Take an open run, if another one has asked for it."""
        if (parent := parent_of(run)) is not None:
            self._of.setdefault(parent, {})[run.run_id] = run
            self.touch()

    def close(self, run: Run) -> None:
        """Let go of a run that has ended."""
        if not self._of:
            return
        if run.run_id in self._of:
            self.touch()
        parent = parent_of(run)
        if parent in self._of:
            self._of[parent].pop(run.run_id, None)
            if not self._of[parent]:
                del self._of[parent]

    def touch(self) -> None:
        """Take note that an attempt has ended, or that a run was asked for: there may be orphans."""
        self._is_touched = bool(self._of)

    def of(self, run_id: str) -> list[Run]:
        """Return the open runs that this one has asked for, and those that they have asked for."""
        found: dict[str, Run] = {}
        left = [*self._of.get(run_id, {}).values()]
        while left:
            run = left.pop()
            if run.run_id not in found:
                found[run.run_id] = run
                left += self._of.get(run.run_id, {}).values()
        return list(found.values())

    def orphans(self, runs: Mapping[str, Run]) -> list[Run]:
        """Return those for which no attempt of `runs` waits any more, and that nobody has cancelled."""
        if not self._is_touched:
            return []
        children = [run for of_parent in self._of.values() for run in of_parent.values()]
        orphans = [run for run in children if run.cancel is None and not _is_awaited(run, runs)]
        self._is_touched = bool(orphans)
        return orphans


def parent_of(run: Run) -> str | None:
    """Return the id of the run that has asked for this one."""
    parent = run.request.get("parent")
    return str(parent.get("run_id")) if isinstance(parent, dict) else None


def _is_awaited(child: Run, runs: Mapping[str, Run]) -> bool:
    """Say whether the attempt goes on that has asked for a run; by hand, that is for its process to know."""
    asked = child.request["parent"]
    parent = runs.get(str(asked.get("run_id")))
    return bool(asked.get("by_hand")) or (parent is not None and parent.attempt == asked.get("attempt"))


def _awaited_by(run: Run) -> Iterator[str]:
    waits = (run.parked or {}).get("waits")
    for each in waits if isinstance(waits, list) else ():
        if isinstance(each, dict) and each.get("run"):
            yield str(each["run"])
