"""The commands that see ahead: next, lint."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path

from scheduler.moments import read_until

from .names import UnknownName
from .output import complain, fault_row, print_json, say, show, width
from .parser import Command, add_dir, whole_number

__all__ = ["COMMANDS"]

_COUNT = 5


def _next(options: argparse.Namespace) -> int:
    from scheduler.ahead import fires_ahead
    from scheduler.ahead_text import render_fires
    from scheduler.schedules import load_schedules

    now = datetime.now(UTC)
    until = read_until("--until", options.until, now) if options.until else None
    schedules = load_schedules(options.dir)
    if options.schedule:
        names = [schedule.id for schedule in schedules]
        schedules = [schedule for schedule in schedules if schedule.id == options.schedule]
        if not schedules:
            raise UnknownName("schedule", options.schedule, names)
    count = options.count if options.count is not None or until else _COUNT
    rows = fires_ahead(schedules, now, count=count, until=until)
    if options.json:
        print_json(rows)
    else:
        show(render_fires(rows, width()))
    return 0


def _lint(options: argparse.Namespace) -> int:
    import msgspec

    from scheduler.durations import read_durations
    from scheduler.lint import lint
    from scheduler.lint.text import render
    from workers.segments import LogUnreadable
    from workers.settings import read_settings

    settings = read_settings(os.environ)
    if options.log and not options.log.is_file():
        raise LogUnreadable(str(options.log), "there is no such log")
    path = options.log or Path(settings.state_path)
    durations = read_durations(path)
    found = lint(options.dir, datetime.now(UTC), durations, settings.max_parallel)
    if options.json:
        print_json(
            {
                "schedules": found.schedules,
                "log": str(path),
                "with_history": len(durations),
                "remarks": [msgspec.structs.asdict(remark) for remark in found.remarks],
                "faults": [fault_row(fault) for fault in found.faults],
            }
        )
    else:
        for fault in found.faults:
            complain(fault)
        for remark in found.remarks:
            show(render(remark, width()))
        left_out = "" if durations else f"; no ends of runs in {path}, so nothing was said about lengths"
        faults = f", {len(found.faults)} fault(s)" if found.faults else ""
        say(f"{found.schedules} schedule(s), {len(found.remarks)} remark(s){faults}{left_out}")
    return 2 if found.faults else int(bool(found.remarks))


def _add_next(parser: argparse.ArgumentParser) -> None:
    add_dir(parser)
    parser.add_argument("schedule", nargs="?", metavar="SCHEDULE", help="of one schedule")
    parser.add_argument(
        "--count",
        type=whole_number(1, 1_000_000),
        metavar="N",
        help=f"how many of each (default: {_COUNT}, or all to T)",
    )
    parser.add_argument("--until", metavar="T", help="up to this ISO time, or this far ahead, such as 7d")


def _add_lint(parser: argparse.ArgumentParser) -> None:
    add_dir(parser)
    parser.add_argument("--log", type=Path, metavar="FILE", help="the log with the history (default: STATE_STORE_PATH)")


COMMANDS = {
    "next": Command("the next fire times", _next, _add_next),
    "lint": Command("what schedules say that nobody means, and what to write; exit 1 on any remark", _lint, _add_lint),
}
