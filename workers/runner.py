"""Run one DAG: `run_dag` starts what is ready, waits, retries, and tells how it all ended."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .dag import Dag, Task, check_params, load_dag, project_of
from .errors import TickpoolError
from .run_context import RunContext, RunInfo, Stop
from .run_events import Kept
from .run_link import Before, RunLink
from .task_runner import Ran, RunStatus, TaskRunner

__all__ = ["InvalidParams", "RunInfo", "Stop", "run_dag"]

DEFAULT_LOG_LIMIT = 10 * 1024 * 1024


class InvalidParams(TickpoolError):
    """Params that the DAG does not take: a sentence each."""

    def __str__(self) -> str:
        return "; ".join(self.args[0])


def _drop(event: dict[str, Any]) -> None:
    pass


# Longer than our functions are for its options and their contract, which are public; the steps have names of their own.
def run_dag(
    dag: Dag | str | os.PathLike[str],
    *,
    params: Mapping[str, Any] | None = None,
    run: RunInfo | None = None,
    project: Path | None = None,
    logs_dir: Path | None = None,
    record: Callable[[dict[str, Any]], object] = _drop,
    stop: Stop | None = None,
    timeout_s: float | None = None,
    grace_s: float = 30.0,
    marker: str | None = None,
    log_limit: int = DEFAULT_LOG_LIMIT,
    kept: Mapping[str, Kept] | None = None,
    link: RunLink | None = None,
) -> dict[str, Any]:
    """Run a DAG in this process and return how it ended, as one JSON-able mapping.

    The mapping: `run_id`, `dag_id`, `status` (success, failed, timeout, cancelled), `reason` (one line or None),
    `duration_s`, `tasks` (by id: `status`, `attempts`, `exit_code`, `signal`, `duration_s`, `max_rss_kib`, `cpu_s`,
    `outputs`, `reason`) and `hooks` (the same). `record` gets the task events; what it raises ends the run, after its
    processes. Logs go under `logs_dir/<run_id>/<attempt>/`, by default in `logs/runs` of the project. `timeout_s`
    shortens the DAG's own timeout. After `stop`, no hook starts. `marker` is the value of TICKPOOL_RUN in every task.
    The tasks `kept` do not run: they count as they ended in an attempt before, with the outputs they had then.
    By its `link` to a log the run asks for approvals and other runs, and may be parked: then its status is `parked`.
    No secret of the run is in the mapping, the events or an error. Raises TickpoolError for a DAG, a run id or params
    that cannot be used.
    """
    began = time.monotonic()
    if not isinstance(dag, Dag):
        dag = load_dag(Path(dag), project) if project is not None else _load_by_itself(Path(dag))
    root = os.path.abspath(project if project is not None else dag.project)
    if faults := check_params(dag, params or {}):
        raise InvalidParams(faults)
    info = run or RunInfo.manual(dag.id, datetime.now(UTC))
    context = RunContext(
        dag,
        info,
        given=params or {},
        project=root,
        logs_dir=os.path.abspath(logs_dir) if logs_dir is not None else f"{root}/logs/runs",
        record=record,
        marker=marker or f"{info.run_id}/{info.attempt}/{secrets.token_hex(4)}",
    )
    runner = TaskRunner(context, stop=stop, grace_s=grace_s, log_limit=log_limit, link=link)
    before = (link.before() if link is not None else None) or Before()
    with context.secrets.mask.errors(), closing(runner):
        limit_s = _left(before.worked_s, timeout_s, dag.timeout.total_seconds() if dag.timeout is not None else None)
        most = dag.max_parallel_tasks
        ran = runner.run(dag.tasks, max_parallel=most, limit_s=limit_s, kept=kept or {}, before=before)
        hooks = _hooks_of(dag, ran.status)
        context.verdict = ran.status, ran.reason
        ran_hooks = runner.run(hooks, max_parallel=1, limit_s=limit_s) if hooks else None
    return _told(info, dag, ran, ran_hooks, before.worked_s + time.monotonic() - began)


def _told(info: RunInfo, dag: Dag, ran: Ran, ran_hooks: Ran | None, duration_s: float) -> dict[str, Any]:
    return {
        "run_id": info.run_id,
        "dag_id": dag.id,
        "status": ran.status,
        "reason": _reason(ran, ran_hooks),
        "duration_s": round(duration_s, 6),
        "tasks": ran.results,
        "hooks": ran_hooks.results if ran_hooks is not None else {},
    }


def _load_by_itself(path: Path) -> Dag:
    full = Path(os.path.abspath(path))
    return load_dag(full, project_of(full))


def _left(worked_s: float, *limits_s: float | None) -> float | None:
    """Return what is left of the shortest limit; None where there is none."""
    return min((max(0.0, each - worked_s) for each in limits_s if each is not None), default=None)


def _hooks_of(dag: Dag, status: RunStatus) -> tuple[Task, ...]:
    if status in ("cancelled", "parked"):
        return ()
    return (dag.on_success if status == "success" else dag.on_failure) + dag.on_exit


def _reason(ran: Ran, ran_hooks: Ran | None) -> str | None:
    if ran_hooks is None or ran_hooks.reason is None:
        return ran.reason
    hook_reason = f"hooks: {ran_hooks.reason}"
    return f"{ran.reason}; {hook_reason}" if ran.reason else hook_reason
