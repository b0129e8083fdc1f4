"""The command line: it parses, calls and prints; nothing else of the scheduler prints.

Exit codes: 0 well, 1 a run failed (or faults were found, or the service is degraded), 2 bad input (or it is down).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from workers.errors import TickpoolError, did_you_mean

if TYPE_CHECKING:
    from workers.events import Event

    from .schedules import Configuration

__all__ = ["build_module_parser", "build_parser", "main", "main_module"]


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(2)


class _Command(NamedTuple):
    """One subcommand: what it does, the function that does it, and the one that gives a parser its arguments."""

    text: str
    act: Callable[[argparse.Namespace], int]
    add_arguments: Callable[[argparse.ArgumentParser], object]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console command `tickpool`; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    commands = _commands()
    if words and not words[0].startswith("-"):
        if words[0] not in commands:
            print(f"tickpool: unknown command `{words[0]}`{did_you_mean(words[0], commands)}", file=sys.stderr)
            return 2
        # Only what is asked for: the arguments of `run` alone cost 60 ms of imports.
        commands = {words[0]: commands[words[0]]}
    options = build_parser(commands).parse_args(words)
    return _guarded(options.act, options)


def main_module(argv: Sequence[str] | None = None) -> int:
    """Run `python -m scheduler --dir DIR --once|--serve`; return its exit code."""
    options = build_module_parser().parse_args(argv)
    options.json = options.no_run = False
    options.now = None
    return _guarded(_serve if options.serve else _tick, options)


def build_module_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m scheduler`."""
    parser = _Parser(prog="python -m scheduler", description="Run tickpool's scheduler.")
    _add_dir(parser)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--once", action="store_true", help="one tick, run what is due, end")
    mode.add_argument("--serve", action="store_true", help="run the service")
    return parser


def build_parser(commands: Mapping[str, _Command] | None = None) -> argparse.ArgumentParser:
    """Return the parser of `tickpool`, with all subcommands or some."""
    parser = _Parser(prog="tickpool", description="A cron-like DAG scheduler whose log proves what it did.")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for name, command in (commands or _commands()).items():
        subparser = subparsers.add_parser(name, help=command.text, description=command.text)
        subparser.set_defaults(act=command.act)
        command.add_arguments(subparser)
        if name != "run":
            subparser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _commands() -> dict[str, _Command]:
    return {
        "serve": _Command("run the service", _serve, _add_dir),
        "tick": _Command("one tick: judge this minute and run what is due", _tick, _add_tick),
        "run": _Command("run one DAG here and now", _run, _add_run),
        "status": _Command("what the service is doing; exit 0 well, 1 degraded, 2 down", _status, _add_status),
        "runs": _Command("the last runs", _runs, _add_runs),
        "next": _Command("the next fire times", _next, _add_next),
        "validate": _Command("check every schedule and DAG file; exit 1 on any fault", _validate, _add_dir),
    }


def _add_tick(parser: argparse.ArgumentParser) -> None:
    _add_dir(parser)
    parser.add_argument("--now", metavar="ISO", help="judge this moment instead, such as 2026-11-23T09:00:00Z")
    parser.add_argument("--no-run", action="store_true", help="enqueue only; a service runs it")


def _add_run(parser: argparse.ArgumentParser) -> None:
    from workers.__main__ import add_arguments

    add_arguments(parser)


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--watch", nargs="?", type=float, const=2.0, metavar="SECONDS", help="show it again and again")


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--schedule", metavar="ID", help="of one schedule")
    parser.add_argument("--status", metavar="STATUS", help="with one outcome, such as failed")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="how many (default: 20)")


def _add_next(parser: argparse.ArgumentParser) -> None:
    _add_dir(parser)
    parser.add_argument("schedule", nargs="?", metavar="SCHEDULE", help="of one schedule")
    parser.add_argument("--count", type=int, default=5, metavar="N", help="how many of each (default: 5)")


def _add_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dir", type=Path, default=Path("schedules"), help="the directory of schedule files (default: schedules)"
    )


