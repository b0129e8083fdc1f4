"""Reading the log: the last events of a million, the fold of a million, and the fold that a checkpoint spares."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from scheduler.history import History
from scheduler.state_store import StateStore, last_runs
from workers.event_log import EventLog
from workers.segments import LogReader

from .measure import Bench, Row, Sample, Target, seconds
from .processes import in_child

__all__ = ["fold", "tail"]

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


def _write_log(bench: Bench, count: int) -> Path:
    """Write a log of `count` events: runs of 100 schedules, three events each."""
    bench.say(f"write {count:,} events")
    path = bench.place("log") / "state.jsonl"
    with path.open("w", encoding="ascii") as file:
        seq = 0
        for run in range(count // 3 + 1):
            moment = time.gmtime(1_700_000_000 + 60 * (run // _SCHEDULES))
            minute, compact = time.strftime("%Y-%m-%dT%H:%M", moment), time.strftime("%Y%m%dT%H%MZ", moment)
            schedule = f"schedule_{run % _SCHEDULES:03d}"
            same = f'"run_id":"{schedule}.{compact}","schedule_id":"{schedule}","minute":"{minute}:00Z","attempt":1'
            bodies = (
                f'"event":"schedule_enqueued",%s,{same},"dag":"dags/report.yaml","tenant":"bench","overlap":"skip"',
                f'"event":"run_started",%s,{same},"starttime":123456,"boot_id":"c0ffee"',
                f'"event":"run_finished",%s,{same},"status":"success","duration_s":1.234',
            )
            for body in bodies[: count - seq]:
                seq += 1
                fields = f'"seq":{seq},"host":"bench","pid":77'
                file.write(f'{{"timestamp":"{minute}:01.123456Z",{body % fields}}}\n')
    return path


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
