"""The command that looks ahead: forecast."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from scheduler.moments import read_moment
from workers.errors import InvalidFile
from workers.units import Duration

from .output import print_json, show
from .parser import Command, add_dir, whole_number
from .progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scheduler.durations import Durations
    from scheduler.forecast.report import Forecast

__all__ = ["COMMANDS"]

_MOST_DAYS = 366


def _forecast(options: argparse.Namespace) -> int:
    from scheduler.durations import read_durations
    from scheduler.forecast.against import compare
    from scheduler.forecast.heat_map import shades_for
    from scheduler.forecast.text import render, render_comparison
    from workers.settings import read_settings

    settings = read_settings(os.environ)
    durations = read_durations(Path(settings.state_path))
    options.at = read_moment("--at", options.at) if options.at else datetime.now(UTC)
    options.workers = options.workers or settings.max_parallel
    new = _foresee(options.dir, durations, options)
    comparison = compare(_foresee(options.against, durations, options), new) if options.against else None
    if options.json:
        print_json(new.facts(comparison.facts() if comparison else None))
    elif comparison:
        show(render_comparison(comparison))
    else:
        show(render(new, shades_for(sys.stdout.encoding)))
    return 1 if comparison and comparison.worse else 0


def _foresee(directory: Path, durations: Mapping[str, Durations], options: argparse.Namespace) -> Forecast:
    """Play one configuration. Raises NoSchedules, and InvalidFile: what has a fault would not be taken."""
    from scheduler.forecast import Plan, drawn_from, simulate
    from scheduler.forecast.advice import advise
    from scheduler.forecast.report import Forecast
    from scheduler.schedules import read_configuration

    configuration = read_configuration(directory)
    if configuration.faults:
        raise InvalidFile(configuration.faults)
    begin = options.at.replace(second=0, microsecond=0)
    plan = Plan(
        configuration.schedules, begin, begin + timedelta(days=options.days), options.workers, configuration.limits
    )
    assumed_s = Duration.parse(options.assume).total_seconds()
    choose = drawn_from(durations, assumed_s)
    span_s = 86400.0 * options.days
    with Progress(f"forecast of {directory}") as progress:
        outcome = simulate(plan, choose, lambda done_s: progress.show(done_s, span_s, f"day {done_s / 86400:.0f}"))
        progress.show(1, 1, "advice")
        advice = [] if options.against else advise(plan, outcome, choose)
    enabled = [schedule.id for schedule in plan.schedules if schedule.enabled]
    unknown = [name for name in enabled if name not in durations]
    return Forecast(outcome, len(enabled), unknown, assumed_s, advice)


def _add_forecast(parser: argparse.ArgumentParser) -> None:
    add_dir(parser)
    parser.add_argument("--days", type=whole_number(1, _MOST_DAYS), default=7, metavar="N", help="how far (default: 7)")
    parser.add_argument(
        "--against", type=Path, metavar="DIR", help="the schedules as they are; exit 1 when those of --dir are worse"
    )
    parser.add_argument("--workers", type=whole_number(1, 1000), metavar="N", help="default: SCHED_MAX_PARALLEL")
    parser.add_argument(
        "--assume", default="60s", metavar="DURATION", help="the length of runs without history (default: 60s)"
    )
    parser.add_argument("--at", metavar="ISO", help="begin then (default: now)")


COMMANDS = {"forecast": Command("what the schedules will do with the workers: will it fit?", _forecast, _add_forecast)}
