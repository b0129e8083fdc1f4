"""`python -m workers dags/x.yaml -p region=eu`: run one DAG by hand, in this process, and leave history."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from .dag import Dag, load_dag, project_of
from .errors import InvalidFile, TickpoolError
from .events import Event
from .failpoints import arm
from .given_params import checked_params
from .masking import Mask
from .process_tree import become_subreaper
from .run_context import RunInfo, Stop
from .secret_values import RunSecrets
from .settings import read_settings
from .terminal import clean, make_safe
from .worker import Executor

__all__ = ["add_arguments", "main", "run_by_hand", "show_task"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(clean(f"{self.prog}: {message} (see {self.prog} --help)"), file=sys.stderr)
        sys.exit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a DAG by hand; return 0 when it succeeded, 1 when it did not, 2 for bad input."""
    make_safe()
    parser = _Parser(prog="python -m workers", description="Run one DAG here and now.")
    add_arguments(parser)
    options = parser.parse_args(argv)
    try:
        return run_by_hand(options)
    except TickpoolError as error:
        for line in error.faults if isinstance(error, InvalidFile) else [error]:
            print(clean(line), file=sys.stderr)
        return 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of `run_by_hand`."""
    parser.add_argument("dag", metavar="DAG", help="a DAG file, such as dags/report.yaml")
    parser.add_argument("-p", "--param", action="append", default=[], metavar="NAME=VALUE", help="set a parameter")
    parser.add_argument(
        "--project", type=Path, help="where its paths start (default: the parent of `dags`, or the current directory)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")


def run_by_hand(options: argparse.Namespace) -> int:
    """Run the DAG that the options name. Raises TickpoolError for bad input."""
    path = Path(os.path.abspath(options.dag))
    project = (options.project or project_of(path)).absolute()
    dag = load_dag(path, project)
    mask = RunSecrets(dag.all_secrets(), os.environ).mask
    with mask.errors():
        return _run(dag, path, project, options, mask)


def _run(dag: Dag, path: Path, project: Path, options: argparse.Namespace, mask: Mask) -> int:
    params = checked_params(dag, str(options.dag), options.param)
    info = RunInfo.manual(dag.id, datetime.now(UTC))
    request = {
        "event": "run_requested",
        "run_id": info.run_id,
        "attempt": 1,
        "dag": os.path.relpath(path, project),
        "project": str(project),
        "params": params,
        "minute": info.fire_time,
    }
    stop = Stop()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        stop.request(f"{signal.Signals(number).name} was received")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    become_subreaper()
    if not options.json:
        print(f"Run {info.run_id}", flush=True)
    settings = read_settings(os.environ)
    arm(settings.failpoints)
    os.environ.update(settings.environ())
    executor = Executor(settings, on_task_event=None if options.json else show_task)
    told = {**request, "params": mask.plain(params)}
    is_ours = executor.claim(told, stop, ask_first=True)
    result = executor.perform(request, stop) if is_ours else executor.refusal(request, stop)
    if options.json:
        print(json.dumps({**executor.last_result, "params": told["params"]}, default=str))
    else:
        print(clean(f"{result.status}  {result.duration_s:.2f} s" + (f"  {result.reason}" if result.reason else "")))
    return 0 if result.status == "success" else 1


def show_task(event: Mapping[str, Any] | Event) -> None:
    """Print a line when a task has ended, or is to be tried again."""
    name, task = event["event"], event.get("task_id")
    if name == "task_finished":
        seconds = f"{event.get('duration_s') or 0:.2f} s"
        line = f"{event['status']:<9} {task}  {seconds}"
    elif name == "task_skipped":
        line = f"{event.get('status') or 'skipped':<9} {task}"
    elif name == "task_retried":
        line = f"retrying  {task} in {event.get('delay_s') or 0:.1f} s"
    else:
        return
    print(clean(f"  {line}{_reason(event)}"), flush=True)


def _reason(event: Mapping[str, Any]) -> str:
    return f"  {event['reason']}" if event.get("reason") else ""


if __name__ == "__main__":
    sys.exit(main())
