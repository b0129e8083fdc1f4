"""Commands that start, do one thing and end; and the service from its start to its first run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .measure import Bench, Row, Sample, Target, seconds
from .processes import Service, clean_environ, wait_for
from .project import make_project, notes, schedule

__all__ = ["commands", "start"]

_PASS = ("-c", "pass")
_NEVER = "0 0 29 2 *"
_NOTE = {"id": "t", "call": "jobs:note", "isolate": False}


def commands(bench: Bench) -> list[Row]:
    """Wall time of `--once` with nothing due and of `status`: each pass is the best of ten."""
    true = {"true": [{"id": "t", "run": ["true"]}]}
    project = make_project(bench.place("project"), true, [schedule(0, _NEVER, "true")])
    tries = bench.of(10, 3)
    once = ("-m", "scheduler", "--dir", "schedules", "--once")
    status = ("-m", "scheduler.cli", "status")
    _best_ms(project, once, 1)
    _best_ms(project, status, 1)
    found = bench.race(
        {
            "--once": lambda: _best_ms(project, once, tries),
            "status": lambda: _best_ms(project, status, tries),
            "python": lambda: _best_ms(project, _PASS, tries),
        }
    )
    floor = Sample.of("ms", found["python"])
    return [
        _command("`--once`, nothing due", found["--once"], floor, 110),
        _command("`tickpool status`", found["status"], floor, 70),
    ]


def _command(what: str, values: list[float], floor: Sample, target_ms: float) -> Row:
    target = Target("value", "<=", target_ms)
    return Row("cli", f"{what}, wall, best of 10", Sample.of("ms", values), "python -c pass", floor, target)


def _best_ms(project: Path, words: Sequence[str], tries: int) -> float:
    environ = clean_environ()

    def run() -> None:
        subprocess.run([sys.executable, *words], cwd=project, env=environ, stdout=subprocess.DEVNULL, check=False)

    return 1000 * min(seconds(run) for _ in range(tries))


def start(bench: Bench) -> list[Row]:
    """From the start of the service to the first instruction of its first run, with few and many schedules."""
    rows = []
    for count, target_s, peer in (
        (1, 0.4, "0.41"),
        (bench.of(1_000, 50), 0.5, "0.78"),
        (bench.of(10_000, 200), 1.0, "7.0"),
    ):
        # A fresh project a pass: the first start is the one that records the schedules.
        found = bench.race(
            {
                f"{count:,} schedules": lambda n=count: _first_run_s(bench.place("project"), n),  # type: ignore[misc]
                "python": lambda: _best_ms(bench.directory, _PASS, 5) / 1000,
            }
        )
        ours, floor = (Sample.of("s", values) for values in found.values())
        what = f"start of the service to its first run, {count:,} schedule{'s' if count > 1 else ''}"
        target = Target("value", "<=", target_s, f"cronstable {peer} s (peer: later)")
        rows.append(Row("start", what, ours, "python -c pass", floor, target))
    return rows


def _first_run_s(place: Path, count: int) -> float:
    record = place / "notes.txt"
    task: dict[str, Any] = {**_NOTE, "args": {"fire_time": "${run.fire_time}", "path": str(record)}}
    project = make_project(place, {"note": [task]}, [*_others(count - 1), schedule(count, "* * * * *", "note")])
    with Service(project) as service:
        wait_for(lambda: notes(record), 60, "the first run of the service")
        return notes(record)[0][0] - service.started_at


def _others(count: int) -> Iterator[dict[str, Any]]:
    """Schedules that are not due during the measurement, each with a time of its own."""
    return (schedule(n, f"{n % 60} {n // 60 % 24} 29 2 *", "note") for n in range(count))
