"""What asks for a run once more, as the command line and the dashboard do it: from the record to the request."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from workers.dag import load_dag
from workers.errors import Fault
from workers.events import Event
from workers.ids import base_of
from workers.run_events import kept_of, last_words
from workers.settings import Settings

from .judge import run_terms
from .refusals import Changed, NoRequest, NothingToRetry, StillOpen, UnknownTask
from .repeats import kept_tasks, rerun, retry
from .run_record import RunRecord
from .schedules import read_configuration
from .state_store import StateStore

__all__ = ["demand_repeatable", "rerun_request", "retry_request", "unless_changed"]

_MASKED = "***"


def demand_repeatable(record: RunRecord) -> None:
    """Raise NoRequest for a run of which too little is on record to ask for it once more."""
    if not record.request.get("dag"):
        raise NoRequest(record.run_id, "its request is not on record any more")
    if _MASKED in str(record.request.get("params")):
        raise NoRequest(record.run_id, f"its params are on record as `{_MASKED}`; trigger it with -p")


def retry_request(
    settings: Settings, record: RunRecord, by: str, *, is_failed_only: bool = False, first: str | None = None
) -> Event:
    """Return what asks for a further attempt: of the whole run, of what failed, or of a task and what needs it.

    Raises StillOpen, UnknownTask, NothingToRetry, Forgotten, InvalidFile.
    """
    if record.is_open:
        raise StillOpen(record.run_id)
    kept = _kept(settings, record, first) if is_failed_only or first else set()
    return retry(record, kept, by)


def _kept(settings: Settings, record: RunRecord, first: str | None) -> set[str]:
    """Return the tasks that are not to run again."""
    project = Path(record.request.get("project") or ".")
    dag = load_dag(project / record.request["dag"], project)
    names = [task.id for task in dag.tasks]
    log = Path(settings.events_path)
    words = last_words(log, record.run_id, record.request.get("timestamp"))
    items = [name for name in words if base_of(name) in names and base_of(name) != name]
    if first and first not in (*names, *items):
        raise UnknownTask(first, dag.id, [*names, *items])
    kept = kept_tasks(dag, words, first)
    if kept >= set(names):
        raise NothingToRetry(record.run_id)
    kept_of(log, record.run_id, kept)
    return kept


def rerun_request(
    record: RunRecord, directory: Path, now: datetime, by: str, *, as_was: bool, tell: Callable[[Fault], object]
) -> Event:
    """Return what asks for a new run like another, with its schedule as it is today or, `as_was`, as it was.

    `tell` gets the faults of the directory of schedules where the schedule is not among what can be read.
    Raises NoRequest.
    """
    name = record.request.get("schedule_id") or record.request.get("for_schedule")
    if as_was:
        return rerun(record, {}, now, by) | {"dag_version": _version(record)}
    return rerun(record, _terms_today(record, str(name), directory, tell) if name else {}, now, by)


def _terms_today(record: RunRecord, name: str, directory: Path, tell: Callable[[Fault], object]) -> dict[str, Any]:
    configuration = read_configuration(directory)
    schedules = {schedule.id: schedule for schedule in configuration.schedules}
    if name not in schedules:
        for fault in configuration.faults:
            tell(fault)
        raise NoRequest(record.run_id, f"there is no schedule `{name}` any more; --as-was runs it as it was")
    return run_terms(schedules[name])


def _version(record: RunRecord) -> str:
    """Return the version of the DAG that the run's newest attempt had."""
    starts = record.named("run_started")
    version = starts[-1].get("dag_version") if starts else None
    version = version or record.request.get("dag_version")
    if not version:
        raise NoRequest(record.run_id, "no copy of its DAG was kept; leave out --as-was")
    return str(version)


def unless_changed(store: StateStore, record: RunRecord, request: Event) -> Callable[[object], list[Event]]:
    """Return what decides on a request: it stands, unless something of the run has come since the record was read.

    The decision raises Changed.
    """
    last = max((int(each.get("seq") or 0) for each in record.events), default=0)
    news: list[Event] = []
    store.follow(lambda event: news.append(event) if event.get("run_id") == record.run_id else None)

    def decide(_: object) -> list[Event]:
        if request["run_id"] == record.run_id and any(int(each.get("seq") or 0) > last for each in news):
            raise Changed(record.run_id)
        return [request]

    return decide
