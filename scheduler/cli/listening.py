"""The command that tells what the tasks of a run say: logs."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from workers.errors import did_you_mean
from workers.ids import is_run_id

from .names import NotThere, UnknownRun, known_runs
from .output import complain, has_colours, say
from .parser import Command, whole_number

if TYPE_CHECKING:
    from scheduler.history import History
    from workers.segments import LogReader
    from workers.settings import Settings
    from workers.task_output import Line

__all__ = ["COMMANDS"]

_POLL_S = 0.1
_COLOURS = (36, 33, 32, 35, 34, 31)


def _logs(options: argparse.Namespace) -> int:
    from scheduler.history import History
    from workers.segments import LogReader
    from workers.settings import read_settings

    settings = read_settings(os.environ)
    reader, history = LogReader(settings.state_path), History()
    _refresh(reader, history)
    if not _is_known(options.run, history, settings):
        raise UnknownRun(options.run, known_runs(history, settings))
    printer = _Printer(is_json=options.json)
    for line in _lines(options, Path(settings.run_logs_dir) / options.run, reader, history):
        printer(line)
    if not printer.shown:
        complain(f"run {options.run}: no output{' yet' if options.run in history.runs else ''}")
    return 0


def _is_known(run_id: str, history: History, settings: Settings) -> bool:
    """Say whether there is output of a run, or anything on record: its output may have been removed."""
    from scheduler.run_record import read_record

    if not is_run_id(run_id):
        return False
    is_there = run_id in history.runs or (Path(settings.run_logs_dir) / run_id).is_dir()
    return is_there or read_record(settings, run_id, with_tasks=False) is not None


def _lines(options: argparse.Namespace, run_dir: Path, reader: LogReader, history: History) -> Iterator[Line]:
    """Yield the lines of the attempt that is asked for; while following, those of every further one until the end."""
    from workers.task_output import RunOutput, attempts_of

    attempts = attempts_of(run_dir)
    attempt = options.attempt or (attempts[-1] if attempts else 1)
    if options.attempt and attempts and attempt not in attempts:
        raise NotThere(f"run `{options.run}` has no attempt {attempt}", f"it has {', '.join(map(str, attempts))}")
    output = RunOutput(run_dir / str(attempt), options.task)
    # Before the lines are read: an end that is on record then has left no line unread.
    is_over = not options.follow or options.run not in history.runs
    first = output.read(is_over=is_over)
    if options.task and not first and is_over:
        _demand_task(run_dir / str(attempt), options.task)
    yield from deque(first, options.tail) if options.tail else first
    while not is_over:
        time.sleep(_POLL_S)
        _refresh(reader, history)
        is_over = options.run not in history.runs
        newest = max(attempts_of(run_dir), default=attempt)
        is_behind = newest > attempt and not options.attempt
        yield from output.read(is_over=is_over or is_behind)
        if is_behind:
            attempt, output = newest, RunOutput(run_dir / str(newest), options.task)
            yield from output.read(is_over=is_over)


def _demand_task(directory: Path, task: str) -> None:
    """Raise NotThere, with the nearest name, where other tasks have output and this one has none."""
    from workers.task_output import RunOutput

    output = RunOutput(directory)
    output.read()
    if output.tasks and task not in output.tasks:
        raise NotThere(f"no output of task `{task[:128]}`", did_you_mean(task, output.tasks).removeprefix("; "))


def _refresh(reader: LogReader, history: History) -> None:
    for event in reader.read():
        history.apply(event)


class _Printer:
    """Prints lines, each behind the name of its task; in a colour of its own where the terminal has some."""

    def __init__(self, *, is_json: bool) -> None:
        self.shown = 0
        self._is_json = is_json
        self._has_colours = has_colours()
        self._names: dict[str, int] = {}

    def __call__(self, line: Line) -> None:
        self.shown += 1
        if self._is_json:
            at = datetime.fromtimestamp(line.time_s, UTC).isoformat(timespec="milliseconds")
            row = {"time": at, "task_id": line.task_id, "task_attempt": line.task_attempt, "line": line.text}
            print(json.dumps(row), flush=True)
            return
        from workers.terminal import clean

        name = line.task_id + (f".{line.task_attempt}" if line.task_attempt > 1 else "")
        number = self._names.setdefault(line.task_id, len(self._names))
        if self._has_colours:
            # Only the text is another's; the colours are ours.
            print(f"\033[{_COLOURS[number % len(_COLOURS)]}m{clean(name)} |\033[0m {clean(line.text)}", flush=True)
        else:
            say(f"{name} | {line.text}")


def _add_logs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's id")
    parser.add_argument("task", metavar="TASK", nargs="?", help="only of this task")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run has ended")
    parser.add_argument("--tail", type=whole_number(1, 1_000_000), metavar="N", help="only the last lines")
    parser.add_argument(
        "--attempt", type=whole_number(1, 1_000_000), metavar="N", help="of the run (default: the newest)"
    )


COMMANDS = {"logs": Command("what the tasks of a run have said, in the order of time", _logs, _add_logs)}
