"""The book of parked runs: started -> parked -> resumed -> started, and not before what they wait for has come."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from workers.events import Event

from .report import Ledger, Place
from .services import Services
from .times import seconds

__all__ = ["ParkBook"]

_SLACK_S = 2.0


class _Park(msgspec.Struct):
    """A parked run: the runs that it awaits, the moment by which it goes on, and since when it is due."""

    awaited: set[str]
    until_s: float | None
    place: Place
    due_s: float | None = None


class ParkBook:
    """The runs that are parked, and the questions that nobody has answered."""

    def __init__(self, ledger: Ledger, services: Services, lateness_s: float) -> None:
        self._ledger = ledger
        self._services = services
        self._lateness_s = lateness_s
        self._parked: dict[str, _Park] = {}
        # The tasks that ask, and until when they do, by run.
        self._questions: dict[str, dict[str, float | None]] = {}

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._parked

    def park(self, event: Event, open_runs: Collection[str], ended: Collection[str]) -> None:
        """Take in a `run_parked` of a run that was on a worker: nothing has come yet that it waits for."""
        run_id, questions = event["run_id"], self._questions.get(event["run_id"], {})
        self._ledger.count("G2", "parked")
        self._open(run_id, event)
        for each in event["waits"]:
            name = each.get("run")
            if each.get("kind") == "approval" and each["task_id"] not in questions:
                text = f"run `{run_id}` is parked for an answer to `{each['task_id']}`, which does not ask, or has it"
                self._ledger.violate("G1", text)
            elif name and name in ended and name not in open_runs:
                self._ledger.violate("G5", f"run `{run_id}` is parked for the end of run `{name}`, which has ended")
            elif each.get("kind") == "dag" and name not in open_runs:
                self._ledger.violate("G2", f"run `{run_id}` is parked for run `{name}`, and has not asked for it")

    def restore(self, run: Event) -> None:
        """Take an open run from a checkpoint."""
        self._questions[run["run_id"]] = _questions_of(run)
        if run["status"] == "parked":
            self._open(run["run_id"], run["parked"])
            if run.get("is_due"):
                self._mark(run["run_id"])

    def resume(self, event: Event, now: float) -> None:
        """Take in a `run_resumed`: of a run that is parked, once what it waits for has come."""
        run_id = event["run_id"]
        park = self._parked.pop(run_id, None)
        if park is None:
            self._ledger.violate("G1", f"run `{run_id}` goes on, and it is not parked")
        elif event.get("reason") == "time":
            if park.until_s is None or park.until_s > now + _SLACK_S:
                self._ledger.violate("G1", f"run `{run_id}` goes on before its time")
        elif park.due_s is None:
            self._ledger.violate("G1", f"run `{run_id}` goes on, and nothing has come that it waits for")
        else:
            self._check_wait(run_id, park)

    def ask(self, event: Event) -> None:
        """Take in an `approval_requested`."""
        self._ledger.count("G2", "approvals")
        self._questions.setdefault(event["run_id"], {})[str(event["task_id"])] = _moment(event.get("until"))

    def answer(self, event: Event, now: float) -> None:
        """Take in a `task_approved` or `task_rejected`: one answer a question, in its time."""
        run_id, task_id = event["run_id"], str(event["task_id"])
        questions = self._questions.get(run_id, {})
        if task_id not in questions:
            text = f"task `{task_id}` of run `{run_id}` is answered, and does not ask, or not any more"
            self._ledger.violate("G2", text)
            return
        until_s = questions.pop(task_id)
        if until_s is not None and now > until_s + _SLACK_S:
            text = f"task `{task_id}` of run `{run_id}` is answered {now - until_s:.1f} s after its time"
            self._ledger.violate("G2", text)
        self._mark(run_id)

    def end(self, run_id: str, _attempt: int, *, is_last: bool) -> None:
        """Take in the end of an attempt: it waits for nothing any more, and with the last one others are due."""
        self._parked.pop(run_id, None)
        self._questions.pop(run_id, None)
        for name in [name for name, park in self._parked.items() if is_last and run_id in park.awaited]:
            self._mark(name)

    def set_clock(self) -> None:
        """Take in that the clock was set: moments are those of the clock before."""
        for park in self._parked.values():
            park.until_s = 0.0 if park.until_s is not None else None
        for questions in self._questions.values():
            questions.update(dict.fromkeys(questions))

    def compare(self, run: Event) -> None:
        """Compare with an open run of a checkpoint: what it asks, and what it waits for."""
        run_id, park = run["run_id"], self._parked.get(run["run_id"])
        if self._questions.get(run_id, {}).keys() != _questions_of(run).keys():
            self._ledger.violate("G5", f"run `{run_id}` asks something else in the checkpoint")
        if park is None or run["status"] != "parked":
            return
        is_same = (park.awaited, park.due_s is not None) == (_awaited(run["parked"]), bool(run.get("is_due")))
        if not is_same or (park.until_s and park.until_s != _moment(run["parked"].get("until"))):
            self._ledger.violate("G5", f"run `{run_id}` waits for something else in the checkpoint")

    def conclude(self) -> None:
        """Judge what is parked where the log ends."""
        for run_id, park in self._parked.items():
            if park.due_s is not None:
                self._check_wait(run_id, park)

    def _open(self, run_id: str, facts: dict[str, Any]) -> None:
        self._parked[run_id] = _Park(_awaited(facts), _moment(facts.get("until")), self._ledger.place)

    def _mark(self, run_id: str) -> None:
        park = self._parked.get(run_id)
        if park is not None and park.due_s is None:
            park.due_s = self._services.mark_s()

    def _check_wait(self, run_id: str, park: _Park) -> None:
        waited_s = self._services.free_s - (park.due_s or 0.0)
        if waited_s > self._lateness_s:
            text = f"run `{run_id}` stayed parked for {waited_s:.1f} s after what it waits for had come"
            self._ledger.violate("lateness", text, park.place)


def _awaited(facts: dict[str, Any]) -> set[str]:
    return {str(each["run"]) for each in facts["waits"] if each.get("run")}


def _questions_of(run: Event) -> dict[str, float | None]:
    return {str(name): _moment(each.get("until")) for name, each in (run.get("questions") or {}).items()}


def _moment(moment: Any) -> float | None:
    return None if moment is None else seconds(moment)
