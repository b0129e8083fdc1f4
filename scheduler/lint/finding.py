"""What a rule of lint has to say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from scheduler.schedule_model import Schedule
from workers.yamlfile import At

__all__ = ["Finding", "Slip", "about", "about_expression", "written"]


class Slip(NamedTuple):
    """What is wrong with one expression, and the text or texts to write in its place, where there are some."""

    rule: str
    message: str
    mend: str
    write: str | list[str] | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A remark on one schedule, placed by the path of a key in its entry.

    `mend` says in words what to do; `write` holds the keys with the values to write, where these can be named.
    `schedules` are the ids of all that it concerns, `entry` is the id that stands in the file: a matrix makes others.
    """

    file: str
    line: int
    entry: str
    at: At
    rule: str
    schedule_id: str
    message: str
    mend: str
    write: dict[str, Any] = {}
    schedules: tuple[str, ...] = ()


def about(
    schedule: Schedule,
    at: At,
    rule: str,
    message: str,
    mend: str,
    write: Mapping[str, Any] | None = None,
    schedules: tuple[str, ...] = (),
) -> Finding:
    """Return a finding on a key of a schedule."""
    return Finding(
        file=schedule.file,
        line=schedule.line,
        entry=schedule.matrix_of or schedule.id,
        at=at,
        rule=rule,
        schedule_id=schedule.id,
        message=message,
        mend=mend,
        write=dict(write or {}),
        schedules=schedules or (schedule.id,),
    )


def about_expression(schedule: Schedule, index: int, slip: Slip) -> Finding:
    """Return a finding on one of a schedule's expressions; what is to be written is the whole key."""
    write = {}
    if slip.write is not None:
        texts = schedule.expressions
        texts[index : index + 1] = [slip.write] if isinstance(slip.write, str) else slip.write
        write = {"cron": texts[0] if len(texts) == 1 else texts}
    return about(schedule, ("cron", index), slip.rule, slip.message, slip.mend, write)


def written(write: Mapping[str, Any]) -> str:
    """Return the keys and values as a line of a schedule file."""
    return ", ".join(f"{key}: {value if _is_plain(value) else json.dumps(value)}" for key, value in write.items())


def _is_plain(value: Any) -> bool:
    return isinstance(value, str) and value.replace("/", "").replace("_", "").isalnum()
