"""The commands that look: status, runs, validate."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from scheduler.moments import read_since
from workers.run_request import STATUSES

from .names import UnknownName, known_schedules, known_tags, known_tenants, read_history
from .output import fault_row, print_json, say, show, width
from .parser import Command, add_dir, number, whole_number

if TYPE_CHECKING:
    from workers.events import Event

__all__ = ["COMMANDS"]


def _status(options: argparse.Namespace) -> int:
    from scheduler.status import EXIT_CODES, gather
    from workers.settings import read_settings

    settings = read_settings(os.environ)
    while True:
        now = datetime.now(UTC)
        status = gather(settings, now)
        if options.json:
            print_json(status)
        else:
            from scheduler.status_text import render

            clear = "\033[H\033[2J" if options.watch and sys.stdout.isatty() else ""
            print(clear, end="")
            show(render(status, now, width()))
        if not options.watch:
            return EXIT_CODES[status.health]
        import time

        time.sleep(options.watch)


def _runs(options: argparse.Namespace) -> int:
    from itertools import islice

    from scheduler.state_store import last_events
    from scheduler.status_text import render_runs
    from workers.run_events import is_final, newer_than

    now = datetime.now(UTC)
    since = read_since("--since", options.since, now) if options.since else None
    tagged = _schedules_with(options.tag) if options.tag else None

    def is_wanted(event: Event) -> bool:
        schedule_id = event.get("schedule_id") or event.get("for_schedule")
        return (
            is_final(event)
            and options.schedule in (None, schedule_id)
            and (tagged is None or str(schedule_id) in tagged)
            and options.status in (None, event.get("status"))
            and options.tenant in (None, event.get("tenant") or "default")
        )

    events = last_events() if since is None else newer_than(since, last_events())
    found = list(islice(filter(is_wanted, events), options.limit))
    if not found:
        _demand_names(options)
    if options.json:
        print_json(found)
    else:
        show(render_runs(found, now, width()))
    return 0


def _schedules_with(tag: str) -> set[str]:
    """Return the schedules in force that have a tag. Raises UnknownName."""
    from workers.settings import read_settings

    tags = known_tags(read_history(read_settings(os.environ)))
    if tag not in tags:
        raise UnknownName("tag", tag, list(tags))
    return tags[tag]


def _demand_names(options: argparse.Namespace) -> None:
    """Raise UnknownName for a schedule or a tenant of which nobody has heard."""
    from workers.settings import read_settings

    if not (options.schedule or options.tenant):
        return
    history = read_history(read_settings(os.environ))
    for kind, name, names in (
        ("schedule", options.schedule, known_schedules(history)),
        ("tenant", options.tenant, known_tenants(history)),
    ):
        if name and name not in names:
            raise UnknownName(kind, name, names)


def _validate(options: argparse.Namespace) -> int:
    from scheduler.schedules import validate

    if options.schema is not None:
        return _write_schemas(options)
    checked, faults = validate(options.dir)
    if options.json:
        print_json({"files": checked, "faults": [fault_row(fault) for fault in faults]})
    else:
        for fault in faults:
            say(fault)
        say(f"{len(checked)} file(s) checked, {len(faults)} fault(s)")
    return 1 if faults else 0


def _write_schemas(options: argparse.Namespace) -> int:
    from scheduler.json_schemas import write_schemas

    written = [str(path) for path in write_schemas(options.schema)]
    if options.json:
        print_json({"files": written})
    else:
        for path in written:
            say(f"Wrote {path}")
    return 0


def _add_validate(parser: argparse.ArgumentParser) -> None:
    add_dir(parser)
    parser.add_argument(
        "--schema",
        nargs="?",
        type=Path,
        const=Path(".tickpool"),
        metavar="DIR",
        help="write JSON Schemas of all files for editors instead (default: .tickpool)",
    )


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--watch", nargs="?", type=number(0.01, 86_400), const=2.0, metavar="SECONDS", help="show it again and again"
    )


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--schedule", metavar="ID", help="of one schedule, those that somebody asked for too")
    parser.add_argument("--tenant", metavar="TENANT", help="of one tenant")
    parser.add_argument("--tag", metavar="TAG", help="of the schedules that have this tag now")
    parser.add_argument("--status", choices=STATUSES, metavar="STATUS", help="with one outcome, such as failed")
    parser.add_argument("--since", metavar="T", help="ended since this ISO time, or in the last while, such as 2h")
    parser.add_argument(
        "--limit", type=whole_number(1, 1_000_000), default=20, metavar="N", help="how many (default: 20)"
    )


COMMANDS = {
    "status": Command("what the service is doing; exit 0 well, 1 degraded, 2 down", _status, _add_status),
    "runs": Command("the last runs", _runs, _add_runs),
    "validate": Command("check every schedule and DAG file; exit 1 on any fault", _validate, _add_validate),
}
