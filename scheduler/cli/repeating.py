"""The commands that do again what was done: retry, rerun."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.errors import TickpoolError, did_you_mean

from .names import UnknownRun, known_runs
from .operator import follow_run, opened, operator
from .output import complain
from .parser import Command, add_dir

if TYPE_CHECKING:
    from scheduler.run_record import RunRecord
    from scheduler.state_store import StateStore
    from workers.events import Event
    from workers.settings import Settings

__all__ = ["COMMANDS"]

_MASKED = "***"


class StillOpen(TickpoolError):
    """A run that has not ended: (its id,)."""

    def __str__(self) -> str:
        return f"run `{self.args[0]}` has not ended; `tickpool cancel` ends it"


class Changed(TickpoolError):
    """A run of which something new has come on record: (its id,)."""

    def __str__(self) -> str:
        return f"run `{self.args[0]}` has just been asked for by somebody else; look at it again"


class NoRequest(TickpoolError):
    """A run that cannot be repeated: (its id, why)."""

    def __str__(self) -> str:
        return f"run `{self.args[0]}` cannot be repeated: {self.args[1]}"


class NothingToRetry(TickpoolError):
    """A retry of what failed in a run in which nothing did: (its id,)."""

    def __str__(self) -> str:
        return f"no task of run `{self.args[0]}` has failed; leave out --failed, or name --from TASK"


class UnknownTask(TickpoolError):
    """A task that a DAG has not: (the task, the DAG, its tasks)."""

    def __str__(self) -> str:
        name, dag, names = self.args
        return f"DAG `{dag}` has no task `{name[:128]}`{did_you_mean(name, names)}"


def _retry(options: argparse.Namespace) -> int:
    from scheduler.repeats import retry

    settings, by = _settings(), operator()
    with opened(settings) as store:
        store.refresh()
        record = _record(settings, store, options.run)
        if record.is_open:
            raise StillOpen(options.run)
        kept = _kept(settings, record, options)
        return _ask(store, record, retry(record, kept, by), options)


def _kept(settings: Settings, record: RunRecord, options: argparse.Namespace) -> set[str]:
    """Return the tasks that are not to run again."""
    from scheduler.repeats import kept_tasks
    from workers.dag import load_dag
    from workers.ids import base_of
    from workers.run_events import kept_of, last_words

    if not (options.failed or options.first):
        return set()
    project = Path(record.request.get("project") or ".")
    dag = load_dag(project / record.request["dag"], project)
    names = [task.id for task in dag.tasks]
    log = Path(settings.events_path)
    words = last_words(log, record.run_id, record.request.get("timestamp"))
    items = [name for name in words if base_of(name) in names and base_of(name) != name]
    if options.first and options.first not in (*names, *items):
        raise UnknownTask(options.first, dag.id, [*names, *items])
    kept = kept_tasks(dag, words, options.first)
    if kept >= set(names):
        raise NothingToRetry(record.run_id)
    kept_of(log, record.run_id, kept)
    return kept


def _rerun(options: argparse.Namespace) -> int:
    from scheduler.repeats import rerun

    settings, now, by = _settings(), datetime.now(UTC), operator()
    with opened(settings) as store:
        store.refresh()
        record = _record(settings, store, options.run)
        terms: dict[str, Any] = {}
        name = record.request.get("schedule_id") or record.request.get("for_schedule")
        if options.as_was:
            terms = {}
        elif name:
            terms = _terms_today(str(name), options)
        request = rerun(record, terms, now, by)
        if options.as_was:
            request["dag_version"] = _version(record)
        return _ask(store, record, request, options)


def _terms_today(name: str, options: argparse.Namespace) -> dict[str, Any]:
    from scheduler.judge import run_terms
    from scheduler.schedules import read_configuration

    configuration = read_configuration(options.dir)
    schedules = {schedule.id: schedule for schedule in configuration.schedules}
    if name not in schedules:
        for fault in configuration.faults:
            complain(fault)
        raise NoRequest(options.run, f"there is no schedule `{name}` any more; --as-was runs it as it was")
    return run_terms(schedules[name])


def _version(record: RunRecord) -> str:
    """Return the version of the DAG that the run's newest attempt had."""
    starts = record.named("run_started")
    version = starts[-1].get("dag_version") if starts else None
    version = version or record.request.get("dag_version")
    if not version:
        raise NoRequest(record.run_id, "no copy of its DAG was kept; leave out --as-was")
    return str(version)


def _record(settings: Settings, store: StateStore, run_id: str) -> RunRecord:
    """Return what is on record of a run that can be repeated."""
    from scheduler.run_record import read_record

    record = read_record(settings, run_id, with_tasks=False)
    if record is None:
        raise UnknownRun(run_id, known_runs(store.history, settings))
    if not record.request.get("dag"):
        raise NoRequest(run_id, "its request is not on record any more")
    if _MASKED in str(record.request.get("params")):
        raise NoRequest(run_id, f"its params are on record as `{_MASKED}`; trigger it with -p")
    return record


def _ask(store: StateStore, record: RunRecord, request: Event, options: argparse.Namespace) -> int:
    """Record the request, unless something has come between, and see to what the options ask for."""
    last = max((int(each.get("seq") or 0) for each in record.events), default=0)
    news: list[Event] = []
    store.follow(lambda event: news.append(event) if event.get("run_id") == record.run_id else None)

    def decide(_: object) -> list[Event]:
        if request["run_id"] == record.run_id and any(int(each.get("seq") or 0) > last for each in news):
            raise Changed(record.run_id)
        return [request]

    return follow_run(store, decide, options)


def _settings() -> Settings:
    from workers.settings import read_settings

    return read_settings(os.environ)


def _add_waiting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the id of a run")
    parser.add_argument("--wait", action="store_true", help="wait for its end; exit 1 when it does not succeed")
    parser.add_argument("--follow", action="store_true", help="the same, and show its tasks as they end")


def _add_retry(parser: argparse.ArgumentParser) -> None:
    _add_waiting(parser)
    parser.add_argument("--failed", action="store_true", help="only what has not succeeded, and what needs that")
    parser.add_argument(
        "--from", dest="first", metavar="TASK", help="this task or item, what needs it, and what has not succeeded"
    )


def _add_rerun(parser: argparse.ArgumentParser) -> None:
    _add_waiting(parser)
    add_dir(parser)
    parser.add_argument("--as-was", action="store_true", help="with schedule and DAG as they were then")


COMMANDS = {
    "retry": Command("a further attempt of a run that has ended", _retry, _add_retry),
    "rerun": Command("a new run with the parameters and the fire time of another", _rerun, _add_rerun),
}
