"""The tick over many schedules, and reading many schedules."""

from __future__ import annotations

import gc
import heapq
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import yaml

from scheduler.schedule_model import Schedule
from scheduler.schedules import read_configuration
from scheduler.state_store import StateStore
from scheduler.ticker import Ticker
from workers.event_log import EventLog

from .measure import Bench, Row, Sample, Target, seconds
from .processes import in_child
from .project import make_project, schedule

__all__ = ["load", "tick"]

_MINUTES = 1000
_MIDNIGHT = datetime(2026, 11, 23, tzinfo=UTC)


class _Ticks(NamedTuple):
    """Milliseconds of idle looks, of ticks with what is due, and how many were due; ours or the bare heap's."""

    idle_ms: float
    busy_ms: float
    due: int


def tick(bench: Bench) -> list[Row]:
    """An idle tick and a tick with 100 due, of 100,000 schedules; the due ones are recorded in the log."""
    count = bench.of(100_000, 5_000)
    ticks = bench.of(30, 10)
    found = bench.race(
        {
            "ticker": lambda: in_child(_tick_ours, str(bench.place("log") / "state.jsonl"), count, ticks),
            "heapq": lambda: in_child(_tick_heap, count, ticks),
        }
    )
    due = found["ticker"][0].due
    idle = Row(
        "tick",
        f"idle tick, {count:,} schedules",
        Sample.of("us", (1000 * each.idle_ms for each in found["ticker"])),
        "look at a heap",
        Sample.of("us", (1000 * each.idle_ms for each in found["heapq"])),
        Target("value", "<=", 2.0),
    )
    busy = Row(
        "tick",
        f"tick with {due} due, {count:,} schedules, verdicts recorded",
        Sample.of("ms", (each.busy_ms for each in found["ticker"])),
        "pop and push, times known",
        Sample.of("ms", (each.busy_ms for each in found["heapq"])),
        Target("value", "<=", 1.5),
    )
    return [idle, busy]


def _tick_ours(log: str, count: int, ticks: int) -> _Ticks:
    now = _MIDNIGHT - timedelta(seconds=30)
    store = StateStore(EventLog(log))
    crons = (f"{n % _MINUTES % 60} {n % _MINUTES // 60} * * *" for n in range(count))
    ticker = Ticker(store, [Schedule(f"s{n:06d}", cron, "dags/x.yaml") for n, cron in enumerate(crons)], now)
    gc.collect()
    gc.freeze()
    idle_s, busy_s, due = [], [], 0
    for number in range(ticks):
        now = _MIDNIGHT + timedelta(minutes=number)
        began = time.perf_counter()
        due = len(ticker.tick(now))
        busy_s.append(time.perf_counter() - began)
        now += timedelta(seconds=1)
        idle_s.append(seconds(lambda now=now: [ticker.tick(now) for _ in range(1000)]) / 1000)  # type: ignore[misc]
    store.close()
    return _Ticks(1000 * statistics.median(idle_s), 1000 * statistics.median(busy_s), due)


def _tick_heap(count: int, ticks: int) -> _Ticks:
    heap = [(60.0 * (n % _MINUTES), f"s{n:06d}") for n in range(count)]
    heapq.heapify(heap)
    idle_s, busy_s, due = [], [], 0
    for number in range(ticks):
        limit = 60.0 * number
        began = time.perf_counter()
        ready = []
        while heap[0][0] <= limit:
            ready.append(heapq.heappop(heap))
        for fire, name in ready:
            heapq.heappush(heap, (fire + 86400, name))
        busy_s.append(time.perf_counter() - began)
        due = len(ready)
        idle_s.append(seconds(lambda limit=limit: [heap[0][0] <= limit for _ in range(1000)]) / 1000)  # type: ignore[misc]
    return _Ticks(1000 * statistics.median(idle_s), 1000 * statistics.median(busy_s), due)


def load(bench: Bench) -> list[Row]:
    """Read schedules from YAML files of 100 each, with every check; against the bare parser on the same files."""
    rows = []
    for count, target_s in ((bench.of(10_000, 500), 0.3), (bench.of(100_000, 2_000), 3.0)):
        project = make_project(bench.place("project"), {"true": [{"id": "t", "run": ["true"]}]}, _schedules(count))
        directory = str(project / "schedules")
        found = bench.race(
            {
                f"load {count:,}": lambda at=directory: in_child(_load_seconds, at),  # type: ignore[misc]
                f"CSafeLoader of {count:,}": lambda at=directory: in_child(_parse_seconds, at),  # type: ignore[misc]
            }
        )
        ours, floor = (Sample.of("s", values) for values in found.values())
        what = f"load {count:,} schedules from YAML"
        rows.append(Row("load", what, ours, "CSafeLoader, same files", floor, Target("value", "<=", target_s)))
    return rows


def _schedules(count: int) -> Iterator[dict[str, object]]:
    return (schedule(n, f"{n % 60} {n // 60 % 24} * * *", "true") for n in range(count))


def _load_seconds(directory: str) -> float:
    began = time.perf_counter()
    configuration = read_configuration(Path(directory))
    elapsed_s = time.perf_counter() - began
    if configuration.faults:
        raise RuntimeError(str(configuration.faults[0]))
    return elapsed_s


def _parse_seconds(directory: str) -> float:
    def parse_all() -> None:
        for file in sorted(Path(directory).iterdir()):
            yaml.load(file.read_bytes(), Loader=yaml.CSafeLoader)

    return seconds(parse_all)
