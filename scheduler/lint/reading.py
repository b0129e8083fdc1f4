"""Reading schedules for lint, also those beside one with a fault, and finding the place of a key again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from scheduler.calendars import Calendars
from scheduler.cron import InvalidCron
from scheduler.expressions import read_expression
from scheduler.matrix import expand
from scheduler.schedule_model import Schedule
from scheduler.schedule_rules import read_schedule
from scheduler.schedules import FILE_BYTES, read_configuration, schedule_files
from workers.errors import Fault, InvalidFile
from workers.yamlfile import Document, load_yaml

from .dates import never_fires
from .finding import Finding

__all__ = ["Reading", "Remark", "place", "read_for_lint"]


class Reading(NamedTuple):
    """The schedules that can be read, the faults of those that cannot, and what the faults are that lint can mend."""

    schedules: list[Schedule]
    faults: list[Fault]
    findings: list[Finding]


class Remark(msgspec.Struct, frozen=True):
    """A finding with its place: line and column, from 1, of the value that is to be mended."""

    file: str
    line: int
    col: int
    rule: str
    schedule_id: str
    message: str
    mend: str
    write: dict[str, Any]
    schedules: tuple[str, ...]


def read_for_lint(directory: Path) -> Reading:
    """Read a directory as the service does; of a file with faults, take every schedule that has none.

    Raises NoSchedules.
    """
    configuration = read_configuration(directory)
    schedules, faults, findings = list(configuration.schedules), [], []
    wrong: defaultdict[str, list[Fault]] = defaultdict(list)
    for fault in configuration.faults:
        wrong[fault.path].append(fault)
    names = {str(file) for file in schedule_files(directory)}
    for name, found in wrong.items():
        # A fault of a file as a whole (its owner, its bytes) is one of every schedule in it.
        if name not in names or not all(fault.line for fault in found):
            faults += found
            continue
        beside, left, dead = _read_beside_faults(
            Path(name), found, directory.absolute().parent, configuration.calendars
        )
        schedules += beside
        faults += left
        findings += dead
    return Reading(schedules, sorted(faults), findings)


def _read_beside_faults(
    file: Path, faults: Sequence[Fault], project: Path, calendars: Calendars | None
) -> tuple[list[Schedule], list[Fault], list[Finding]]:
    try:
        document = load_yaml(file, max_bytes=FILE_BYTES)
    except InvalidFile as error:
        return [], list(error.faults), []
    schedules, findings, told = [], [], set()
    for index, entry in enumerate(document.data if isinstance(document.data, list) else ()):
        if not isinstance(entry, dict):
            continue
        schedule, _ = read_schedule(document, (index,), project, calendars)
        if schedule is not None:
            schedules += expand(schedule)
            continue
        for place_in, finding in _dead(document, index, entry):
            told.add(document.fault((index, *place_in), "")[:3])
            findings.append(finding)
    return schedules, [fault for fault in faults if fault[:3] not in told], findings


def _dead(document: Document, index: int, entry: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], Finding]]:
    """Yield a finding for each expression of an entry that never fires, with the path of the fault that says so."""
    cron = entry.get("cron")
    texts = cron if isinstance(cron, list) else [cron]
    for number, text in enumerate(texts):
        try:
            expression = read_expression(text, str(entry.get("id"))) if isinstance(text, str) else None
        except InvalidCron:
            continue
        for slip in never_fires(expression) if expression else ():
            write = [*texts[:number], slip.write, *texts[number + 1 :]] if isinstance(cron, list) else slip.write
            at: tuple[str | int, ...] = ("cron", number) if isinstance(cron, list) else ("cron",)
            yield (
                at,
                Finding(
                    file=document.path,
                    line=document.fault((index,), "").line,
                    entry=str(entry.get("id")),
                    at=at,
                    rule=slip.rule,
                    schedule_id=str(entry.get("id")),
                    message=slip.message,
                    mend=slip.mend,
                    write={"cron": write} if slip.write else {},
                    schedules=(str(entry.get("id")),),
                ),
            )


def place(findings: Iterable[Finding]) -> list[Remark]:
    """Return the findings with their places, in order of file and line; each of their files is read again.

    To keep the places of all keys of all schedules would take more memory than the schedules. A file that has changed
    since gives the place of the schedule as it was.
    """
    of_file: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        of_file[finding.file].append(finding)
    remarks = [remark for name, found in sorted(of_file.items()) for remark in _place_in(name, found)]
    return sorted(remarks, key=lambda remark: (remark.file, remark.line, remark.col))


def _place_in(name: str, findings: Sequence[Finding]) -> Iterator[Remark]:
    try:
        document = load_yaml(Path(name), max_bytes=FILE_BYTES)
    except InvalidFile:
        document = Document(name, b"", None)
    entries = document.data if isinstance(document.data, list) else ()
    indexes: defaultdict[int, list[int]] = defaultdict(list)
    for index in range(len(entries)):
        indexes[document.fault((index,), "").line].append(index)
    for finding in findings:
        entry = _index_of(finding, entries, indexes[finding.line])
        line, col = finding.line, 1
        if entry is not None:
            _, line, col, _ = document.fault((entry, *finding.at), "")
        what = (finding.rule, finding.schedule_id, finding.message, finding.mend, finding.write, finding.schedules)
        yield Remark(name, line, col, *what)


def _index_of(finding: Finding, entries: Sequence[Any], indexes: Sequence[int]) -> int | None:
    """Return which entry the finding is about: the one on its line; of several on one line, the one with its id."""
    for index in indexes:
        entry = entries[index]
        if len(indexes) == 1 or (isinstance(entry, dict) and str(entry.get("id")) == finding.entry):
            return index
    return None
