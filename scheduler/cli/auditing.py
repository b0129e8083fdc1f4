"""The command that judges a log: audit."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path

from scheduler.moments import read_moment
from workers.units import Duration

from .output import print_json, show
from .parser import Command
from .progress import Progress

__all__ = ["COMMANDS"]


def _add_audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log", type=Path, metavar="FILE", help="the log to judge (default: STATE_STORE_PATH)")
    parser.add_argument("--effects", type=Path, metavar="FILE", help="lines `RUN_ID ATTEMPT` that the tasks wrote")
    parser.add_argument(
        "--effects-of", action="append", default=[], metavar="SCHEDULE", help="only its runs write effects (repeatable)"
    )
    parser.add_argument("--final", action="store_true", help="the system was quiet: nothing may be open")
    parser.add_argument("--at", metavar="ISO", help="judge it as it was then, such as a copy (default: now)")
    parser.add_argument("--lateness", default="60s", metavar="DURATION", help="how late is in time (default: 60s)")


def _audit(options: argparse.Namespace) -> int:
    from scheduler.audit import audit
    from scheduler.audit.text import render
    from workers.segments import LogUnreadable
    from workers.settings import read_settings

    path = options.log or Path(read_settings(os.environ).state_path)
    if not os.path.lexists(path):
        # There is nothing to prove, and that is no proof.
        raise LogUnreadable(str(path), "there is no such log")
    with Progress("audit") as progress:
        report = audit(
            path,
            read_moment("--at", options.at) if options.at else datetime.now(UTC),
            effects=options.effects,
            effects_of=options.effects_of,
            final=options.final,
            lateness_s=Duration.parse(options.lateness).total_seconds(),
            on_read=lambda done, size: progress.show(done, size, f"{done / 1e6:.0f} MB"),
        )
    if options.json:
        print_json(report.as_json())
    else:
        show(render(report))
    return 0 if report.is_clean else 1


COMMANDS = {"audit": Command("prove the log: nothing lost, nothing twice; exit 1 on any violation", _audit, _add_audit)}
