"""Repeats: a further attempt of a run that has ended, and a new run like it; which tasks need not run again. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from workers.dag import Dag
from workers.events import Event
from workers.ids import base_of, pack
from workers.run_context import RunInfo

from .run_record import RunRecord

__all__ = ["kept_tasks", "rerun", "retry"]

# What a request says of its moment, and what the log put on it: neither holds for a repeat.
_OF_THE_MOMENT = (
    *("event", "timestamp", "seq", "host", "pid", "crc", "bumped", "catchup", "trigger", "by"),
    *(
        "not_before",
        "start_by",
        "deadline",
        "on_deadline",
        "max_queued",
        "retry_of",
        "kept",
        "for_run",
        "backfill",
        "parent",
    ),
)
# What a rerun with the definition of today takes from the schedule.
_NAMES_THE_RUN = ("minute", "params", "offered")


def retry(record: RunRecord, kept: Collection[str], by: str) -> Event:
    """Return the request for a further attempt of a run: its parameters and fire time, without the tasks `kept`.

    It waits for the other runs of its schedule where they are not to overlap.
    """
    request = _terms(record.request) | {"run_id": record.run_id, "attempt": record.attempt + 1}
    if request.get("schedule_id") and request.get("overlap") not in (None, "allow"):
        request["overlap"] = "queue"
    return {"event": "run_requested", **request, "by": by, "retry_of": record.attempt, "kept": pack(kept)}


def rerun(record: RunRecord, terms: Mapping[str, object], now: datetime, by: str) -> Event:
    """Return the request for a new run with the parameters and the fire time of another.

    `terms` are those of its schedule as it is today; without them it has those of the other run.
    """
    before = _terms(record.request)
    name = str(before.pop("schedule_id", None) or before.get("for_schedule") or record.run_id.partition(".")[0])
    for_schedule = {"for_schedule": name} if record.request.get("schedule_id") or "for_schedule" in before else {}
    before.pop("overlap", None)
    if terms:
        before = {**terms, **{key: before[key] for key in _NAMES_THE_RUN if key in before}}
    run_id = RunInfo.manual(name, now).run_id
    return {
        "event": "run_requested",
        **before,
        **for_schedule,
        "run_id": run_id,
        "attempt": 1,
        "by": by,
        "rerun_of": record.run_id,
    }


def _terms(request: Event) -> Event:
    return {name: value for name, value in request.items() if name not in _OF_THE_MOMENT}


def kept_tasks(dag: Dag, words: Mapping[str, Event], first: str | None) -> set[str]:
    """Return the tasks that need not run again: they have ended well, and nothing runs again that they need.

    `words` are the events by which the tasks ended; `first` runs again in any case, a task or one item of one. Of a
    task with `foreach` that runs again only because of its items, those that have ended well are kept.
    """
    again: set[str] = set()
    of_first = base_of(first) if first is not None else None
    left = [task for task in dag.tasks if task.id == of_first or not _is_well(words.get(task.id))]
    while left:
        task = left.pop()
        if task.id not in again:
            again.add(task.id)
            left += [each for each in dag.tasks if task.id in each.needs]
    mapped = {task.id for task in dag.tasks if task.foreach is not None and again.isdisjoint(task.needs)}
    items = {name for name in words if base_of(name) in (mapped & again) - {first} and base_of(name) != name}
    return {task.id for task in dag.tasks} - again | {name for name in items if name != first and _is_well(words[name])}


def _is_well(word: Event | None) -> bool:
    """Say whether a task has run to a good end; one that its trigger rule left out is judged anew."""
    if word is None or word.get("event") == "task_skipped":
        return False
    return word.get("status") in ("success", "skipped")
