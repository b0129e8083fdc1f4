"""The command line: it parses, calls and prints; nothing else of the scheduler prints.

Exit codes: 0 well, 1 a run failed (or faults were found, or the service is degraded), 2 bad input (or it is down).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from workers.errors import InvalidFile, TickpoolError, did_you_mean
from workers.terminal import make_safe

from . import (
    approving,
    auditing,
    backfilling,
    beginning,
    completing,
    controlling,
    dashing,
    forecasting,
    holding,
    inspecting,
    listening,
    looking,
    proving,
    repeating,
    running,
    seeing,
)
from .output import complain
from .parser import Command, Parser, add_dir

# They run tasks, which inherit the zone of the process.
_RUNNING = ("serve", "tick", "run", "selftest")

__all__ = ["build_module_parser", "build_parser", "commands", "main", "main_module"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console command `tickpool`; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    known = commands()
    if words and not words[0].startswith("-"):
        if words[0] not in known:
            complain(f"tickpool: unknown command `{words[0]}`{did_you_mean(words[0], known)}")
            return 2
        # Only what is asked for: the arguments of `run` alone cost 60 ms of imports.
        known = {words[0]: known[words[0]]}
    options = build_parser(known).parse_args(words)
    return _guarded(options.act, options)


def main_module(argv: Sequence[str] | None = None) -> int:
    """Run `python -m scheduler --dir DIR --once|--serve`; return its exit code."""
    options = build_module_parser().parse_args(argv)
    options.json = options.no_run = False
    options.now = None
    return _guarded(running.serve if options.serve else running.tick, options)


def build_module_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m scheduler`."""
    parser = Parser(prog="python -m scheduler", description="Run tickpool's scheduler.")
    add_dir(parser)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--once", action="store_true", help="one tick, run what is due, end")
    mode.add_argument("--serve", action="store_true", help="run the service")
    return parser


def build_parser(only: Mapping[str, Command] | None = None) -> argparse.ArgumentParser:
    """Return the parser of `tickpool`, with all subcommands or some."""
    parser = Parser(prog="tickpool", description="A cron-like DAG scheduler whose log proves what it did.")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name, command in (only or commands()).items():
        subparser = subparsers.add_parser(name, help=command.text, description=command.text)
        subparser.set_defaults(act=command.act)
        command.add_arguments(subparser)
        if name != "run":
            subparser.add_argument("--json", action="store_true", help="print JSON")
        if name not in _RUNNING:
            subparser.add_argument("--utc", action="store_true", help="show times in UTC (default: the zone of TZ)")
    return parser


def commands() -> dict[str, Command]:
    """Return the subcommands by name."""
    faces = (
        running,
        controlling,
        repeating,
        backfilling,
        holding,
        approving,
        looking,
        inspecting,
        listening,
        seeing,
        forecasting,
        auditing,
        proving,
        dashing,
        beginning,
        completing,
    )
    return {name: command for face in faces for name, command in face.COMMANDS.items()}


def _guarded(act: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run a command; what a person can mend becomes one line and exit code 2.

    Warnings of `logging` reach stderr by its handler of last resort, as plain lines.
    """
    make_safe()
    if getattr(options, "utc", False):
        os.environ["TZ"] = "UTC"  # a process of its own: nothing that it starts goes by it
        time.tzset()
    try:
        code = act(options)
        sys.stdout.flush()
    except TickpoolError as error:
        for line in error.faults if isinstance(error, InvalidFile) else [error]:
            complain(line)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (`head`, say) has seen enough; keep the interpreter from flushing into it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        complain(f"{place}{error.strerror or error}")
        return 2
    return code
