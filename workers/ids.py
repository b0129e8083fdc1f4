"""The one rule for ids of schedules, DAGs, tasks and runs: safe in a path, in a URL and in a log line."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

__all__ = [
    "ID",
    "ID_RULE",
    "RUN_ID_RULE",
    "base_of",
    "child_id",
    "instance_id",
    "is_id",
    "is_run_id",
    "pack",
    "run_id_at",
    "unpack",
]

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
ID_RULE = "an id begins with a letter or digit and holds at most 128 letters, digits, `_`, `.` and `-`"
# An id of a schedule or a DAG, and behind it `.backfill.20261123T150512Z-1f3a.20261101T0900Z`.
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
# The instances of a task with `foreach`; several of them, as they are written shortly.
_INSTANCE = re.compile(r"(?P<base>.+)\[(?P<first>\d{1,4})(?:-(?P<last>\d{1,4}))?\]")
# With a dot in it, or a digit before all, the id of a task could be a task of a task, or an attempt.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
# What the run of `on_deadline` has behind the id of its run.
_OF_DEADLINE = "deadline"
RUN_ID_RULE = "a run id begins with a letter or digit and holds at most 200 letters, digits, `_`, `.` and `-`"


def is_id(value: object) -> bool:
    """Return whether `value` is a text that may name something."""
    return isinstance(value, str) and ID.fullmatch(value) is not None


def is_run_id(value: object) -> bool:
    """Return whether `value` is a text that may name a run."""
    return isinstance(value, str) and _RUN_ID.fullmatch(value) is not None


def run_id_at(name: str, minute: str) -> str:
    """Return the id of the run that has this name for a fire time as the log has it: `report.20261123T1505Z`."""
    return f"{name}.{minute.replace('-', '').replace(':', '').replace('00Z', 'Z')}"


def child_id(run_id: str, task_id: str, attempt: int, task_attempt: int) -> str:
    """Return the id of the run that an attempt of a task asks for: `RUN.TASK`, and the numbers where they are not 1.

    That of the item `load[2]` is `RUN.load.2`. Where such a name is too long for a run id, or could be that of another
    run, its middle becomes a hash.
    """
    base, number = base_of(task_id), task_id[len(base_of(task_id)) :].strip("[]")
    more = (f".{number}" if number else "") + (
        f".{attempt}-{task_attempt}" if (attempt, task_attempt) != (1, 1) else ""
    )
    name = f"{run_id}.{base}{more}"
    if is_run_id(name) and _PLAIN.fullmatch(base) and base != _OF_DEADLINE:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{run_id[:120]}.{mark}{more}"


def instance_id(task_id: str, number: int) -> str:
    """Return the id of a task for its nth item, from 0: no task of a DAG can have it."""
    return f"{task_id}[{number}]"


def base_of(task_id: str) -> str:
    """Return the id of the task that an instance belongs to; that of another task is its own."""
    found = _INSTANCE.fullmatch(task_id)
    return task_id if found is None else found["base"]


def pack(names: Iterable[str]) -> list[str]:
    """Write ids of tasks and instances shortly: `load[0]`, `load[1]`, `load[2]` as `load[0-2]`; sorted."""
    plain: set[str] = set()
    numbers: dict[str, set[int]] = {}
    for name in names:
        found = _INSTANCE.fullmatch(name)
        if found is None:
            plain.add(name)
        else:
            numbers.setdefault(found["base"], set()).add(int(found["first"]))
    for base, of_base in numbers.items():
        for first in sorted(of_base):
            if first - 1 in of_base:
                continue
            last = first
            while last + 1 in of_base:
                last += 1
            plain.add(instance_id(base, first) if first == last else f"{base}[{first}-{last}]")
    return sorted(plain)


def unpack(names: Iterable[str]) -> set[str]:
    """Read what `pack` has written."""
    found: set[str] = set()
    for name in names:
        match = _INSTANCE.fullmatch(name)
        if match is None or match["last"] is None:
            found.add(name)
        else:
            found.update(instance_id(match["base"], n) for n in range(int(match["first"]), int(match["last"]) + 1))
    return found
