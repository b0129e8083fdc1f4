"""The project that the selftest attacks: short DAGs of every kind, and schedules that ask for them all the time."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from workers.failpoints import POINTS

__all__ = ["WORKERS", "Project"]

WORKERS = 3

_EFFECT = 'echo "$RUN_ID $ATTEMPT" >> effects'
_JOBS = '''
import os


def effect(run, attempt):
    """Leave one line, in one write: the witness of an effect that the log has not heard of."""
    fd = os.open("{effects}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, f"{{run}} {{attempt}}\\n".encode("ascii"))
    os.close(fd)
'''
_CALL = {"call": "selftest_jobs:effect", "args": {"run": "${run.id}", "attempt": "${run.attempt}"}}
# No task that has the effect is tried again: the next try is the same attempt of the run, and would have it twice.
_DAGS: dict[str, list[dict[str, Any]]] = {
    "shell": [{"id": "effect", "run": _EFFECT}],
    "slow": [{"id": "effect", "run": f"sleep 0.1; {_EFFECT}; sleep 0.1"}],
    "forked": [{"id": "effect", **_CALL}],
    "here": [{"id": "effect", **_CALL, "isolate": False}],
    "chain": [
        {"id": "first", "run": "sleep 0.02"},
        {"id": "beside", "run": ["true"]},
        {"id": "effect", "run": _EFFECT, "needs": ["first", "beside"]},
        {"id": "last", "run": ["sleep", "0.02"], "needs": ["effect"]},
    ],
    "retried_task": [
        {"id": "try", "run": 'test "$TASK_ATTEMPT" -gt 1', "retries": {"max": 2, "delay": "0s"}},
        {"id": "effect", **_CALL, "needs": ["try"]},
    ],
    "retried_run": [{"id": "effect", "run": f'test "$ATTEMPT" -gt 1 && {_EFFECT}'}],
    "mapped": [
        {"id": "each", "foreach": [1, 2, 3], "run": "test ${item} -gt 0"},
        {"id": "effect", "run": _EFFECT, "needs": ["each"]},
    ],
    # Parked while its run is at work; that one has an effect of its own.
    "parent": [
        {"id": "sub", "dag": "dags/shell.yaml"},
        {"id": "effect", "run": _EFFECT, "needs": ["sub"]},
    ],
    "failing": [{"id": "fail", "run": "exit 3"}],
}
_SCHEDULES: list[dict[str, Any]] = [
    {"id": "skipping", "cron": "@every 1s", "dag": "slow", "overlap": "skip", "catchup": "latest"},
    {"id": "queueing", "cron": "@every 1s", "dag": "chain", "overlap": "queue", "catchup": "all"},
    {"id": "parking", "cron": "@every 2s", "dag": "parent", "overlap": "allow", "retry_on_crash": True},
    {"id": "allowing", "cron": "@every 2s", "dag": "forked", "overlap": "allow", "catchup": "none"},
    {
        "id": "crashing",
        "cron": "@every 1s",
        "dag": "here",
        "overlap": "allow",
        "catchup": "all",
        "retry_on_crash": True,
    },
    {
        "id": "retrying",
        "cron": "@every 2s",
        "dag": "retried_run",
        "overlap": "queue",
        "catchup": "all",
        "retry_on_crash": True,
        "retries": {"max": 2, "delay": "0s"},
    },
]


class Project:
    """The files under `root`: what is run, the two logs, the book of effects, and the notes of the failpoints."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "logs" / "state.jsonl"
        self.task_log = root / "logs" / "events.jsonl"
        self.effects = root / "effects"
        self.output = root / "service.err"
        self._notes = root / "deaths"
        self._asked = 0

    def write(self) -> None:
        """Write the files. Raises OSError."""
        for name in ("schedules", "dags", "logs"):
            (self.root / name).mkdir()
        (self.root / "selftest_jobs.py").write_text(_JOBS.format(effects=self.effects), "utf-8")
        for name, tasks in _DAGS.items():
            # JSON is YAML.
            (self.root / "dags" / f"{name}.yaml").write_text(json.dumps({"id": name, "tasks": tasks}), "ascii")
        self.enable_schedules(is_enabled=True)
        self._notes.touch()
        self.effects.touch()

    def enable_schedules(self, *, is_enabled: bool) -> None:
        """Let the schedules ask for runs, or let them rest."""
        rows = [{**row, "dag": f"dags/{row['dag']}.yaml", "enabled": is_enabled} for row in _SCHEDULES]
        fresh = self.root / "schedules.next"
        fresh.write_text(json.dumps(rows), "ascii")
        fresh.rename(self.root / "schedules" / "selftest.yaml")

    def request(self, dice: random.Random) -> dict[str, Any]:
        """Return an event that asks for one more run, of any DAG."""
        self._asked += 1
        dag = dice.choice(list(_DAGS))
        retries = {"max": 2, "delay_s": 0} if dag == "retried_run" else {}
        return {
            "event": "run_requested",
            "run_id": f"asked.{self._asked}.{dag}",
            "attempt": 1,
            "dag": f"dags/{dag}.yaml",
            "project": str(self.root),
            "retries": retries,
            "retry_on_crash": dice.random() < 0.5,
        }

    def environ(self, chances: dict[str, float]) -> dict[str, str]:
        """Return the settings of its services, whose failpoints strike with these chances."""
        points = ",".join(f"{name}={chance:.6f}" for name, chance in chances.items())
        return {
            "STATE_STORE_PATH": str(self.log),
            "ORCH_EVENTS_PATH": str(self.task_log),
            "RUN_LOGS_DIR": str(self.root / "logs" / "runs"),
            "SCHED_TICK_MS": "50",
            "SCHED_MAX_PARALLEL": str(WORKERS),
            "SCHED_WORKER_MAX_RUNS": "50",
            "SCHED_GRACE_S": "10",
            "TASK_GRACE_S": "0.5",
            # Small segments, so that much is rotated; none is removed, so that all can be judged.
            "STATE_SEGMENT_SIZE": "256KiB",
            "STATE_KEEP_SEGMENTS": "1000000",
            "STATE_KEEP": "3650d",
            "TICKPOOL_FAILPOINTS": f"{self._notes}|{points}" if points else "off",
        }

    def deaths(self) -> list[tuple[str, int]]:
        """Return the failpoints that have struck so far, each with the pid of its process."""
        rows = (line.split() for line in self._notes.read_text("ascii").splitlines())
        return [(name, int(pid)) for name, pid in rows if name in POINTS]

    def disarm(self) -> None:
        """Let no failpoint strike any more, in whatever process."""
        # Where there is no file to take the note, there is no death.
        self._notes = self._notes.rename(self.root / "deaths.before")
