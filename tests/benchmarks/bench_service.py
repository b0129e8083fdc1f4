"""The real service: how late runs begin, how it takes a flood, a kill -9, and an idle hour."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from workers.events import Event

from . import floors
from .measure import Bench, Row, Sample, Target, percentile
from .processes import Service, clean_environ, in_child, in_processes, wait_for
from .project import make_project, notes, read_log, schedule

__all__ = ["burst", "flood", "idle", "latency", "restart"]

_MIB = 2**20


def latency(bench: Bench) -> list[Row]:
    """How late the first instruction of a run is: `@every 1s`, a pass is 11 fires; a sleep at each half second."""
    fires = bench.of(11, 4)
    record = bench.place("record") / "notes.txt"
    project = make_project(bench.place("project"), {"note": [_note(record)]}, [schedule(0, "@every 1s", "note")])
    ours: list[list[float]] = []
    slept: list[list[float]] = []
    with Service(project) as service:
        wait_for(lambda: notes(record), 30, "the first run")
        # The first second is the service's start.
        first = math.ceil(time.time()) + 1
        for number in range(bench.passes):
            bench.say(f"fires and sleeps, pass {number + 1} of {bench.passes}")
            begin = first + number * fires
            moments = [begin + each + 0.5 for each in range(fires)]
            slept.append(in_child(floors.sleep_until, moments))
            ours.append(_lateness(record, range(begin, begin + fires), 1))
        assert service.process.poll() is None
    # APScheduler 1.12 / 2.9 ms beside a sleep of 0.19 / 0.24 ms.
    cases = ((0.5, 0.6 * 1.12 / 0.19, "0.67"), (0.99, 0.6 * 2.9 / 0.24, "1.7"))
    return [
        Row(
            "latency",
            f"fire time to first instruction, p{share * 100:g} of {fires} fires",
            _milliseconds(ours, share),
            "lateness of time.sleep",
            _milliseconds(slept, share),
            Target("ratio", "<=", bound, f"0.6x APScheduler, {figure} ms there (peer: later)"),
        )
        for share, bound, figure in cases
    ]


def burst(bench: Bench) -> list[Row]:
    """How late first instructions are when many runs are due at once and as many workers are free."""
    count = bench.of(50, 8)
    period = bench.of(4, 2)
    record = bench.place("record") / "notes.txt"
    schedules = [schedule(n, f"@every {period}s", "note") for n in range(count)]
    project = make_project(bench.place("project"), {"note": [_note(record)]}, schedules)
    ours: list[list[float]] = []
    slept: list[list[float]] = []
    with Service(project, {"SCHED_MAX_PARALLEL": str(count)}):
        wait_for(lambda: len(notes(record)) >= count, 60, "the first runs")
        first = (math.ceil(time.time()) // period + 1) * period
        for number in range(bench.passes):
            bench.say(f"{count} at once, pass {number + 1} of {bench.passes}")
            fire = first + number * period
            ours.append(_lateness(record, [fire], count))
    for number in range(bench.passes):
        bench.say(f"{count} sleepers, pass {number + 1} of {bench.passes}")
        slept.append(in_processes(count, floors.sleep_to_second))
    return [
        Row(
            "burst",
            f"fire time to first instruction, {count} due at once, {count} workers, p{share * 100:g}",
            _milliseconds(ours, share),
            f"{count} processes in time.sleep",
            _milliseconds(slept, share),
            Target("value", "<=", peer_ms / 2, f"0.5x cronstable's {peer_ms} ms (peer: later)"),
        )
        for share, peer_ms in ((0.5, 44), (0.99, 125))
    ]


def _note(record: Path) -> dict[str, Any]:
    args = {"fire_time": "${run.fire_time}", "path": str(record)}
    return {"id": "t", "call": "jobs:note", "isolate": False, "args": args}


def _lateness(record: Path, fires: Iterable[int], count: int) -> list[float]:
    """Return by how many seconds each run of these fire times began late, once all have begun."""
    wanted = set(fires)
    total = len(wanted) * count

    def found() -> list[float]:
        return [moment - fire for moment, fire in notes(record) if int(fire) in wanted]

    rest_s = max(wanted) - time.time()
    # Not to disturb: look only after the last of them is due.
    time.sleep(max(0.0, rest_s + 0.3))
    wait_for(lambda: len(found()) >= total, 20, f"{total} runs", 0.1)
    return found()


def _milliseconds(passes: list[list[float]], share: float) -> Sample:
    return Sample.of("ms", (1000 * percentile(each, share) for each in passes))


def flood(bench: Bench) -> list[Row]:
    """Many `true` DAGs due at once, three workers: from their fire time to the last end on record."""
    count = bench.of(500, 60)
    period = bench.of(5, 2)
    schedules = [schedule(n, f"@every {period}s", "true") for n in range(count)]
    project = make_project(bench.place("project"), {"true": [{"id": "t", "run": ["true"]}]}, schedules)
    rates: list[float] = []
    spawned: list[float] = []
    with Service(project, {"SCHED_MAX_PARALLEL": "3"}):
        wait_for(lambda: len(_ends(project)) >= count, 60, "the first runs", 0.2)
        first = (math.ceil(time.time()) // period + 1) * period
        for number in range(bench.passes):
            bench.say(f"{count} due at once, pass {number + 1} of {bench.passes}")
            fire = first + number * period
            time.sleep(max(0.0, fire + period * 0.6 - time.time()))
            wait_for(lambda fire=fire: _at(project, fire) >= count, 30, f"the end of {count} runs", 0.2)  # type: ignore[misc]
            last = max(datetime.fromisoformat(e["timestamp"]).timestamp() for e in _ends(project) if _fire(e) == fire)
            rates.append(count / (last - fire))
    for number in range(bench.passes):
        bench.say(f"{count} posix_spawn, pass {number + 1} of {bench.passes}")
        spawned.append(count / in_child(floors.spawn_each, count, 3))
    what = f"{count} `true` DAGs due at once, until the last end is on record, 3 workers"
    target = Target("value", ">=", 2 * 428, "2x cronstable's 428/s (peer: later)")
    return [
        Row("flood", what, Sample.of("/s", rates), "posix_spawn + wait, 3 in flight", Sample.of("/s", spawned), target)
    ]


def _ends(project: Path) -> list[Event]:
    return [event for event in read_log(project) if event["event"] == "run_finished"]


def _fire(event: Event) -> int:
    return int(datetime.fromisoformat(str(event["minute"])).timestamp())


def _at(project: Path, fire: int) -> int:
    return sum(1 for event in _ends(project) if _fire(event) == fire)


def restart(bench: Bench) -> list[Row]:
    """Kill -9 of the service and one of its workers; a new service closes what is lost and adopts the rest."""
    count = bench.of(12, 3)
    seconds: list[float] = []
    wrong: list[float] = []
    for number in range(bench.passes):
        bench.say(f"kill -9 and start, pass {number + 1} of {bench.passes}")
        took_s, marked = _restart_once(bench.place("project"), count)
        seconds.append(took_s)
        wrong.append(marked)
    what = f"kill -9 of the service and 1 of {count} busy workers, restart, until every open run is closed or adopted"
    target = Target("value", "<=", 2.0, "cronstable 68 s (peer: later)")
    none_wrong = Target("value", "<=", 0, "cronstable 7 of 12 (peer: later)")
    return [
        Row("restart", what, Sample.of("s", seconds), target=target),
        Row("restart", "good runs marked failed after it", Sample.of("runs", wrong), target=none_wrong),
    ]


def _restart_once(place: Path, count: int) -> tuple[float, int]:
    """Return the seconds from the kill to the last open run closed or adopted, and how many good runs were lost."""
    schedules = [schedule(n, "* * * * *", "sleep") for n in range(count)]
    project = make_project(place, {"sleep": [{"id": "t", "run": ["sleep", "1.5"]}]}, schedules)
    environ = {"SCHED_MAX_PARALLEL": str(count)}
    with Service(project, environ) as first:
        wait_for(lambda: len(_named(project, "run_started")) >= count, 30, "the runs", 0.02)
        victim = _named(project, "run_started")[0]
        killed_at = time.time()
        first.kill()
        os.kill(int(victim["pid"]), 9)
        with Service(project, environ):
            wait_for(lambda: len(_named(project, "supervisor_started")) >= 2, 30, "the new service", 0.02)
            wait_for(lambda: _end_of(project, victim["run_id"]), 70, "the end of the lost run", 0.02)
            # The new service leads only after its replay: what lived has then been adopted.
            done = [_named(project, "supervisor_started")[1], _end_of(project, victim["run_id"])]
            took_s = max(datetime.fromisoformat(event["timestamp"]).timestamp() for event in done if event) - killed_at
            names = {event["run_id"] for event in _named(project, "run_started")[:count]} - {victim["run_id"]}
            wait_for(lambda: all(_end_of(project, name) for name in names), 70, "the end of the adopted runs", 0.05)
            bad = sum(1 for name in names if (_end_of(project, name) or {}).get("status") != "success")
    return took_s, bad


def _named(project: Path, name: str) -> list[Event]:
    return [event for event in read_log(project) if event["event"] == name]


def _end_of(project: Path, run_id: str) -> Event | None:
    return next((event for event in _named(project, "run_finished") if event["run_id"] == run_id), None)


def idle(bench: Bench) -> list[Row]:
    """What a service with three workers costs that has nothing to do."""
    true = {"true": [{"id": "t", "run": ["true"]}]}
    project = make_project(bench.place("project"), true, [schedule(0, "0 0 29 2 *", "true")])
    window_s = bench.of(7, 1)
    memory: list[float] = []
    busy: list[float] = []
    with Service(project, {"SCHED_MAX_PARALLEL": "3"}) as service:
        wait_for(lambda: len(service.note_tree()) >= 5, 30, "the workers", 0.05)
        time.sleep(1)
        for number in range(bench.passes):
            bench.say(f"{window_s} s of nothing, pass {number + 1} of {bench.passes}")
            before_s, began = _cpu_s(service.note_tree()), time.monotonic()
            time.sleep(window_s)
            processes = service.note_tree()
            busy.append(100 * (_cpu_s(processes) - before_s) / (time.monotonic() - began))
            memory.append(_pss_mib(processes))
        what = f"idle service, 3 workers ({len(processes)} processes)"
    bare = Sample.of("MiB", (_bare_pss_mib() for _ in range(bench.passes)))
    return [
        Row("idle", f"{what}, PSS", Sample.of("MiB", memory), "one bare python", bare, Target("value", "<=", 45)),
        Row("idle", f"{what}, of a core", Sample.of("%", busy), target=Target("value", "<=", 0.2)),
    ]


def _cpu_s(processes: list[psutil.Process]) -> float:
    """Return the CPU time of processes with all their threads; the kernel keeps it in nanoseconds."""
    total_ns = 0
    for process in processes:
        for row in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
            with suppress(OSError):
                total_ns += int(row.read_text("ascii").split()[0])
    return total_ns / 1e9


def _pss_mib(processes: list[psutil.Process]) -> float:
    """Return the proportional set size of processes: shared pages count once in the sum."""
    total_kib = 0
    for process in processes:
        with suppress(OSError):
            rows = Path(f"/proc/{process.pid}/smaps_rollup").read_text("ascii").splitlines()
            total_kib += next(int(row.split()[1]) for row in rows if row.startswith("Pss:"))
    return total_kib * 1024 / _MIB


def _bare_pss_mib() -> float:
    words = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environ()) as process:
        assert process.stdout is not None
        process.stdout.readline()
        figure = _pss_mib([psutil.Process(process.pid)])
        process.communicate(b"\n")
    return figure
