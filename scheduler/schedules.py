"""Schedules: what `schedules/*.yaml` says, once it has been read and found good.

A configuration is all files of one directory. It is taken whole: whoever reloads keeps the old one while
`Configuration.faults` names anything.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from workers.dag import load_dag
from workers.errors import Fault, InvalidFile, TickpoolError
from workers.ownership import foreign_faults
from workers.yamlfile import load_trusted

from .business_days import Days
from .calendars import CALENDARS_FILE, Calendars, read_calendars
from .dag_files import DagFiles, Signature, guard_stamps, stamp
from .limits import Limits
from .limits_file import LIMITS_FILE, read_limits, unknown_pool
from .links import Place, link
from .matrix import expand
from .schedule_model import Schedule
from .schedule_rules import read_schedule

__all__ = [
    "FILE_BYTES",
    "Configuration",
    "NoSchedules",
    "load_schedules",
    "read_configuration",
    "signature",
    "validate",
]

logger = logging.getLogger(__name__)

FILE_BYTES = 32 * 1024 * 1024
# What lies beside the schedule files and is none.
_ASIDE = (Path(LIMITS_FILE).stem, Path(CALENDARS_FILE).stem)
T = TypeVar("T")


class NoSchedules(TickpoolError):
    """A schedules directory that cannot be used: (path, why)."""

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.args[1]}; name a directory of schedule files with --dir"


class _Known(NamedTuple):
    """What schedules may name; None where the file that says so has faults."""

    pools: Collection[str] | None
    calendars: Calendars | None


class Configuration(msgspec.Struct, frozen=True):
    """The schedules of one directory and the faults found in it.

    `dag_files` are the files that its schedules name, there or not, `directories` those that all its files lie in.
    `signature` changes when any of its files does and, for root, when others may write a directory or no longer may.
    Without `knows_limits` the `limits` could not be read, and nothing follows from them; `calendars` that could not are
    None.
    """

    directory: str
    schedules: list[Schedule]
    faults: list[Fault]
    dag_files: tuple[str, ...]
    signature: Signature
    directories: tuple[str, ...] = ()
    limits: Limits = Limits()
    knows_limits: bool = True
    calendars: Calendars | None = None


def load_schedules(schedules_dir: str | os.PathLike[str]) -> list[Schedule]:
    """Return the good schedules of a directory, in the order of file names and places; each fault is logged.

    A file with a fault gives none. Raises NoSchedules when there is no such directory.
    """
    configuration = read_configuration(Path(schedules_dir))
    for fault in configuration.faults:
        logger.error("%s", fault)
    return configuration.schedules


def read_configuration(directory: Path) -> Configuration:
    """Read all `*.yaml` and `*.yml` files of a directory. Raises NoSchedules when it cannot be listed."""
    project = directory.absolute().parent
    files = schedule_files(directory)
    # Taken before anything is read: what is written meanwhile shows as a change later.
    stamps = {stamp(file) for file in files}
    taken: dict[str, Schedule] = {}
    places: dict[str, Place] = {}
    dags = DagFiles(project)
    faults = [fault for place in (project, directory) for fault in foreign_faults(place)]
    readable = [] if faults else files
    limits, wrong = _read_aside(readable, LIMITS_FILE, read_limits, Limits())
    pools = None if faults or wrong else limits.pools
    calendars, unread = _read_aside(readable, CALENDARS_FILE, read_calendars, dict[str, Days]())
    faults += [*wrong, *unread]
    known = _Known(pools, None if unread else calendars)
    for file in readable:
        if file.stem in _ASIDE:
            continue
        found, wrong = _read_file(file, project, dags, taken, known, places)
        if wrong:
            faults += wrong
        else:
            taken.update((schedule.id, schedule) for schedule in found)
    taken, unlinked = link(taken, places)
    # A name that nobody has may be in a file that cannot be read.
    faults = faults or unlinked
    dag_files = tuple(sorted(place for place, *_ in dags.stamps))
    directories = tuple(sorted({str(project), str(directory), *dags.directories}))
    signed = tuple(sorted(stamps | dags.stamps | guard_stamps(directories)))
    # Several DAG files lie in one directory.
    faults = list(dict.fromkeys(faults))
    schedules = list(taken.values())
    return Configuration(
        str(directory),
        schedules,
        faults,
        dag_files,
        signed,
        directories,
        limits,
        knows_limits=pools is not None,
        calendars=known.calendars,
    )


def schedule_files(directory: Path) -> list[Path]:
    """Return the schedule files of a directory in order of name. Raises NoSchedules."""
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith((".yaml", ".yml")))
    except FileNotFoundError:
        raise NoSchedules(str(directory), "no such directory") from None
    except NotADirectoryError:
        raise NoSchedules(str(directory), "is not a directory") from None
    except OSError as error:
        raise NoSchedules(str(directory), f"cannot be listed: {error.strerror}") from None
    return [directory / name for name in names if not name.startswith(".")]


def signature(configuration: Configuration) -> Signature:
    """Return the signature that the configuration would have if it were read now."""
    try:
        listed = schedule_files(Path(configuration.directory))
    except NoSchedules:
        listed = []
    stamps = {stamp(place) for place in [*map(str, listed), *configuration.dag_files]}
    return tuple(sorted(stamps | guard_stamps(configuration.directories)))


def validate(directory: Path) -> tuple[list[str], list[Fault]]:
    """Check every schedule file, and every DAG file of the project's `dags/`; return the files and all faults.

    Raises NoSchedules.
    """
    configuration = read_configuration(directory)
    checked = [place for place, *_ in configuration.signature if place not in configuration.directories]
    known = {os.path.realpath(place) for place in checked}
    faults = list(configuration.faults)
    project = directory.absolute().parent
    for file in sorted((project / "dags").glob("*.y*ml")):
        if os.path.realpath(file) not in known:
            checked.append(str(file))
            try:
                load_dag(file, project)
            except InvalidFile as error:
                faults += error.faults
    return sorted(checked), sorted(faults)


def _read_aside(
    files: Sequence[Path], name: str, read: Callable[[Path], tuple[T, list[Fault]]], nothing: T
) -> tuple[T, list[Fault]]:
    """Read the file of that name among these; without one there is `nothing`."""
    stem = Path(name).stem
    found = [file for file in files if file.stem == stem]
    if found and found[-1].name != name:
        return nothing, [Fault(str(found[-1]), 0, 0, f"{stem} are read from `{name}`; give it that name")]
    return read(found[0]) if found else (nothing, [])


def _read_file(
    file: Path,
    project: Path,
    dags: DagFiles,
    taken: Mapping[str, Schedule],
    known: _Known,
    places: dict[str, Place],
) -> tuple[list[Schedule], list[Fault]]:
    """Read one file; `taken` are the schedules of the files before it.

    The `places` of schedules with `after` are noted: whom they follow is known when all files are read. A file with
    faults gives none.
    """
    document, unread = load_trusted(file, max_bytes=FILE_BYTES)
    if document is None:
        return [], unread
    if not isinstance(document.data, list):
        return [], [document.fault((), "a schedule file is a list; begin each schedule with `- id: name`")]
    schedules: dict[str, Schedule] = {}
    followers: dict[str, Place] = {}
    faults: list[Fault] = []
    for index, entry in enumerate(document.data):
        if not isinstance(entry, dict):
            faults.append(document.fault((index,), "a schedule is a mapping: `- id: name`, then its keys below"))
            continue
        schedule, wrong = read_schedule(document, (index,), project, known.calendars)
        faults += wrong
        if schedule is None:
            continue
        if schedule.pool is not None and known.pools is not None and schedule.pool not in known.pools:
            message = f"schedule `{schedule.id}`: {unknown_pool(schedule.pool, known.pools)}"
            faults.append(document.fault((index, "pool"), message))
        for each in expand(schedule):
            twin = taken.get(each.id) or schedules.get(each.id)
            what = f"schedule `{each.id}`"
            if twin:
                message = f"{what}: this id is taken by {twin.file}:{twin.line}; ids are unique"
                faults.append(document.fault((index, "id"), message))
            faults += dags.faults(document, (index,), what, each.dag, each.params)
            if each.on_deadline is not None:
                faults += dags.faults(document, (index,), what, each.on_deadline, {}, "on_deadline")
            schedules[each.id] = each
            if each.after is not None:
                followers[each.id] = (document, index)
    if not faults:
        places.update(followers)
    return list(schedules.values()), faults
