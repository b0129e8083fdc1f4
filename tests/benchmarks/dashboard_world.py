"""A project with a past, for the dashboard: ten days of ten thousand schedules, as the service would have written it.

The verdicts are the judge's own, the lines the writers' own, and the logs rotate as the service lets them; only what a
run takes is drawn. A million events are half a minute.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from unittest.mock import Mock, patch

from scheduler.judge import judge
from scheduler.reload import record_configuration
from scheduler.schedule_model import Schedule
from scheduler.schedules import read_configuration
from scheduler.state_store import StateStore
from workers.event_log import EventLog
from workers.events import Event
from workers.run_request import run_fields
from workers.settings import Settings

from .project import make_project, settings_for

__all__ = ["DAYS", "World", "make_world"]

DAYS = 10
_BATCH = timedelta(minutes=30)
_FAILED = 0.03
# Of the newest runs, and how many lines each has said.
_WITH_OUTPUT = 100
_LINES = 400
# Two DAGs of two shapes; the run of the first has eight task events, that of the second six.
_TASKS = {"load": ("extract", "clean", "join", "publish"), "check": ("fetch", "compare", "tell")}
_TENANTS = ("acme", "globex", "initech", "umbrella")


class World(NamedTuple):
    """The project, how many events both logs have, and some of the runs and schedules, the newest last."""

    project: Path
    events: int
    runs: list[str]
    schedules: list[str]


def make_world(place: Path, schedules: int, now: datetime) -> World:
    """Make the project in an empty directory, with a past that ends at `now`; the newest runs have output.

    One schedule in a hundred fires hourly, 76 daily, the others once a year: ten runs a schedule.
    """
    dags = {name: _chain(tasks) for name, tasks in _TASKS.items()}
    project = make_project(place, dags, map(_entry, range(schedules)))
    with patch("workers.events.utc_timestamp") as clock:
        return _live(project, settings_for(project), now.replace(second=0, microsecond=0), clock)


def _live(project: Path, settings: Settings, now: datetime, clock: Mock) -> World:
    """Write both logs, a half hour at a time; the clock that the writers see is that of then."""
    store, task_log = (
        StateStore(EventLog(settings.state_path, fsync="off")),
        EventLog(settings.events_path, fsync="off"),
    )
    configuration, draw, at = read_configuration(project / "schedules"), random.Random(7), now - timedelta(days=DAYS)
    clock.return_value = _iso(at, 0)
    record_configuration(store, configuration, at)
    by_minute: dict[int, list[Schedule]] = {}
    for each in configuration.schedules:
        for minute in _minutes(each):
            by_minute.setdefault(minute, []).append(each)
    runs: list[str] = []
    newest: deque[_Story] = deque(maxlen=_WITH_OUTPUT)
    while at < now:
        clock.return_value = _iso(at, 0)
        story = _stories(store, by_minute, at, min(at + _BATCH, now), draw)
        newest += story
        runs += [each.request["run_id"] for each in story]
        store.commit(lambda _, story=story: _in_order(event for each in story for event in each.state))  # type: ignore[misc]
        task_log.append(*_in_order(event for each in story for event in each.tasks))
        store.rotate(settings.segment_bytes)
        task_log.rotate(settings.segment_bytes, lambda _: ())
        at += _BATCH
    for each in newest:
        _write_output(settings, each)
    events = sum(log.append({"event": "bench_made"})[0]["seq"] for log in (store.log, task_log))
    store.close()
    task_log.close()
    return World(project, events, runs, [each.id for each in configuration.schedules])


def _chain(tasks: Iterable[str]) -> list[dict[str, object]]:
    names = list(tasks)
    return [
        {"id": name, "run": ["true"], **({"needs": [before]} if before else {})}
        for before, name in zip([None, *names], names, strict=False)
    ]


def _entry(number: int) -> dict[str, object]:
    minute, hour = number % 60, number // 60 % 24
    cron = f"{minute} * * * *" if number % 100 == 0 else f"{minute} {hour} * * *"
    return {
        "id": f"{('report', 'ingest', 'billing', 'cleanup')[number % 4]}_{number:05d}",
        "cron": cron if number % 100 < 77 else f"{minute} {hour} 29 2 *",
        "dag": f"dags/{'load' if number % 3 else 'check'}.yaml",
        "tenant": _TENANTS[number % 7 % 4],
        "enabled": True,
    }


def _minutes(schedule: Schedule) -> Iterator[int]:
    """Yield the minutes of a day at which a schedule of `_entry` fires."""
    minute, hour, day, *_ = schedule.cron.split()
    if day == "*":
        hours = range(24) if hour == "*" else [int(hour)]
        yield from (60 * each + int(minute) for each in hours)


class _Story(NamedTuple):
    """A run: its request and what came of it."""

    request: Event
    state: list[Event]
    tasks: list[Event]


def _stories(
    store: StateStore, by_minute: dict[int, list[Schedule]], begin: datetime, end: datetime, draw: random.Random
) -> list[_Story]:
    found = []
    for number in range(int((end - begin).total_seconds() // 60)):
        fire = begin + timedelta(minutes=number)
        for schedule in by_minute.get(60 * fire.hour + fire.minute, ()):
            (request,) = judge(schedule, [fire], fire, store.history, "late")
            found.append(_story({**request, "timestamp": _iso(fire, 0.01 + 0.02 * draw.random())}, fire, draw))
    return found


def _story(request: Event, fire: datetime, draw: random.Random) -> _Story:
    run = run_fields(request)
    names = _TASKS[Path(request["dag"]).stem]
    is_bad = draw.random() < _FAILED
    at_s = started_s = 0.05 + draw.expovariate(2)
    tasks: list[Event] = []
    of = {"run_id": run["run_id"], "schedule_id": run["schedule_id"], "attempt": 1}
    for place, name in enumerate(names):
        took_s = draw.expovariate(0.8)
        tried = {**of, "task_id": name, "task_attempt": 1}
        tasks.append({"timestamp": _iso(fire, at_s + 0.01), "event": "task_started", **tried, "starttime": 48132})
        at_s += 0.01 + took_s
        bad = is_bad and place == len(names) - 1
        end = {"status": "failed" if bad else "success", "reason": "exit code 1" if bad else None}
        used = {"exit_code": int(bad), "signal": None, "duration_s": round(took_s, 6), "max_rss_kib": 22932}
        more = {"cpu_user_s": 0.000563, "cpu_sys_s": 0.000645, "log": f"{name}.1.log", "outputs": {}}
        tasks.append({"timestamp": _iso(fire, at_s), "event": "task_finished", **tried, **end, **used, **more})
    counts = {"success": len(names) - is_bad, **({"failed": 1} if is_bad else {})}
    end = {"status": "failed", "reason": f"task `{names[-1]}` failed: exit code 1"} if is_bad else {
        "status": "success", "reason": None
    }  # fmt: skip
    process = {"starttime": 48132, "boot_id": "c0ffee", "dag_version": "efd8f8dc44e1fb18"}
    state = [
        request,
        {"timestamp": _iso(fire, started_s), "event": "run_started", **run, **process},
        {"timestamp": _iso(fire, at_s + 0.01), "event": "run_finished", **run, **end,
         "duration_s": round(at_s - started_s, 6), "tasks": counts},
    ]  # fmt: skip
    return _Story(request, state, tasks)


def _in_order(events: Iterable[Event]) -> list[Event]:
    return sorted(events, key=lambda event: str(event["timestamp"]))


def _iso(moment: datetime, after_s: float) -> str:
    at = (moment + timedelta(seconds=after_s)).astimezone(UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond:06d}Z"


def _write_output(settings: Settings, story: _Story) -> None:
    """Write what the first task of a run has said, as its capture does: the lines, and when each piece came."""
    place = Path(settings.run_logs_dir) / story.request["run_id"] / "1"
    place.mkdir(parents=True)
    line = json.dumps({"level": "info", "message": "read a page of rows", "rows": 1000})
    text = b"".join(b"\x1b[32m%06d\x1b[0m %b\n" % (number, line.encode()) for number in range(_LINES))
    log = place / f"{story.tasks[0]['task_id']}.1.log"
    log.write_bytes(text)
    began_s = datetime.fromisoformat(story.tasks[0]["timestamp"]).timestamp()
    times = "".join(f"{offset}\t{began_s + offset / 1e5:.3f}\n" for offset in range(0, len(text), 4096))
    Path(f"{log}.times").write_text(times, "ascii")
