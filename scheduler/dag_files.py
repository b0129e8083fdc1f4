"""The files of a configuration: how a change of one shows, and the DAG files that schedules name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from workers.beneath import is_inside
from workers.dag import Dag, check_params, load_dag
from workers.errors import Fault, InvalidFile
from workers.ownership import directories_between
from workers.yamlfile import Document

__all__ = ["DagFiles", "Signature", "Stamp", "guard_stamps", "stamp"]

Stamp = tuple[str, int, int, int]
Signature = tuple[Stamp, ...]
_SHOWN = 500


def stamp(place: str | Path) -> Stamp:
    """Return what changes when the file does; it has zeros while there is none."""
    try:
        stat = os.stat(place)
    except (OSError, ValueError):
        return (str(place), 0, 0, 0)
    # The time of the last status change: nobody can set it back, and a file that becomes readable has a new one.
    return (str(place), stat.st_ctime_ns, stat.st_size, stat.st_ino)


def guard_stamps(directories: Iterable[str]) -> set[Stamp]:
    """Return what changes when others come to be allowed to write a directory, or no longer are; for root only."""
    return {_guard_stamp(place) for place in directories} if os.geteuid() == 0 else set()


def _guard_stamp(place: str) -> Stamp:
    try:
        found = os.stat(place)
    except OSError:
        return (place, 0, 0, 0)
    return (place, found.st_mode, found.st_uid, found.st_gid)


class DagFiles:
    """The DAG files that the schedules of one configuration name, each read once; `stamps` has all of them."""

    def __init__(self, project: Path) -> None:
        self._project = project
        self._real_project = os.path.realpath(project)
        self._read: dict[str, Dag | InvalidFile] = {}
        self._told: set[str] = set()
        self.stamps: set[Stamp] = set()
        self.directories: set[str] = set()

    def faults(
        self, document: Document, at: tuple[int, ...], what: str, name: str, params: Mapping[str, Any], key: str = "dag"
    ) -> Iterator[Fault]:
        """Yield what is wrong with the DAG `name` of a key: its path, its file (told once), its `params`."""
        dag = self._read.get(name)
        if dag is None:
            wrong = self._wrong_path(name)
            if wrong:
                yield document.fault((*at, key), f"{what}: {wrong}")
                return
            dag = self._load(name)
        if isinstance(dag, Dag):
            for message in check_params(dag, params):
                yield document.fault((*at, "params"), f"{what}: {message}")
        elif not dag.faults:
            yield document.fault((*at, key), f"{what}: no such file {name[:_SHOWN]!r} in {self._project}")
        elif name not in self._told:
            self._told.add(name)
            yield from dag.faults
        else:
            yield document.fault((*at, key), f"{what}: {name[:_SHOWN]} has faults")

    def _wrong_path(self, name: str) -> str:
        """Return what is wrong with a DAG's path, before anything is opened."""
        if not name.isprintable() or not name:
            return f"{name[:_SHOWN]!r} is no path; name a DAG file inside the project, such as `dags/report.yaml`"
        if not is_inside(os.path.realpath(self._project / name), self._real_project):
            return f"{name[:_SHOWN]!r} lies outside the project {self._project}"
        return ""

    def _load(self, name: str) -> Dag | InvalidFile:
        """Read a DAG file once; one that is not there is an InvalidFile without faults."""
        self._note_file(name)
        full = self._project / name
        try:
            self._read[name] = load_dag(full, self._project) if os.path.lexists(full) else InvalidFile([])
        except InvalidFile as error:
            self._read[name] = error
        found = self._read[name]
        for task in found.tasks if isinstance(found, Dag) else ():
            # A fault that comes into the file of a DAG that it runs is one of its own.
            if task.dag is not None and task.dag not in self._read:
                self._load(task.dag)
        return found

    def _note_file(self, name: str) -> None:
        full = self._project / name
        self.stamps.add(stamp(full))
        if os.geteuid() == 0:  # nobody else asks who may write them
            self.directories.update(directories_between(self._project, full))
