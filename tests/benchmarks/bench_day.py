"""A day of one-a-second runs in virtual time: neither a tick nor the memory may grow with what has happened."""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import psutil

from scheduler.schedule_model import Schedule
from scheduler.state_store import StateStore
from scheduler.ticker import Ticker
from workers.event_log import EventLog
from workers.run_request import run_fields
from workers.settings import Settings

from .measure import Bench, Row, Sample, Target
from .processes import in_child

__all__ = ["day"]

_MIDNIGHT = datetime(2026, 11, 23, tzinfo=UTC)
_CHUNK = 600


class _Hour(NamedTuple):
    """Of an hour: the median tick of each ten minutes in microseconds, and the memory at its end in MiB."""

    ticks_us: list[float]
    rss_mib: float


def day(bench: Bench) -> list[Row]:
    """86,400 ticks with `now` passed in, each with one run due, whose start and end are appended."""
    ticks, hour = bench.of(86_400, 3_600), bench.of(3_600, 1_200)
    bench.say(f"{ticks:,} ticks, pass 1 of 1")
    hours = in_child(_live, str(bench.place("log") / "state.jsonl"), ticks, hour)
    first, last = hours[0], hours[-1]
    name = f"{ticks:,} one-a-second runs in virtual time"
    return [
        Row(
            "day",
            f"{name}: a tick with its verdict, last hour",
            Sample.of("us", last.ticks_us),
            "first hour",
            Sample.of("us", first.ticks_us),
            Target("ratio", "<=", 1.2, "flat"),
        ),
        Row(
            "day",
            f"{name}: RSS, last hour",
            Sample.of("MiB", [last.rss_mib]),
            "first hour",
            Sample.of("MiB", [first.rss_mib]),
            Target("ratio", "<=", 1.1, "flat"),
        ),
    ]


def _live(log: str, ticks: int, hour: int) -> list[_Hour]:
    settings = Settings()
    store = StateStore(EventLog(log))
    ticker = Ticker(store, [Schedule("each_second", "@every 1s", "dags/x.yaml")], _MIDNIGHT)
    hours: list[_Hour] = []
    medians: list[float] = []
    times: list[float] = []
    for number in range(1, ticks + 1):
        now = _MIDNIGHT + timedelta(seconds=number)
        began = time.perf_counter()
        verdicts = ticker.tick(now)
        times.append(1e6 * (time.perf_counter() - began))
        _run(store, verdicts[-1])
        if number % 60 == 0:
            store.rotate(settings.segment_bytes)
        if number % min(_CHUNK, hour) == 0:
            medians.append(statistics.median(times))
            times.clear()
        if number % hour == 0:
            hours.append(_Hour(medians, psutil.Process().memory_info().rss / 2**20))
            medians = []
    if store.history.runs or any(Path(log).parent.glob("*.torn")):
        raise RuntimeError("the day did not end as it should")
    store.close()
    return hours


def _run(store: StateStore, request: dict[str, object]) -> None:
    """Append what a worker would: the start and the end of the run."""
    same = run_fields(request)
    if request["event"] != "schedule_enqueued":
        raise RuntimeError(f"a second was not enqueued: {request}")
    store.log.append({"event": "run_started", **same, "pid": 77, "starttime": 1, "boot_id": "c0ffee"})
    store.log.append({"event": "run_finished", **same, "status": "success", "duration_s": 0.001})
    store.refresh()
