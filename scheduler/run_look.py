"""A look at one run, as the command line and the dashboard have it: its record, its DAG, and whether it is lost."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from pathlib import Path

from workers.dag import Dag, load_dag
from workers.dag_copies import copies_of, load_copy
from workers.errors import TickpoolError
from workers.events import hostname
from workers.process_id import is_alive, recorded_identity
from workers.settings import Settings

from .run_record import RunRecord
from .run_view import RunFacts, view

__all__ = ["look"]

Needs = dict[str, list[str]]


def look(settings: Settings, record: RunRecord, now: datetime, attempt: int | None = None) -> RunFacts:
    """Return the facts of a run as `run_view.view` does, with what its DAG and this machine's processes tell."""
    run = view(record, _needs(settings, record, attempt or record.attempt), now, attempt)
    if run.status == "running" and run.attempt == record.attempt and _is_lost(record):
        run.reason = "its process is gone; the next service gives it its end"
    return run


def _needs(settings: Settings, record: RunRecord, attempt: int) -> Needs:
    """Return what each task needs, by the DAG as it was or, where no copy is left, as it is; nothing without a DAG."""
    request = record.request
    starts = [each for each in record.named("run_started") if each.get("attempt") == attempt]
    version = (starts[-1] if starts else request).get("dag_version")
    project = Path(str(request.get("project") or "."))
    try:
        if version:
            return _needs_then(copies_of(Path(settings.run_logs_dir)), str(version), project)
        return _needs_of(load_dag(project / str(request.get("dag")), project))
    except (TickpoolError, OSError, ValueError):
        return {}


@lru_cache(64)
def _needs_then(copies: Path, version: str, project: Path) -> Needs:
    # A page is shown again with every change; what a version says never changes.
    return _needs_of(load_copy(copies, version, project))


def _needs_of(dag: Dag) -> Needs:
    return {task.id: list(task.needs) for task in dag.tasks}


def _is_lost(record: RunRecord) -> bool:
    """Say whether the process that had an open run of this machine is gone."""
    start = record.named("run_started")[-1]
    try:
        return start.get("host") == hostname() and not is_alive(recorded_identity(start))
    except (LookupError, TypeError, ValueError):
        return False
