"""The DAG and Task models: what `dags/*.yaml` says, once `dag.load_dag` has read it and found it good."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .units import Duration

__all__ = ["Dag", "Retries", "Task", "TriggerRule"]

TriggerRule = Literal[
    "all_success",
    "all_failed",
    "all_done",
    "all_done_min_one_success",
    "all_skipped",
    "one_failed",
    "one_success",
    "one_done",
    "none_failed",
    "none_failed_min_one_success",
    "none_skipped",
    "always",
]


class Retries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often and when to try again: wait `delay * backoff**n`, at most `max_delay`, spread by `jitter`."""

    max: int = 0
    delay: Duration = Duration()
    backoff: float = 2.0
    max_delay: Duration = Duration(hours=1)
    jitter: bool = False


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One node of a DAG: a command (`run`) or a Python callable (`call`), never both."""

    id: str
    run: str | tuple[str, ...] | None = None
    call: str | None = None
    args: dict[str, Any] = {}
    isolate: bool = True
    needs: tuple[str, ...] = ()
    trigger_rule: TriggerRule = "all_success"
    retries: Retries = Retries()
    timeout: Duration | None = None
    env: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    cwd: str | None = None
    continue_on_failure: bool = False
    skip_on_exit_code: tuple[int, ...] = ()


class Dag(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A set of tasks and the order between them, with its hooks; `project` is where its paths and tasks start."""

    id: str
    tasks: tuple[Task, ...]
    description: str = ""
    params: dict[str, Any] = {}
    env: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    cwd: str | None = None
    max_parallel_tasks: int = 4
    timeout: Duration | None = None
    on_success: tuple[Task, ...] = ()
    on_failure: tuple[Task, ...] = ()
    on_exit: tuple[Task, ...] = ()
    project: str = "."

    def all_secrets(self) -> tuple[str, ...]:
        """Return the names of the secrets that it declares, or that its tasks and hooks name all the same."""
        users = (*self.tasks, *self.on_success, *self.on_failure, *self.on_exit)
        return tuple(dict.fromkeys([*self.secrets, *(name for task in users for name in task.secrets)]))
