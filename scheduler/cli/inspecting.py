"""The commands that look into runs: show, diff, stats."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from scheduler.moments import read_since
from workers.ids import is_run_id

from .names import NotThere, UnknownName, UnknownRun, known_runs, known_schedules, read_history
from .output import can_show, print_json, show, width
from .parser import Command, whole_number

if TYPE_CHECKING:
    from scheduler.run_view import RunFacts

__all__ = ["COMMANDS"]

# The levels of a trend on a terminal that knows only ASCII.
_ASCII_LEVELS = "_.-=+*%#"


def _show(options: argparse.Namespace) -> int:
    from scheduler.run_text import render_run

    now = datetime.now(UTC)
    run = _view(options.run, now, options.attempt)
    if options.json:
        print_json(run)
    else:
        show(render_run(run, now, width()))
    return 0


def _view(run_id: str, now: datetime, attempt: int | None = None) -> RunFacts:
    """Return the facts of a run. Raises UnknownRun, NotThere."""
    from scheduler.run_look import look
    from scheduler.run_record import read_record
    from workers.settings import read_settings

    settings = read_settings(os.environ)
    record = read_record(settings, run_id) if is_run_id(run_id) else None
    if record is None:
        raise UnknownRun(run_id, known_runs(read_history(settings), settings))
    if attempt is not None and attempt not in record.attempts:
        raise NotThere(f"run `{run_id}` has no attempt {attempt}", f"it has {', '.join(map(str, record.attempts))}")
    return look(settings, record, now, attempt)


def _diff(options: argparse.Namespace) -> int:
    from scheduler.run_text import render_differences
    from scheduler.run_view import differences

    now = datetime.now(UTC)
    one, other = _view(options.run, now), _view(options.other, now)
    found, dag_diff = list(differences(one, other)), _dag_diff(one, other)
    if options.json:
        rows = [{"what": what, "values": values} for what, *values in found]
        print_json({"runs": [one.run_id, other.run_id], "differences": rows, "dag_diff": dag_diff})
    else:
        show(render_differences((one.run_id, other.run_id), found, dag_diff, width()))
    return 0


def _dag_diff(one: RunFacts, other: RunFacts) -> list[str]:
    """Return the lines in which the files of two runs' DAGs differ, as diff -u has them; none without both copies."""
    import difflib

    from workers.dag_copies import DagGone, copies_of, read_copy
    from workers.settings import read_settings

    versions = [run.dag_version for run in (one, other) if run.dag_version is not None]
    if len(set(versions)) < 2:
        return []
    directory = copies_of(Path(read_settings(os.environ).run_logs_dir))
    try:
        texts = [read_copy(directory, version).decode("utf-8", "replace").splitlines() for version in versions]
    except DagGone:
        return []
    names = [f"{run.dag} of {run.run_id}" for run in (one, other)]
    return list(difflib.unified_diff(texts[0], texts[1], names[0], names[1], lineterm=""))


def _stats(options: argparse.Namespace) -> int:
    from scheduler.run_stats import read_stats
    from scheduler.run_text import render_stats
    from scheduler.text import BLOCKS
    from workers.settings import read_settings

    since = read_since("--since", options.since, datetime.now(UTC))
    settings = read_settings(os.environ)
    rows = read_stats(Path(settings.state_path), since, options.schedule)
    if options.schedule and not rows:
        names = known_schedules(read_history(settings))
        if options.schedule not in names:
            raise UnknownName("schedule", options.schedule, names)
    if options.json:
        print_json(rows)
    else:
        levels = BLOCKS if can_show(BLOCKS, sys.stdout.encoding) else _ASCII_LEVELS
        show(render_stats(rows, width(), levels))
    return 0


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's id")
    parser.add_argument(
        "--attempt",
        type=whole_number(1, 1_000_000),
        metavar="N",
        help="its tasks in this attempt (default: the newest)",
    )


def _add_diff(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's id")
    parser.add_argument("other", metavar="RUN", help="the id of the run to compare it with")


def _add_stats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("schedule", metavar="SCHEDULE", nargs="?", help="of one schedule")
    parser.add_argument(
        "--since", metavar="T", default="30d", help="since this ISO time, or in the last while (default: 30d)"
    )


COMMANDS = {
    "show": Command("one run: why it ran, its attempts, its tasks with their times", _show, _add_show),
    "diff": Command("what differs between two runs, and between their DAGs", _diff, _add_diff),
    "stats": Command("how often schedules succeed, how long they take, how late they start", _stats, _add_stats),
}
