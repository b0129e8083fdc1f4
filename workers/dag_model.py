"""The DAG and Task models: what `dags/*.yaml` says, once `dag.load_dag` has read it and found it good."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .units import Duration

__all__ = ["ANY_END", "KINDS", "STATUSES", "Approval", "Dag", "Http", "Retries", "Task", "TriggerRule", "Wait"]

# The keys that say what a task does; each task has one of them.
KINDS = ("run", "call", "http", "wait", "dag", "approval")
# How a run ends; any of them, where somebody waits for its end.
STATUSES = ("success", "failed", "timeout", "cancelled", "crashed")
ANY_END = "any"

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


class Http(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request, and which statuses are good: numbers, or classes such as `2xx`. `timeout` is that of the request."""

    url: str
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    headers: dict[str, str] = {}
    body: str | None = None
    json: Any = None
    expect: tuple[str, ...] = ("2xx",)
    timeout: Duration = Duration(seconds=30)


class Wait(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a task waits for: one of the first six. `every` is the time between two looks at a file, port or page."""

    file: str | None = None
    port: str | None = None
    http: str | Http | None = None
    time: str | None = None
    delay: Duration | None = None
    run: str | None = None
    every: Duration = Duration(seconds=5)
    timezone: str = "UTC"
    status: tuple[str, ...] = ("success",)


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person is asked, and the answer that counts when nobody gives one within the task's `timeout`."""

    message: str = ""
    default: Literal["approve", "reject"] | None = None


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One node of a DAG. It has one of KINDS; with `foreach` it is one task for each item."""

    id: str
    run: str | tuple[str, ...] | None = None
    call: str | None = None
    http: str | Http | None = None
    wait: Wait | None = None
    dag: str | None = None
    approval: str | Approval | None = None
    args: dict[str, Any] = {}
    params: dict[str, Any] = {}
    foreach: str | tuple[Any, ...] | None = None
    max_parallel: int | None = None
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

    @property
    def kind(self) -> str:
        """The one of KINDS that it has."""
        return next((kind for kind in KINDS if getattr(self, kind) is not None), "")


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