def _guarded(act: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run a command; what a person can mend becomes one line and exit code 2.

    Warnings of `logging` reach stderr by its handler of last resort, as plain lines.
    """
    try:
        code = act(options)
        sys.stdout.flush()
    except TickpoolError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (`head`, say) has seen enough; keep the interpreter from flushing into it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"{place}{error.strerror or error}", file=sys.stderr)
        return 2
    return code


def _say(line: str) -> None:
    print(line, flush=True)


def _say_json(line: str) -> None:
    print(json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "message": line}), flush=True)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, default=str))


def _serve(options: argparse.Namespace) -> int:
    from workers.settings import read_settings

    from .supervisor import Supervisor

    settings = read_settings(os.environ)
    return Supervisor(options.dir, settings, _say_json if options.json else _say).run()


def _tick(options: argparse.Namespace) -> int:
    from workers.settings import read_settings

    from .once import tick

    now = _moment(options.now) if options.now else datetime.now(UTC)
    say = (lambda _: None) if options.json else _say

    def on_loaded(configuration: Configuration) -> None:
        for fault in configuration.faults:
            print(fault, file=sys.stderr, flush=True)
        say(f"Loaded {len(configuration.schedules)} schedule(s) from {options.dir}")
        say("Running single tick...")

    def on_enqueued(requests: list[Event]) -> None:
        say(f"Enqueued {len(requests)} run(s)")
        if options.no_run:
            for request in requests:
                say(f"  queued    {request['run_id']}")

    def on_end(end: Event) -> None:
        reason = f"  {end['reason']}" if end.get("reason") else ""
        say(f"  {end['status']:<9} {end['run_id']}  {end.get('duration_s') or 0:.2f} s{reason}")

    ticked = tick(
        options.dir,
        read_settings(os.environ),
        now,
        run=not options.no_run,
        on_loaded=on_loaded,
        on_enqueued=on_enqueued,
        on_end=on_end,
    )
    if options.json:
        faults = [_fault_row(fault) for fault in ticked.configuration.faults]
        loaded = len(ticked.configuration.schedules)
        _print_json({"loaded": loaded, "faults": faults, "verdicts": ticked.verdicts, "runs": ticked.ends})
    if ticked.configuration.faults:
        return 2
    return 0 if all(end["status"] == "success" for end in ticked.ends) else 1


class InvalidMoment(TickpoolError):
    """A `--now` that is no moment: (the text)."""

    def __str__(self) -> str:
        return f"--now {self.args[0]!r}: write an ISO 8601 time with its zone, such as 2026-11-23T09:00:00Z"


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidMoment(text) from None
    if moment.tzinfo is None:
        raise InvalidMoment(text)
    return moment.astimezone(UTC)


def _run(options: argparse.Namespace) -> int:
    from workers.__main__ import run_by_hand

    return run_by_hand(options)


def _status(options: argparse.Namespace) -> int:
    from workers.settings import read_settings

    from .status import EXIT_CODES, gather

    settings = read_settings(os.environ)
    while True:
        status = gather(settings, datetime.now(UTC))
        if options.json:
            _print_json(status)
        else:
            from .status_text import render

            clear = "\033[H\033[2J" if options.watch and sys.stdout.isatty() else ""
            print(clear + render(status), flush=True)
        if not options.watch:
            return EXIT_CODES[status["health"]]
        import time

        time.sleep(options.watch)


def _runs(options: argparse.Namespace) -> int:
    from itertools import islice

    from .state_store import last_events
    from .status import is_final
    from .status_text import render_runs

    def is_wanted(event: Event) -> bool:
        return (
            is_final(event)
            and options.schedule in (None, event.get("schedule_id"))
            and options.status in (None, event.get("status"))
        )

    found = list(islice(filter(is_wanted, last_events()), max(0, options.limit)))
    if options.json:
        _print_json(found)
    else:
        print(render_runs(found))
    return 0


def _next(options: argparse.Namespace) -> int:
    from itertools import islice

    from .schedules import load_schedules
    from .status_text import render_fires

    schedules = load_schedules(options.dir)
    if options.schedule:
        names = [schedule.id for schedule in schedules]
        schedules = [schedule for schedule in schedules if schedule.id == options.schedule]
        if not schedules:
            raise UnknownSchedule(options.schedule, names)
    now = datetime.now(UTC)
    rows = []
    for schedule in schedules:
        fires = _fires_after(schedule.fires.next, now.astimezone(schedule.zone)) if schedule.enabled else ()
        for fire in islice(fires, max(0, options.count)):
            utc = fire.astimezone(UTC)
            row = {
                "schedule_id": schedule.id,
                "fire_time": fire.isoformat(),
                "utc": utc.isoformat(),
                "cron": schedule.cron,
            }
            rows.append({**row, "explained": schedule.fires.explain(), "in_s": round((utc - now).total_seconds(), 1)})
    rows.sort(key=lambda row: str(row["utc"]))
    if options.json:
        _print_json(rows)
    else:
        print(render_fires(rows))
    return 0


def _fires_after(next_fire: Callable[[datetime], datetime | None], moment: datetime) -> Iterable[datetime]:
    while (following := next_fire(moment)) is not None:
        yield following
        moment = following


class UnknownSchedule(TickpoolError):
    """A schedule id that no file has: (the id, those that are there)."""

    def __str__(self) -> str:
        return f"no schedule `{self.args[0]}`{did_you_mean(*self.args)}"


def _validate(options: argparse.Namespace) -> int:
    from .schedules import validate

    checked, faults = validate(options.dir)
    if options.json:
        _print_json({"files": checked, "faults": [_fault_row(fault) for fault in faults]})
    else:
        for fault in faults:
            print(fault)
        print(f"{len(checked)} file(s) checked, {len(faults)} fault(s)")
    return 1 if faults else 0


def _fault_row(fault: Any) -> dict[str, Any]:
    return {"file": fault.path, "line": fault.line, "col": fault.col, "message": fault.message}


if __name__ == "__main__":
    sys.exit(main())
