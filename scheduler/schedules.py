"""Schedules: what `schedules/*.yaml` says, once it has been read and found good.

A configuration is all files of one directory. It is taken whole: whoever reloads keeps the old one while
`Configuration.faults` names anything.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

import msgspec

from workers.dag import Retries, load_dag
from workers.errors import Fault, InvalidFile, TickpoolError, did_you_mean
from workers.ids import ID_RULE, is_id
from workers.ownership import foreign_faults
from workers.units import Duration
from workers.yamlfile import Document, load_yaml

from .cron import Cron, InvalidCron, parse_cron
from .dag_files import DagFiles, Signature, guard_stamps, stamp

__all__ = [
    "Configuration",
    "NoSchedules",
    "Schedule",
    "load_schedules",
    "read_configuration",
    "schedule_from",
    "signature",
    "validate",
]

logger = logging.getLogger(__name__)

_FILE_BYTES = 32 * 1024 * 1024
_RESERVED = ("limits.yaml", "limits.yml", "calendars.yaml", "calendars.yml")
# The request is one line of the log, 64 KiB with all that else is in it.
_PARAMS_BYTES = 32 * 1024
# Known words of later versions: refused by name, so that nobody thinks they work.
# fmt: off
_LATER = dict.fromkeys((
    "jitter", "priority", "pool", "deadline", "calendar", "notify", "max_queued", "catchup_max", "start_deadline",
    "blackout", "every", "at", "after", "on_file", "on_deadline", "tags",
), "")
# fmt: on
_INTERNAL = ("project", "file", "line")


class NoSchedules(TickpoolError):
    """A schedules directory that cannot be used: (path, why)."""

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.args[1]}; name a directory of schedule files with --dir"


class Schedule(msgspec.Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """When to run which DAG, and what to do when that cannot be.

    `file` and `line` say where it was read, `project` is the directory its paths start from.
    """

    id: str
    cron: str
    dag: str
    timezone: str = "UTC"
    tenant: str = "default"
    enabled: bool = True
    description: str = ""
    params: dict[str, Any] = {}
    overlap: Literal["skip", "queue", "allow"] = "skip"
    catchup: Literal["none", "latest", "all"] = "none"
    catchup_window: Duration | None = None
    timeout: Duration | None = None
    retries: Retries = Retries()
    retry_on_crash: bool = False
    project: str = "."
    file: str = ""
    line: int = 0

    @functools.cached_property
    def fires(self) -> Cron:
        """The compiled expression; it judges datetimes in their own zone."""
        return _compiled(self.cron, self.id)

    @functools.cached_property
    def zone(self) -> ZoneInfo:
        """The zone that the expression is written in."""
        return _zone(self.timezone)

    @functools.cached_property
    def spec(self) -> dict[str, Any]:
        """What decides the fire times: the part of a schedule that the log keeps, to account for them later."""
        return {"cron": self.cron, "timezone": self.timezone, "enabled": self.enabled, "dag": self.dag}


class Configuration(msgspec.Struct, frozen=True):
    """The schedules of one directory and the faults found in it.

    `dag_files` are the files that its schedules name, there or not, `directories` those that all its files lie in.
    `signature` changes when any of its files does and, for root, when others may write a directory or no longer may.
    """

    directory: str
    schedules: list[Schedule]
    faults: list[Fault]
    dag_files: tuple[str, ...]
    signature: Signature
    directories: tuple[str, ...] = ()


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
    faults: list[Fault] = []
    taken: dict[str, Schedule] = {}
    dags = DagFiles(project)
    faults += [fault for place in (project, directory) for fault in foreign_faults(place)]
    for file in files if not faults else ():
        shown = str(file)
        if file.name in _RESERVED:
            faults.append(Fault(shown, 0, 0, f"`{file.name}` is not available in this version; remove it"))
            continue
        found, wrong = _read_file(file, project, dags, taken)
        if wrong:
            faults += wrong
        else:
            taken.update((schedule.id, schedule) for schedule in found)
    dag_files = tuple(sorted(place for place, *_ in dags.stamps))
    directories = tuple(sorted({str(project), str(directory), *dags.directories}))
    signed = tuple(sorted(stamps | dags.stamps | guard_stamps(directories)))
    # Several DAG files lie in one directory.
    faults = list(dict.fromkeys(faults))
    return Configuration(str(directory), list(taken.values()), faults, dag_files, signed, directories)


def schedule_files(directory: Path) -> list[Path]:
    """Return the schedule files of a directory in order of name. Raises NoSchedules."""
    try:
        names = sorted(entry.name for entry in os.scandir(directory) if entry.name.endswith((".yaml", ".yml")))
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


def schedule_from(entry: Schedule | Mapping[str, Any]) -> Schedule:
    """Return a schedule for one entry as a file would hold it, for callers that have no file.

    Raises InvalidFile with every fault.
    """
    if isinstance(entry, Schedule):
        return entry
    try:
        data = json.loads(json.dumps(dict(entry), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        message = f"schedule `{entry.get('id')!s:.128}` cannot be written as JSON: {error}"
        raise InvalidFile([Fault("<schedule>", 1, 1, message)]) from None
    document = Document("<schedule>", b"", data)
    schedule, faults = _convert(document, (), Path.cwd())
    if faults or schedule is None:
        raise InvalidFile(faults)
    return schedule


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


def _read_file(
    file: Path, project: Path, dags: DagFiles, taken: Mapping[str, Schedule]
) -> tuple[list[Schedule], list[Fault]]:
    """Read one file; `taken` are the schedules of the files before it."""
    if foreign := list(foreign_faults(file)):
        return [], foreign
    try:
        document = load_yaml(file, max_bytes=_FILE_BYTES)
    except InvalidFile as error:
        return [], list(error.faults)
    if document.data is None:
        return [], []
    if not isinstance(document.data, list):
        return [], [document.fault((), "a schedule file is a list; begin each schedule with `- id: name`")]
    schedules: dict[str, Schedule] = {}
    faults: list[Fault] = []
    for index, entry in enumerate(document.data):
        if not isinstance(entry, dict):
            faults.append(document.fault((index,), "a schedule is a mapping: `- id: name`, then its keys below"))
            continue
        schedule, wrong = _convert(document, (index,), project)
        faults += wrong
        if schedule is None:
            continue
        twin = taken.get(schedule.id) or schedules.get(schedule.id)
        if twin:
            message = f"schedule `{schedule.id}`: this id is taken by {twin.file}:{twin.line}; ids are unique"
            faults.append(document.fault((index, "id"), message))
        faults += dags.faults(document, (index,), f"schedule `{schedule.id}`", schedule.dag, schedule.params)
        schedules[schedule.id] = schedule
    return list(schedules.values()), faults


def _convert(document: Document, at: tuple[int, ...], project: Path) -> tuple[Schedule | None, list[Fault]]:
    """Convert one entry, with the checks that need nothing but the entry."""
    entry = document.data[at[0]] if at else document.data
    name = entry.get("id")
    what = f"schedule `{name[:128]}`" if isinstance(name, str) else "schedule"
    later = []
    if entry.get("overlap") == "replace":
        entry["overlap"] = "skip"
        message = "`overlap: replace` is not available in this version; allowed: skip, queue, allow"
        later.append(document.fault((*at, "overlap"), f"{what}: {message}"))
    schedule, faults = document.model(at, Schedule, what, later=_LATER, internal=_INTERNAL)
    faults += later
    # Keys that are unknown or missing are no reason to keep quiet about the others.
    rest = schedule or _known_part(document, at, entry)
    wrong = _wrong(rest) if rest is not None else ()
    faults += [document.fault((*at, key), f"{what}: {message}") for key, message in wrong if key in entry]
    if schedule is None or faults:
        return None, faults
    line = document.fault(at, "").line if at else 0
    return msgspec.structs.replace(schedule, project=str(project), file=document.path, line=line), []


def _known_part(document: Document, at: tuple[int, ...], entry: Mapping[str, Any]) -> Schedule | None:
    """Return the entry without the keys that no schedule has, and with something for those that every one needs."""
    known = {key: entry[key] for key in entry if key in Schedule.__struct_fields__ and key not in _INTERNAL}
    return document.convert(at, {"id": "none", "cron": "@daily", "dag": "none", **known}, Schedule, "")[0]


def _wrong(schedule: Schedule) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) for values that are of the right type."""
    if not is_id(schedule.id):
        yield "id", f"{schedule.id[:128]!r} is no id; {ID_RULE}"
    if not is_id(schedule.tenant):
        yield "tenant", f"{schedule.tenant[:128]!r} is no id; {ID_RULE}"
    try:
        _compiled(schedule.cron, schedule.id)
    except InvalidCron as error:
        yield "cron", str(error)
    try:
        _zone(schedule.timezone)
    except (OSError, ValueError, KeyError):
        near = did_you_mean(schedule.timezone, _zones())
        hint = (
            near if near.endswith("?") else "; allowed: the names of the IANA database, such as `Europe/Paris` or `UTC`"
        )
        yield "timezone", f"unknown time zone {schedule.timezone[:80]!r}{hint}"
    if schedule.params and (size := len(json.dumps(schedule.params))) > _PARAMS_BYTES:
        yield (
            "params",
            f"`params` take {size} bytes as JSON; at most {_PARAMS_BYTES} are allowed, put the rest in a file",
        )
    if schedule.catchup_window is not None and schedule.catchup == "none":
        yield "catchup_window", "`catchup_window` has no meaning without `catchup: latest` or `catchup: all`"
    if schedule.catchup == "all" and schedule.overlap == "skip":
        yield (
            "catchup",
            "`catchup: all` would be skipped by `overlap: skip`; write `overlap: queue` or `overlap: allow`",
        )


# Schedules share what they write alike: 100,000 of them have few different expressions and zones.
def _compiled(expr: str, schedule_id: str) -> Cron:
    return _seeded(expr, schedule_id if "H" in expr or "h" in expr else "")


@functools.lru_cache(4096)
def _seeded(expr: str, seed: str) -> Cron:
    return parse_cron(expr, seed=seed)


@functools.lru_cache(1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


@functools.cache
def _zones() -> set[str]:
    return available_timezones()
