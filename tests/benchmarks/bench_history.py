"""Reading the log: the last events of a million, the fold of a million, and the fold that a checkpoint spares."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from scheduler.audit import audit
from scheduler.history import History
from scheduler.judge import run_id_for
from scheduler.state_store import StateStore, last_runs
from workers.event_log import EventLog
from workers.events import Event, encode_line, iso, stamp
from workers.segments import LogReader

from .measure import Bench, Row, Sample, Target, seconds
from .processes import in_child

__all__ = ["audited", "fold", "tail"]

_SCHEDULES = 100


def tail(bench: Bench) -> list[Row]:
    """The last 20 events, of a large log and of a small one."""
    rows = []
    for count in (bench.of(1_000_000, 60_000), 1_000):
        path = _write_log(bench, count)
        calls = bench.of(200, 50)

        def milliseconds(function: Callable[[], object], calls: int = calls) -> float:
            return 1000 * seconds(lambda: [function() for _ in range(calls)]) / calls

        last_runs(20, path)
        found = bench.race(
            {
                f"last_runs of {count:,}": lambda at=path: milliseconds(lambda: last_runs(20, at)),  # type: ignore[misc]
                f"reverse read of {count:,}": lambda at=path: milliseconds(lambda: _last_lines(at, 20)),  # type: ignore[misc]
            }
        )
        ours, floor = (Sample.of("ms", values) for values in found.values())
        what = f"`last_runs(20)` of {count:,} events"
        rows.append(Row("tail", what, ours, "reverse block read + decode", floor, Target("value", "<=", 0.2)))
        path.unlink()
    return rows


def fold(bench: Bench) -> list[Row]:
    """Open a log with all its history, and one that begins with a checkpoint."""
    count = bench.of(1_000_000, 60_000)
    path = _write_log(bench, count)
    found = bench.race(
        {
            "fold": lambda: in_child(_fold_seconds, str(path)),
            "msgspec": lambda: in_child(_parse_seconds, str(path)),
            "lines": lambda: in_child(_read_seconds, str(path)),
        }
    )
    bench.say("rotate it")
    in_child(_rotate, str(path))
    opened = bench.race({"open from a checkpoint": lambda: 1000 * in_child(_open_seconds, str(path))})
    ours = Sample.of("s", found["fold"])
    what = f"fold {count:,} events cold"
    target = Target("value", "<=", 1.2)
    return [
        Row("fold", what, ours, "msgspec parse of every line", Sample.of("s", found["msgspec"]), target),
        Row("fold", what, ours, "read the lines", Sample.of("s", found["lines"])),
        Row(
            "fold",
            f"open that log from its checkpoint ({_SCHEDULES} schedules)",
            Sample.of("ms", opened["open from a checkpoint"]),
            target=Target("value", "<=", 50),
        ),
    ]


def audited(bench: Bench) -> list[Row]:
    """Audit a log with all its history."""
    count = bench.of(1_000_000, 60_000)
    path = _write_log(bench, count)
    found = bench.race({"audit": lambda: in_child(_audit_seconds, str(path))})
    return [Row("audit", f"audit {count:,} events", Sample.of("s", found["audit"]), target=Target("value", "<=", 5.0))]


def _audit_seconds(path: str) -> float:
    began = time.perf_counter()
    report = audit(Path(path), datetime(2026, 1, 1, tzinfo=UTC), final=True)
    assert report.is_clean, report.violations[:3]
    return time.perf_counter() - began


def _write_log(bench: Bench, count: int) -> Path:
    """Write a log of `count` events, or up to two fewer: the runs of 100 schedules, three events each."""
    bench.say(f"write {count:,} events")
    path = bench.place("log") / "state.jsonl"
    with path.open("wb") as file:
        for seq, event in enumerate(_events(count), 1):
            file.write(encode_line(stamp(event, seq, "bench", 77)))
    return path


def _events(count: int) -> Iterator[Event]:
    """Yield the history of 100 schedules that fire every minute; every run succeeds."""
    spec = {"cron": "* * * * *", "timezone": "UTC", "enabled": True, "dag": "dags/report.yaml"}
    names = [f"schedule_{number:03d}" for number in range(_SCHEDULES)]
    minute = datetime(2024, 1, 1, tzinfo=UTC)
    at = {"timestamp": f"{iso(minute)[:-1]}.000000Z"}
    yield {
        **at,
        "event": "schedules_loaded",
        "since": iso(minute - timedelta(seconds=1)),
        "specs": dict.fromkeys(names, spec),
    }
    for number in range((count - 1) // 3):
        name = names[number % _SCHEDULES]
        if number and name == names[0]:
            minute += timedelta(minutes=1)
        at = {"timestamp": f"{iso(minute)[:-1]}.123456Z"}
        run = {"run_id": run_id_for(name, minute), "schedule_id": name, "minute": iso(minute), "attempt": 1}
        yield {
            **at,
            "event": "schedule_enqueued",
            **run,
            "dag": "dags/report.yaml",
            "tenant": "bench",
            "overlap": "skip",
        }
        yield {**at, "event": "run_started", **run, "starttime": 123456, "boot_id": "c0ffee"}
        yield {**at, "event": "run_finished", **run, "status": "success", "duration_s": 1.234, "tasks": {"success": 1}}


def _last_lines(path: Path, limit: int) -> list[dict[str, object]]:
    """Decode the last lines of a file, read in one block from its end."""
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        block = os.pread(fd, 16384, max(0, size - 16384))
    finally:
        os.close(fd)
    decoder = msgspec.json.Decoder(dict[str, object])
    return [decoder.decode(line) for line in block.split(b"\n")[-limit - 1 : -1]]


def _fold_seconds(path: str) -> float:
    history = History()

    def apply_all() -> None:
        reader = LogReader(Path(path), from_start=True)
        for batch in reader.batches():
            for event in batch:
                history.apply(event)
        reader.close()

    return seconds(apply_all)


def _parse_seconds(path: str) -> float:
    decode = msgspec.json.Decoder(dict[str, object]).decode

    def parse_all() -> None:
        with open(path, "rb") as file:
            for line in file:
                decode(line)

    return seconds(parse_all)


def _read_seconds(path: str) -> float:
    def read_all() -> None:
        with open(path, "rb") as file:
            for _ in file:
                pass

    return seconds(read_all)


def _rotate(path: str) -> None:
    store = StateStore(EventLog(path))
    store.reader = LogReader(Path(path), from_start=True)
    store.refresh()
    if not store.rotate(1):
        raise RuntimeError("the log was not rotated")
    store.close()


def _open_seconds(path: str) -> float:
    store = StateStore(EventLog(path))
    elapsed_s = seconds(store.refresh)
    if len(store.history.schedules) != _SCHEDULES:
        raise RuntimeError(f"the checkpoint holds {len(store.history.schedules)} schedules")
    store.close()
    return elapsed_s
