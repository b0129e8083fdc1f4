"""The page Health: what the audit proves, the state of the logs, who died, what is wrong in the configuration."""

from __future__ import annotations

import os
import shutil
from datetime import datetime
from pathlib import Path

import msgspec

from scheduler.audit.report import Report
from scheduler.service_processes import NoService, Service
from scheduler.text import counted
from scheduler.web.feed import Feed
from scheduler.web.incidents import Death
from scheduler.web.processes import Processes
from workers.segments import list_segments
from workers.settings import Settings

from .schedules import FaultRow, faults_of

__all__ = ["Audit", "Disk", "Health", "LogFacts", "disk_of", "health_view", "logs_of"]

_DEATHS_S = 7 * 86_400.0
_SHOWN = 50


class Audit(msgspec.Struct):
    """The last audit, made at `at_s`; `problem` says why the last one told nothing."""

    is_pending: bool
    problem: str
    at_s: float | None
    is_clean: bool | None
    report: Report | None
    least_s: float


class LogFacts(msgspec.Struct):
    """A log: its path, its bytes in all, and its segments, of which the oldest begins at `first_seq`."""

    name: str
    path: str
    bytes: int
    segments: int
    first_seq: int | None


class Disk(msgspec.Struct):
    """The file system of the logs."""

    path: str
    total_bytes: int
    free_bytes: int


class Health(msgspec.Struct):
    """The health of the system; `problems` are what somebody should see to."""

    at_s: float
    problems: list[str]
    supervisor: Service | NoService
    audit: Audit
    logs: list[LogFacts]
    corrupt_lines: int
    unusable_events: int
    deaths: list[Death]
    faults: list[FaultRow]
    disk: Disk | None
    listeners: int
    is_caught_up: bool


def health_view(
    feed: Feed,
    found: Processes,
    now: datetime,
    audit: Audit,
    logs: list[LogFacts],
    disk: Disk | None,
    unread: FaultRow | None = None,
) -> Health:
    """Return how things are; `unread` says why the configuration cannot be read at all."""
    supervisor, _ = found.look(feed.history, now)
    since_s = now.timestamp() - _DEATHS_S
    health = Health(
        at_s=now.timestamp(),
        problems=[feed.problem] if feed.problem else [],
        supervisor=supervisor,
        audit=audit,
        logs=logs,
        corrupt_lines=feed.corrupt,
        unusable_events=feed.history.unusable,
        deaths=[each for each in reversed(feed.incidents.deaths) if each.at_s >= since_s][:_SHOWN],
        faults=[*([unread] if unread else []), *faults_of(feed.history)][:_SHOWN],
        disk=disk,
        listeners=feed.listeners(),
        is_caught_up=feed.is_caught_up,
    )
    health.problems += _problems(health)
    return health


def logs_of(settings: Settings) -> list[LogFacts]:
    """Look at the files of both logs. Raises LogUnreadable."""
    return [_log("state", settings.state_path), _log("tasks", settings.events_path)]


def disk_of(settings: Settings) -> Disk | None:
    """Look at the file system of the logs; None where it cannot be looked at."""
    place = Path(os.path.abspath(settings.state_path)).parent
    try:
        found = shutil.disk_usage(place)
    except OSError:
        return None
    return Disk(str(place), found.total, found.free)


def _log(name: str, path: str) -> LogFacts:
    segments, total = list_segments(Path(path)), 0
    for each in segments:
        try:
            total += each.path.stat().st_size
        except OSError:
            continue  # pruned in this moment
    return LogFacts(name, path, total, len(segments), segments[0].first_seq if segments else None)


def _problems(health: Health) -> list[str]:
    supervisor, report = health.supervisor, health.audit.report
    problems = [f"the service is down: {supervisor.reason}"] if isinstance(supervisor, NoService) else []
    if report is not None and not report.is_clean:
        refuted = ", ".join(each.guarantee for each in report.findings if each.violations)
        problems.append(f"the audit refutes {refuted}")
    if health.faults:
        problems.append(f"{counted(len(health.faults), 'fault')} in the configuration: what was in force goes on")
    if health.corrupt_lines:
        problems.append(f"{counted(health.corrupt_lines, 'corrupt line')} in the log")
    if health.disk is not None and health.disk.free_bytes < 0.05 * health.disk.total_bytes:
        problems.append(f"less than 5 % of the disk is free at {health.disk.path}")
    return problems
