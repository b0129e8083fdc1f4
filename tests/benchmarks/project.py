"""The projects that benchmarks run: a few DAGs around `jobs.py`, schedules, and a pool of workers on requests."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scheduler.dispatch import Dispatcher
from workers.events import Event, iso
from workers.segments import LogReader
from workers.settings import Settings

__all__ = ["STATE_LOG", "Pool", "chain", "make_project", "notes", "read_log", "schedule", "settings_for"]

STATE_LOG = "logs/orchestrator_state.jsonl"
Task = Mapping[str, Any]


def make_project(path: Path, dags: Mapping[str, Iterable[Task]], schedules: Iterable[Mapping[str, Any]] = ()) -> Path:
    """Write DAGs, `jobs.py`, and schedules, 100 a file; return the project's directory."""
    for name in ("dags", "schedules", "logs"):
        (path / name).mkdir()
    shutil.copy(Path(__file__).with_name("jobs.py"), path / "jobs.py")
    for name, tasks in dags.items():
        _write(path / "dags" / f"{name}.yaml", {"id": name, "tasks": list(tasks)})
    entries = list(schedules)
    for start in range(0, len(entries), 100):
        lines = []
        for entry in entries[start : start + 100]:
            lines += [f"{'- ' if key == 'id' else '  '}{key}: {json.dumps(value)}" for key, value in entry.items()]
        (path / "schedules" / f"part{start // 100:05d}.yaml").write_text("\n".join(lines) + "\n", "utf-8")
    return path


def _write(path: Path, value: Any) -> None:
    # JSON is YAML.
    path.write_text(json.dumps(value, indent=1), "utf-8")


def schedule(number: int, cron: str, dag: str) -> dict[str, Any]:
    """Return one schedule as a file holds it."""
    return {"id": f"s{number:06d}", "cron": cron, "dag": f"dags/{dag}.yaml", "tenant": "bench", "enabled": True}


def chain(task: Task, length: int) -> list[Task]:
    """Return `length` copies of a task, each after the one before."""
    return [{"id": f"t{n:04d}", **task, "needs": [f"t{n - 1:04d}"] if n else []} for n in range(length)]


def notes(path: Path) -> list[tuple[float, float]]:
    """Read what `jobs.note` wrote: (moment, fire time) of each run."""
    if not path.exists():
        return []
    pairs = [line.split() for line in path.read_text("ascii").splitlines()]
    return [(float(moment), float(fire)) for moment, fire in pairs]


def settings_for(project: Path) -> Settings:
    """Return the default settings with all logs inside the project."""
    return Settings(
        state_path=str(project / STATE_LOG),
        events_path=str(project / "logs/orchestrator_events.jsonl"),
        run_logs_dir=str(project / "logs/runs"),
    )


def read_log(project: Path) -> list[Event]:
    """Return all events of the project's state log."""
    reader = LogReader(project / STATE_LOG, from_start=True)
    try:
        return reader.read()
    finally:
        reader.close()


class Pool(AbstractContextManager["Pool"]):
    """The real dispatcher with warm workers, in this process, for runs of a project's DAGs."""

    def __init__(self, project: Path, size: int) -> None:
        self.project = project
        self._ended = 0
        self._failed: Event | None = None
        self._count = 0
        self._dispatcher = Dispatcher(settings_for(project), size)
        self._dispatcher.recover(datetime.now(UTC))
        self._dispatcher.store.follow(self._note)

    def __exit__(self, *_: object) -> None:
        self._dispatcher.close()

    def run(self, dag: str, count: int) -> float:
        """Enqueue `count` runs of a DAG (recorded, in one append) and return the seconds until all are on record.

        Raises RuntimeError when a run fails.
        """
        requests = [self._request(dag) for _ in range(count)]
        goal = self._ended + count
        began = time.perf_counter()
        self._dispatcher.store.commit(lambda _: requests)
        self._dispatcher.run_until(lambda: self._ended >= goal)
        elapsed_s = time.perf_counter() - began
        if self._failed:
            raise RuntimeError(f"a benchmark's run failed: {self._failed}")
        return elapsed_s

    def _request(self, dag: str) -> Event:
        self._count += 1
        return {
            "event": "schedule_enqueued",
            "run_id": f"{dag}.{self._count}",
            "schedule_id": dag,
            "minute": iso(datetime.fromtimestamp(60 * self._count, UTC)),
            "attempt": 1,
            "dag": f"dags/{dag}.yaml",
            "project": str(self.project),
            "tenant": "bench",
            "params": {},
            "overlap": "allow",
        }

    def _note(self, event: Event) -> None:
        if event.get("event") == "run_finished":
            self._ended += 1
            if event["status"] != "success":
                self._failed = event
