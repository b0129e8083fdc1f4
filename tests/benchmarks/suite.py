"""The command: choose benchmarks, run them in turn, print the table and the machine."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import (
    bench_cli,
    bench_dashboard,
    bench_day,
    bench_forecast,
    bench_history,
    bench_log,
    bench_runs,
    bench_schedules,
    bench_service,
)
from .machine import describe, load_average
from .measure import Bench, Row, table

__all__ = ["benchmarks", "main"]


def benchmarks() -> dict[str, Callable[[Bench], list[Row]]]:
    """Return every benchmark by its name, in the order of the table."""
    return {
        "append": bench_log.append,
        "fsync": bench_log.fsync,
        "noop": bench_runs.noop,
        "shell": bench_runs.shell,
        "isolated": bench_runs.isolated,
        "latency": bench_service.latency,
        "burst": bench_service.burst,
        "chain": bench_runs.chains,
        "fib": bench_runs.fibonacci,
        "tail": bench_history.tail,
        "fold": bench_history.fold,
        "audit": bench_history.audited,
        "tick": bench_schedules.tick,
        "load": bench_schedules.load,
        "forecast": bench_forecast.forecast,
        "cli": bench_cli.commands,
        "start": bench_cli.start,
        "flood": bench_service.flood,
        "restart": bench_service.restart,
        "idle": bench_service.idle,
        "day": bench_day.day,
        "dashboard": bench_dashboard.dashboard,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks and print what they found; return 0, or 2 for a name that is none."""
    options = _parser().parse_args(argv)
    known = benchmarks()
    names = options.only.split(",") if options.only else list(known)
    if unknown := [name for name in names if name not in known]:
        print(f"no benchmark `{unknown[0]}`; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    directory = Path(tempfile.mkdtemp(prefix="tickpool-bench-"))
    began = time.monotonic()
    try:
        machine = {**describe(directory), "load_before": load_average()}
        rows, faults = _run(names, directory, quick=options.quick)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    machine |= {"load_after": load_average(), "seconds": round(time.monotonic() - began), "quick": options.quick}
    print(_as_json(machine, rows, faults) if options.json else _as_markdown(machine, rows, faults))
    return 1 if faults else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="Measure tickpool beside raw floors."
    )
    parser.add_argument(
        "--quick", action="store_true", help="one pass of smaller sizes: shows that it works, no figures"
    )
    parser.add_argument("--only", metavar="NAME,...", help=f"some of: {', '.join(benchmarks())}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _run(names: Sequence[str], directory: Path, *, quick: bool) -> tuple[list[Row], list[str]]:
    """Run the benchmarks; one that breaks is reported, and the others go on."""
    rows: list[Row] = []
    faults: list[str] = []
    known = benchmarks()
    began = time.monotonic()
    for number, name in enumerate(names, start=1):
        place = directory / name
        place.mkdir()
        bench = Bench(f"{number}/{len(names)} {name}", place, quick=quick, began=began)
        try:
            rows += known[name](bench)
        except (RuntimeError, TimeoutError, OSError) as error:
            faults.append(f"{name}: {error}")
            bench.say(f"broke: {error}")
        # At once: a million events are a quarter of a gigabyte.
        shutil.rmtree(place, ignore_errors=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return rows, faults


def _as_markdown(machine: dict[str, Any], rows: list[Row], faults: list[str]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    passes = (
        "1 pass of smaller sizes, which is judged by no target"
        if machine["quick"]
        else "medians of 3 passes (smallest - largest)"
    )
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB",
        f"Linux {machine['kernel']}, {machine['python']}",
        f"{packages}; files in {machine['files']}",
        f"load {machine['load_before']} before, {machine['load_after']} after; {passes}; {machine['seconds']} s in all",
        "",
        table(rows, judged=not machine["quick"]),
    ]
    judged = [row for row in rows if row.is_met is not None]
    if not machine["quick"]:
        lines += ["", f"{sum(1 for row in judged if row.is_met)} of {len(judged)} targets met"]
    return "\n".join([*lines, *(f"BROKE {fault}" for fault in faults)])


def _as_json(machine: dict[str, Any], rows: list[Row], faults: list[str]) -> str:
    return json.dumps({"machine": machine, "rows": [_row_as_json(row) for row in rows], "faults": faults}, indent=2)


def _row_as_json(row: Row) -> dict[str, Any]:
    return {
        "row": row.name,
        "what": row.what,
        "unit": row.ours.unit,
        "ours": row.ours.median,
        "ours_passes": row.ours.values,
        "against": row.against,
        "floor": row.floor.median if row.floor else None,
        "floor_passes": row.floor.values if row.floor else None,
        "ratio": row.ratio,
        "target": row.target._asdict() if row.target else None,
        "met": row.is_met,
    }
