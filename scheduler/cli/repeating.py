"""The commands that do again what was done: retry, rerun."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .names import UnknownRun, known_runs
from .operator import follow_run, opened, operator
from .output import complain
from .parser import Command, add_dir

if TYPE_CHECKING:
    from scheduler.run_record import RunRecord
    from scheduler.state_store import StateStore
    from workers.settings import Settings

__all__ = ["COMMANDS"]


def _retry(options: argparse.Namespace) -> int:
    from scheduler.asked_again import retry_request, unless_changed

    settings, by = _settings(), operator()
    with opened(settings) as store:
        store.refresh()
        record = _record(settings, store, options.run)
        request = retry_request(settings, record, by, is_failed_only=options.failed, first=options.first)
        return follow_run(store, unless_changed(store, record, request), options)


def _rerun(options: argparse.Namespace) -> int:
    from scheduler.asked_again import rerun_request, unless_changed

    settings, now, by = _settings(), datetime.now(UTC), operator()
    with opened(settings) as store:
        store.refresh()
        record = _record(settings, store, options.run)
        request = rerun_request(record, options.dir, now, by, as_was=options.as_was, tell=complain)
        return follow_run(store, unless_changed(store, record, request), options)


def _record(settings: Settings, store: StateStore, run_id: str) -> RunRecord:
    """Return what is on record of a run that can be repeated."""
    from scheduler.asked_again import demand_repeatable
    from scheduler.run_record import read_record

    record = read_record(settings, run_id, with_tasks=False)
    if record is None:
        raise UnknownRun(run_id, known_runs(store.history, settings))
    demand_repeatable(record)
    return record


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
