"""Appending to the event log, against flock and SQLite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from workers.event_log import EventLog, Fsync

from . import floors
from .floors import Appended
from .measure import Bench, Row, Sample, Target
from .processes import in_processes

__all__ = ["append", "fsync"]

_FLOCK = "flock, kept descriptor"
_EVENT = {
    "event": "run_started",
    "run_id": "report.20261123T1505Z",
    "schedule_id": "report",
    "attempt": 1,
    "starttime": 123456,
}


def append(bench: Bench) -> list[Row]:
    """Durable appends (on record when the call returns, whatever is killed), with encoding, 1 and 4 processes."""
    rows: list[Row] = []
    at_least = Target("ratio", ">=", 2.0)
    for writers in (1, 4):
        found = _race(bench, writers, "off", "NORMAL")
        what = f"append with encoding, {_processes(writers)}"
        ours = _rates(found["ours"])
        rows.append(Row("append", what, ours, _FLOCK, _rates(found[_FLOCK])))
        rows.append(Row("append", what, ours, "sqlite WAL NORMAL", _rates(found["sqlite"]), at_least))
    worst = Target("value", "<=", 20.0)
    rows.append(Row("append", "worst wait of 4 writers", _worst(found["ours"]), _FLOCK, _worst(found[_FLOCK]), worst))
    rows.append(
        Row("append", "worst wait of 4 writers", _worst(found["ours"]), "sqlite WAL NORMAL", _worst(found["sqlite"]))
    )
    return rows


def fsync(bench: Bench) -> list[Row]:
    """Appends that are on the disk when the call returns, with encoding, 1 and 4 processes."""
    rows: list[Row] = []
    at_least = Target("ratio", ">=", 1.5)
    for writers in (1, 4):
        found = _race(bench, writers, "always", "FULL")
        what = f"append with STATE_FSYNC=always, {_processes(writers)}"
        ours = _rates(found["ours"])
        rows.append(Row("fsync", what, ours, "flock + fdatasync", _rates(found[_FLOCK])))
        rows.append(Row("fsync", what, ours, "sqlite WAL FULL", _rates(found["sqlite"]), at_least))
    return rows


def _processes(count: int) -> str:
    return f"{count} process" if count == 1 else f"{count} processes"


def _race(bench: Bench, writers: int, sync: Fsync, synchronous: str) -> dict[str, list[list[Appended]]]:
    duration_s = bench.of(700, 150) / 1000
    place = bench.place("append")

    def contender(function: Callable[..., Appended], name: str, how: object) -> Callable[[], list[Appended]]:
        # A fresh file a pass: none of the contenders is to gain from the size of its file.
        paths = iter(str(place / f"{name}{number}") for number in range(bench.passes))

        def run() -> list[Appended]:
            path = next(paths)
            if function is floors.append_sqlite:
                floors.prepare_sqlite(path)
            return in_processes(writers, function, path, duration_s, how)

        return run

    found = bench.race(
        {
            f"{writers} writing to our log": contender(_append_ours, "ours", sync),
            f"{writers} with flock": contender(floors.append_flock, "flock", sync == "always"),
            f"{writers} with sqlite {synchronous}": contender(floors.append_sqlite, "sqlite", synchronous),
        }
    )
    return dict(zip(("ours", _FLOCK, "sqlite"), found.values(), strict=True))


def _append_ours(path: str, duration_s: float, sync: Fsync) -> Appended:
    log = EventLog(Path(path), fsync=sync)
    try:
        return floors.keep_appending(lambda: log.append(_EVENT), duration_s)
    finally:
        log.close()


def _rates(passes: list[list[Appended]]) -> Sample:
    return Sample.of("/s", (_rate(writers) for writers in passes))


def _rate(writers: list[Appended]) -> float:
    elapsed_s = max(each.ended for each in writers) - min(each.began for each in writers)
    return sum(each.appends for each in writers) / elapsed_s


def _worst(passes: list[list[Appended]]) -> Sample:
    return Sample.of("ms", (1000 * max(each.worst_s for each in writers) for writers in passes))
