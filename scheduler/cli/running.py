"""The commands that run something: serve, tick, run."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from scheduler.moments import read_moment

from .output import complain, fault_row, print_json, say, say_json
from .parser import Command, add_dir

if TYPE_CHECKING:
    from scheduler.schedules import Configuration
    from workers.events import Event

__all__ = ["COMMANDS", "serve", "tick"]


def serve(options: argparse.Namespace) -> int:
    """Run the service."""
    from scheduler.supervisor import Supervisor
    from workers.failpoints import arm
    from workers.settings import read_settings

    settings = read_settings(os.environ)
    arm(settings.failpoints)
    return Supervisor(options.dir, settings, say_json if options.json else say).run()


def tick(options: argparse.Namespace) -> int:
    """Tick once, and see to the end of what it asked for."""
    from scheduler import once
    from workers.failpoints import arm
    from workers.settings import read_settings

    settings = read_settings(os.environ)
    arm(settings.failpoints)
    now = read_moment("--now", options.now) if options.now else datetime.now(UTC)
    tell = (lambda _: None) if options.json else say

    def on_loaded(configuration: Configuration) -> None:
        for fault in configuration.faults:
            complain(fault)
        tell(f"Loaded {len(configuration.schedules)} schedule(s) from {options.dir}")
        tell("Running single tick...")

    def on_enqueued(requests: list[Event]) -> None:
        tell(f"Enqueued {len(requests)} run(s)")
        if options.no_run:
            for request in requests:
                tell(f"  queued    {request['run_id']}")

    def on_wait(event: Event) -> None:
        if line := _wait_line(event):
            tell(line)

    def on_end(end: Event) -> None:
        reason = f"  {end['reason']}" if end.get("reason") else ""
        tell(f"  {end['status']:<9} {end['run_id']}  {end.get('duration_s') or 0:.2f} s{reason}")

    ticked = once.tick(
        options.dir,
        settings,
        now,
        run=not options.no_run,
        on_loaded=on_loaded,
        on_enqueued=on_enqueued,
        on_wait=on_wait,
        on_end=on_end,
    )
    if options.json:
        faults = [fault_row(fault) for fault in ticked.configuration.faults]
        loaded = len(ticked.configuration.schedules)
        print_json({"loaded": loaded, "faults": faults, "verdicts": ticked.verdicts, "runs": ticked.ends})
    if ticked.configuration.faults:
        return 2
    return 0 if all(end["status"] == "success" for end in ticked.ends) else 1


def _wait_line(event: Event) -> str:
    """Say what a run asks, or what it is parked for; empty where it is parked for an answer only."""
    from scheduler.status_text import waits_text

    run_id = event["run_id"]
    if event["event"] == "run_parked":
        text = waits_text(event.get("waits"), event.get("until"))
        return f"  {'waits':<9} {run_id}  {text}" if text else ""
    task_id = event["task_id"]
    return f"  {'asks':<9} {run_id}  {event.get('message') or task_id} (`tickpool approve {run_id} {task_id}`)"


def _run(options: argparse.Namespace) -> int:
    from workers.__main__ import run_by_hand

    return run_by_hand(options)


def _add_tick(parser: argparse.ArgumentParser) -> None:
    add_dir(parser)
    parser.add_argument("--now", metavar="ISO", help="judge this moment instead, such as 2026-11-23T09:00:00Z")
    parser.add_argument("--no-run", action="store_true", help="enqueue only; a service runs it")


def _add_run(parser: argparse.ArgumentParser) -> None:
    from workers.__main__ import add_arguments

    add_arguments(parser)


COMMANDS = {
    "serve": Command("run the service", serve, add_dir),
    "tick": Command("one tick: judge this minute and run what is due", tick, _add_tick),
    "run": Command("run one DAG here and now", _run, _add_run),
}
