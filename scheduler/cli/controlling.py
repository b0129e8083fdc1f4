"""The commands that ask: trigger, cancel."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scheduler.moments import read_moment
from scheduler.refusals import NotOpen
from workers.errors import TickpoolError, did_you_mean

from .holding import NothingNamed
from .names import UnknownName, known_schedules
from .operator import follow_run, opened, operator, wait
from .output import complain, print_json, say
from .parser import Command, add_dir

if TYPE_CHECKING:
    from scheduler.history import History
    from scheduler.open_runs import Run
    from workers.events import Event

__all__ = ["COMMANDS"]

_SHOWN = 10


class NothingToTrigger(TickpoolError):
    """A name that is neither a schedule nor a DAG file: (the name, the schedules, their directory)."""

    def __str__(self) -> str:
        name, schedules, directory = self.args
        near = did_you_mean(name, schedules)
        way_out = "" if near.endswith("?") else "; or name a DAG file, such as dags/report.yaml"
        return f"no schedule `{name[:128]}` in {directory}{near}{way_out}"


# -- trigger ----------------------------------------------------------------------------------------------------------


def _trigger(options: argparse.Namespace) -> int:
    from workers.settings import read_settings

    settings = read_settings(os.environ)
    request = _request(options)
    with opened(settings) as store:
        return follow_run(store, lambda _: [request], options)


def _request(options: argparse.Namespace) -> Event:
    """Return what is asked for. Raises TickpoolError."""
    from scheduler.control import request_dag, request_schedule
    from scheduler.schedules import read_configuration
    from workers.dag import load_dag
    from workers.given_params import checked_params

    now, by = datetime.now(UTC), operator()
    at = read_moment("--at", options.at) if options.at else None
    configuration = read_configuration(options.dir)
    schedules = {schedule.id: schedule for schedule in configuration.schedules}
    schedule = schedules.get(options.name)
    if schedule is not None:
        project = Path(schedule.project)
        dag = load_dag(project / schedule.dag, project)
        params = checked_params(dag, schedule.dag, options.param, schedule.params)
        return request_schedule(schedule, params, now, at, by)
    if not options.name.endswith((".yaml", ".yml")):
        for fault in configuration.faults:  # it may be in a file that cannot be read
            complain(fault)
        raise NothingToTrigger(options.name, schedules, options.dir)
    path, project = Path(os.path.abspath(options.name)), options.dir.absolute().parent
    dag = load_dag(path, project)
    params = checked_params(dag, options.name, options.param, {})
    return request_dag(dag.id, os.path.relpath(path, project), str(project), params, now, at, by)


# -- cancel -----------------------------------------------------------------------------------------------------------


def _cancel(options: argparse.Namespace) -> int:
    from scheduler.control import cancel, cancel_backfill, service_of, signal_cancelled, wake
    from workers.run_events import is_final
    from workers.settings import read_settings

    if not (options.run or options.schedule or options.queued or options.backfill):
        raise NothingNamed("cancel", "name a run, --schedule ID, --backfill ID, or --queued")
    by = operator()
    with opened(read_settings(os.environ)) as store:
        ends: dict[str, Event] = {}
        runs: list[Run] = []
        trees: dict[str, list[dict[str, Any]]] = {}

        def note(event: Event) -> None:
            if is_final(event):
                ends[event["run_id"]] = event

        def decide(history: History) -> list[Event]:
            runs.extend(_chosen(history, options))
            backfills = [cancel_backfill(name, by) for name in _backfills(history, options)]
            return [*backfills, *(event for run in runs for event in cancel(run, by))]

        store.refresh()
        _demand_schedule(store.history, options)
        # What each of them has started is looked up before anything is ended.
        for run in _chosen(store.history, options):
            trees[run.run_id] = list(_processes(run))
        store.follow(note)
        store.commit(decide)
        service = service_of(store.history)
        wake(service)
        lost = signal_cancelled((run for run in runs if run.run_id not in ends), service)
        names = [run.run_id for run in runs if run.run_id not in lost]
        wait(store, lambda: ends.keys() >= set(names))
        rows = [_row(run, ends.get(run.run_id), trees.get(run.run_id, [])) for run in runs]
    if options.json:
        print_json(rows)
    else:
        _show_cancelled(rows)
    return 0 if all(row["status"] == "cancelled" for row in rows) else 1


def _chosen(history: History, options: argparse.Namespace) -> list[Run]:
    """Return the open runs that the options name, and those that these have asked for. Raises NotOpen."""
    from scheduler.control import with_children

    for name in options.run:
        if name not in history.runs:
            raise NotOpen(name, list(history.runs))
    named = [
        run
        for run in history.runs.values()
        if run.run_id in options.run
        or (options.schedule is not None and options.schedule in (run.schedule_id, run.request.get("for_schedule")))
        or (options.queued and run.status == "queued")
        or (options.backfill is not None and options.backfill == run.request.get("backfill"))
    ]
    return with_children(history, named)


def _demand_schedule(history: History, options: argparse.Namespace) -> None:
    """Raise UnknownName for a schedule of which nobody has heard."""
    names = {*known_schedules(history), *(run.request.get("for_schedule") for run in history.runs.values())}
    if options.schedule and options.schedule not in names:
        raise UnknownName("schedule", options.schedule, sorted(name for name in names if isinstance(name, str)))


def _backfills(history: History, options: argparse.Namespace) -> list[str]:
    """Return the backfill that the options name. Raises NotOpen."""
    if not options.backfill:
        return []
    if options.backfill not in history.backfills.open:
        raise UnknownName("open backfill", options.backfill, list(history.backfills.open))
    return [options.backfill]


def _processes(run: Run) -> Iterator[dict[str, Any]]:
    """Yield what the process of a run has started, each with `pid` and `command`."""
    import psutil

    try:
        tree = psutil.Process(run.process.pid).children(recursive=True) if run.process is not None else []
    except psutil.Error:
        return
    for process in tree:
        try:
            yield {"pid": process.pid, "command": " ".join(process.cmdline()) or process.name()}
        except psutil.Error:
            continue


def _row(run: Run, end: Event | None, processes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "was": run.status,
        "status": end["status"] if end else "lost",
        "reason": end.get("reason") if end else "its process is gone; the next service gives it its end",
        "processes": processes,
    }


def _show_cancelled(rows: list[dict[str, Any]]) -> None:
    if not rows:
        say("Nothing to cancel")
    for row in rows:
        count = len(row["processes"])
        what = "it waited" if row["was"] != "running" else f"{count} process{'' if count == 1 else 'es'} ended"
        if row["status"] != "cancelled":
            what = row["reason"] or "it ended before the cancel came to it"
        say(f"{row['status']:<9} {row['run_id']}  {what}")
        for process in row["processes"][:_SHOWN]:
            say(f"  {process['pid']:>7}  {process['command'][:120]}")
        if count > _SHOWN:
            say(f"  and {count - _SHOWN} more")


def _add_trigger(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="SCHEDULE|DAG", help="a schedule's id, or a DAG file such as dags/report.yaml")
    add_dir(parser)
    parser.add_argument("-p", "--param", action="append", default=[], metavar="NAME=VALUE", help="set a parameter")
    parser.add_argument("--at", metavar="ISO", help="not before then; it is the run's fire time (default: now)")
    parser.add_argument("--wait", action="store_true", help="wait for its end; exit 1 when it does not succeed")
    parser.add_argument("--follow", action="store_true", help="the same, and show its tasks as they end")


def _add_cancel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="*", help="the id of an open run")
    parser.add_argument("--schedule", metavar="ID", help="all open runs of a schedule")
    parser.add_argument("--backfill", metavar="ID", help="the runs of a backfill, and what it has not asked for yet")
    parser.add_argument("--queued", action="store_true", help="all runs that wait")


COMMANDS = {
    "trigger": Command("run a schedule or a DAG now, by the service", _trigger, _add_trigger),
    "cancel": Command("end open runs, their processes first", _cancel, _add_cancel),
}
