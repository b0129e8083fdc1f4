"""The DAGs that a worker has read: each is read again only when its file has changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from .dag import Dag, dag_owners, load_dag
from .dag_copies import copies_of, keep_copy, load_copy
from .errors import InvalidFile, TickpoolError
from .run_request import RunRequest, wrong_in

__all__ = ["DagCache"]


class _ReadDag(NamedTuple):
    """A DAG, by which state of its file it was read, and what the copy of that is called."""

    stamp: tuple[int, int, int]
    dag: Dag
    version: str | None


class DagCache:
    """The DAGs by their files; a copy of each is kept beside the output of runs in `run_logs`."""

    def __init__(self, run_logs: Path) -> None:
        self._read: dict[Path, _ReadDag] = {}
        self._copies = copies_of(run_logs)

    def dag(self, project: Path, request: RunRequest) -> Dag:
        """Return the DAG as it is now, or as it was where the request says so. Raises TickpoolError."""
        if request.get("dag_version"):
            return load_copy(self._copies, str(request["dag_version"]), project)
        return self._present(project, request["dag"]).dag

    def version(self, request: RunRequest) -> str | None:
        """Return what the copy of the request's DAG is called; None where it cannot be read, as the run will tell."""
        if request.get("dag_version") or wrong_in(request):
            return None
        try:
            return self._present(Path(request.get("project") or "."), request["dag"]).version
        except (TickpoolError, OSError, ValueError):
            return None

    def _present(self, project: Path, name: str) -> _ReadDag:
        path = project / name
        try:
            stat = os.stat(path)
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except (OSError, ValueError):
            return _ReadDag((0, 0, 0), load_dag(path, project), None)  # says what is wrong
        kept = self._read.get(path)
        if foreign := dag_owners(Path(name), project):
            raise InvalidFile(foreign)
        if kept is None or kept.stamp != stamp:
            dag = load_dag(path, project)
            kept = self._read[path] = _ReadDag(stamp, dag, keep_copy(self._copies, path, stat))
        return kept
