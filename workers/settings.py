"""The environment variables tickpool reads, checked once and carried as one value."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from .errors import TickpoolError
from .failpoints import POINTS, Failpoints, parse_failpoints
from .units import Duration, parse_size

if TYPE_CHECKING:
    from .event_log import EventLog

__all__ = ["INHERITED", "InvalidSetting", "Settings", "Variable", "read_settings", "variables"]

# What tasks are given of the service's environment, with LC_*.
INHERITED = (
    *("PATH", "HOME", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR", "VIRTUAL_ENV"),
    # Absolute by then: for tasks that look into the logs, as the examples do.
    *("STATE_STORE_PATH", "ORCH_EVENTS_PATH", "RUN_LOGS_DIR"),
)


class InvalidSetting(TickpoolError):
    """An environment variable with a value it cannot have: (name, value, what is allowed)."""

    def __str__(self) -> str:
        name, value, allowed = self.args
        return f"environment variable {name}={value!r}: {allowed}"


class Settings(msgspec.Struct, frozen=True):
    """What the environment says; the defaults are what an empty environment means."""

    state_path: str = "logs/orchestrator_state.jsonl"
    events_path: str = "logs/orchestrator_events.jsonl"
    run_logs_dir: str = "logs/runs"
    tick_ms: int = 1000
    max_parallel: int = 3
    grace_s: float = 30.0
    task_grace_s: float = 5.0
    fsync: Literal["off", "interval", "always"] = "interval"
    lock_timeout_s: float = 10.0
    segment_bytes: int = 16 * 1024 * 1024
    keep_segments: int = 64
    keep_s: float = 90 * 86400.0
    worker_max_runs: int = 1000
    task_log_bytes: int = 10 * 1024 * 1024
    failpoints: Failpoints | None = None

    def state_log(self) -> EventLog:
        """Return the log of runs and schedules."""
        # Imported here: a reader has no need of the writer.
        from .event_log import EventLog

        return EventLog(self.state_path, fsync=self.fsync, lock_timeout_s=self.lock_timeout_s)

    def environ(self) -> dict[str, str]:
        """Return the places as absolute environment variables, for tasks that look into the logs."""
        places = {"STATE_STORE_PATH": self.state_path, "ORCH_EVENTS_PATH": self.events_path}
        return {name: os.path.abspath(at) for name, at in {**places, "RUN_LOGS_DIR": self.run_logs_dir}.items()}

    def task_log(self) -> EventLog:
        """Return the log of tasks."""
        from .event_log import EventLog

        fsync = "interval" if self.fsync == "always" else self.fsync
        return EventLog(self.events_path, fsync=fsync, lock_timeout_s=self.lock_timeout_s)


class Variable(NamedTuple):
    """One environment variable: the field it sets, how its text is read, and what a person may write."""

    name: str
    field: str
    read: Callable[[str], Any]
    allowed: str


def variables() -> tuple[Variable, ...]:
    """Return every environment variable that tickpool reads."""
    return (
        Variable("STATE_STORE_PATH", "state_path", _text, "a path of a file"),
        Variable("ORCH_EVENTS_PATH", "events_path", _text, "a path of a file"),
        Variable("RUN_LOGS_DIR", "run_logs_dir", _text, "a path of a directory"),
        Variable("SCHED_TICK_MS", "tick_ms", _whole(10, 60_000), "a whole number of milliseconds, 10 to 60000"),
        Variable("SCHED_MAX_PARALLEL", "max_parallel", _whole(1, 1000), "a whole number of workers, 1 to 1000"),
        Variable("SCHED_GRACE_S", "grace_s", _seconds, "a number of seconds, 0 to 86400"),
        Variable("TASK_GRACE_S", "task_grace_s", _seconds, "a number of seconds, 0 to 86400"),
        Variable("SCHED_WORKER_MAX_RUNS", "worker_max_runs", _whole(1, 10**9), "a whole number of runs, 1 or more"),
        Variable("STATE_FSYNC", "fsync", _fsync, "off, interval or always"),
        Variable("STATE_LOCK_TIMEOUT_S", "lock_timeout_s", _seconds, "a number of seconds, 0 to 86400"),
        Variable("STATE_SEGMENT_SIZE", "segment_bytes", _size, "a size of 64KiB or more, such as 16MiB"),
        Variable("STATE_KEEP_SEGMENTS", "keep_segments", _whole(1, 10**6), "a whole number of segments, 1 or more"),
        Variable("STATE_KEEP", "keep_s", _age, "a duration such as 90d"),
        Variable("TASK_LOG_SIZE", "task_log_bytes", _size, "a size of 64KiB or more, such as 10MiB"),
        Variable(
            "TICKPOOL_FAILPOINTS",
            "failpoints",
            parse_failpoints,
            f"off, or FILE|POINT=CHANCE,... with chances from 0 to 1 for {', '.join(POINTS)}",
        ),
    )


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read the settings; an empty value counts as absent. Raises InvalidSetting."""
    found: dict[str, Any] = {}
    for variable in variables():
        text = environ.get(variable.name, "").strip()
        if not text:
            continue
        try:
            found[variable.field] = variable.read(text)
        except (ValueError, TickpoolError):
            raise InvalidSetting(variable.name, text, f"write {variable.allowed}") from None
    return Settings(**found)


def _text(text: str) -> str:
    if "\0" in text:
        raise ValueError(text)
    return str(Path(text))


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError(text)
        return number

    return read


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 86400:
        raise ValueError(text)
    return number


def _size(text: str) -> int:
    size = parse_size(text)
    if size < 64 * 1024:
        raise ValueError(text)
    return size


def _age(text: str) -> float:
    return Duration.parse(text).total_seconds()


def _fsync(text: str) -> str:
    if text not in ("off", "interval", "always"):
        raise ValueError(text)
    return text
