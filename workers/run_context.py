"""What one run knows: who it is, where it writes, what its tasks see, how it is told to stop."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec

from . import params
from .beneath import open_directory
from .dag import Dag, Task
from .errors import TickpoolError
from .ids import RUN_ID_RULE, is_run_id
from .secret_values import RunSecrets
from .settings import INHERITED
from .tasks import Scene

__all__ = ["InvalidRun", "RunContext", "RunInfo", "Stop"]

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class InvalidRun(TickpoolError):
    """A run that cannot be begun: which of its values is wrong, the value, and what is allowed."""

    def __str__(self) -> str:
        return f"{self.args[0]} {self.args[1]!r} cannot be used; {self.args[2]}"


class RunInfo(msgspec.Struct, frozen=True):
    """Which run this is. `fire_time` is ISO 8601 with `Z`; `attempt` counts the run's own attempts from 1.

    `started_at` is a time before which none of its tasks has done anything, where that is known.
    """

    run_id: str
    schedule_id: str = ""
    fire_time: str = ""
    attempt: int = 1
    tenant: str = ""
    started_at: str | None = None

    @classmethod
    def manual(cls, dag_id: str, now: datetime) -> RunInfo:
        """Name a run that no fire time asked for: `<dag id>.manual.20261123T150512Z-1f3a`."""
        utc = now.astimezone(UTC)
        return cls(
            run_id=f"{dag_id}.manual.{utc:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}", fire_time=f"{utc:%Y-%m-%dT%H:%M:%SZ}"
        )


class Stop:
    """A request to stop a run, which may come from a signal handler or another thread; the first reason stays."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def request(self, reason: str) -> None:
        """Ask the run to end as `cancelled`. Safe in a Python signal handler; asking again changes nothing."""
        if self.reason is None:
            self.reason = reason
            os.eventfd_write(self._fd, 1)

    def fileno(self) -> int:
        """Return the descriptor that is readable from the request on."""
        return self._fd

    def close(self) -> None:
        """Close the descriptor; `reason` stays."""
        os.close(self._fd)


class RunContext:
    """One run's identity, places and names. Touches the disk when the first process or the first output needs it."""

    def __init__(
        self,
        dag: Dag,
        run: RunInfo,
        *,
        given: Mapping[str, Any],
        project: str,
        logs_dir: str,
        record: Callable[[dict[str, Any]], object],
        marker: str,
    ) -> None:
        if not is_run_id(run.run_id):
            raise InvalidRun("run_id", run.run_id, RUN_ID_RULE)
        if type(run.attempt) is not int or run.attempt < 1:
            raise InvalidRun("attempt", run.attempt, "write a whole number from 1")
        self.dag = dag
        self.run = run
        self.project = project
        self.logs_dir = logs_dir
        self.run_dir = f"{logs_dir}/{run.run_id}/{run.attempt}"
        facts = {
            "id": run.run_id,
            "fire_time": run.fire_time,
            "fire_date": run.fire_time[:10],
            "attempt": run.attempt,
            "dir": self.run_dir,
            "schedule_id": run.schedule_id,
            "dag_id": dag.id,
        }
        self.params = params.resolve_params(dag.params, given, facts)
        self.outputs: dict[str, dict[str, Any]] = {}
        self._facts = facts
        self.items: dict[str, Any] = {}
        self.lookup = params.scope(self.params, facts, self.outputs)
        self.secrets = RunSecrets(dag.all_secrets(), os.environ)
        self._record = record
        self.marker = marker
        self._env: dict[str, str] = {}
        self._own_env: dict[str, str] = {}
        self.verdict: tuple[str, str | None] | None = None

    def record(self, event: str, **fields: Any) -> None:
        """Record a task event with the run's identity in it."""
        run = self.run
        told = {"event": event, "run_id": run.run_id, "schedule_id": run.schedule_id, "attempt": run.attempt}
        told.update(fields)
        if self.verdict is not None:
            told["hook"] = True
        self._record(told)

    def lookup_of(self, task_id: str) -> params.Lookup:
        """Return what the references of a task resolve by; an instance of a task with `foreach` has its item."""
        if task_id not in self.items:
            return self.lookup
        return params.scope(self.params, self._facts, self.outputs, self.items[task_id])

    def scene(self, task: Task, attempt: int) -> Scene:
        """Set out what one attempt of a task in a process of its own sees; makes RUN_DIR.

        Raises OSError, UnusableSecret, and what a reference raises.
        """
        if not self._env:
            os.close(open_directory(self.run_dir, self.logs_dir))
            self._own_env = self._env_of_ours()
            self._env = self._env_of_run()
        output_path = f"{self.run_dir}/{task.id}.{attempt}.output"
        with suppress(OSError):
            # What a task before it left there, perhaps as a link, is not its output.
            os.unlink(output_path)
        env, lookup = dict(self._env), self.lookup_of(task.id)
        if task.id in self.items:
            env["item"] = _as_text("item", self.items[task.id])
        for name, value in task.env.items():
            env[name] = params.resolve_text(value, lookup)
        env.update(self.secrets.env(task.secrets))
        env.update(self._own_env)
        if self.verdict is not None:
            env["RUN_STATUS"], env["RUN_REASON"] = self.verdict[0], self.verdict[1] or ""
        env["TASK_ID"] = task.id
        env["TASK_ATTEMPT"] = str(attempt)
        env["TASK_OUTPUT"] = output_path
        return Scene(env, self.cwd(task), output_path, lookup, self.secrets.mask)

    def cwd(self, task: Task) -> str:
        """Return the directory a task starts in: its own `cwd`, or the DAG's, from the project."""
        own = task.cwd if task.cwd is not None else self.dag.cwd
        return os.path.join(self.project, params.resolve_text(own, self.lookup)) if own else self.project

    def log_path(self, task: Task, attempt: int) -> str:
        """Return where an attempt's output goes, if it has any."""
        return f"{self.run_dir}/{task.id}.{attempt}.log"

    def _env_of_run(self) -> dict[str, str]:
        env = {name: os.environ[name] for name in INHERITED if name in os.environ}
        env.update((name, value) for name, value in os.environ.items() if name.startswith("LC_"))
        env.setdefault("PATH", _DEFAULT_PATH)
        for name, value in self.dag.env.items():
            env[name] = params.resolve_text(value, self.lookup)
        return env

    def _env_of_ours(self) -> dict[str, str]:
        run = self.run
        return {
            "RUN_ID": run.run_id,
            "SCHEDULE_ID": run.schedule_id,
            "DAG_ID": self.dag.id,
            "FIRE_TIME": run.fire_time,
            "ATTEMPT": str(run.attempt),
            "RUN_DIR": self.run_dir,
            "TICKPOOL_RUN": self.marker,
            **{_param_name(name): _as_text(f"params.{name}", value) for name, value in self.params.items()},
        }


def _param_name(name: str) -> str:
    return "PARAM_" + "".join(char if char.isascii() and char.isalnum() else "_" for char in name.upper())


def _as_text(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if "\0" in text:
        raise params.UnusableValue(name, "it holds a NUL byte")
    return text
