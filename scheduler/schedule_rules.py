"""The rules of a schedule: which entries of a file are one, and what is wrong with the others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from workers.errors import Fault, InvalidFile, did_you_mean
from workers.ids import ID_RULE, is_id
from workers.yamlfile import Document

from .business_days import Days
from .calendars import Calendars, days_for
from .limits_file import wrong_limits
from .matrix import wrong_matrix
from .policy_rules import wrong_policies
from .public_holidays import InvalidCalendar
from .schedule_model import Schedule
from .timing_rules import FIRES_BY, wrong_timing

__all__ = ["read_schedule", "schedule_from"]

# The request is one line of the log, 64 KiB with all that else is in it.
_PARAMS_BYTES = 32 * 1024
_MOST_TAGS = 20
# Known words of later versions: refused by name, so that nobody thinks they work.
_LATER = {"notify": ""}
_INTERNAL = ("project", "matrix_of", "days", "file", "line")


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
    schedule, faults = read_schedule(document, (), Path.cwd(), {})
    if faults or schedule is None:
        raise InvalidFile(faults)
    return schedule


def read_schedule(
    document: Document, at: tuple[int, ...], project: Path, calendars: Calendars | None
) -> tuple[Schedule | None, list[Fault]]:
    """Convert one entry, with the checks that need nothing but the entry and the calendars, where they are known."""
    entry = document.data[at[0]] if at else document.data
    name = entry.get("id")
    what = f"schedule `{name[:128]}`" if isinstance(name, str) else "schedule"
    entry.setdefault("cron", None)  # one of several that say when it fires
    schedule, faults = document.model(at, Schedule, what, later=_LATER, internal=_INTERNAL)
    # Keys that are unknown or missing are no reason to keep quiet about the others.
    rest = schedule or _known_part(document, at, entry)
    wrong = list(_wrong(rest, entry)) if rest is not None else []
    days: Days | None = None
    if rest is not None and rest.calendar is not None and "calendar" not in dict(wrong):
        try:
            days = days_for(rest.calendar, calendars)
        except InvalidCalendar as error:
            wrong.append(("calendar", f"`calendar`: {error}"))
    faults += [document.fault((*at, key), f"{what}: {message}") for key, message in wrong if key in entry]
    if schedule is None or faults:
        return None, faults
    line = document.fault(at, "").line if at else 0
    return msgspec.structs.replace(schedule, project=str(project), days=days, file=document.path, line=line), []


def _known_part(document: Document, at: tuple[int, ...], entry: Mapping[str, Any]) -> Schedule | None:
    """Return the entry without the keys that no schedule has, and with something for those that every one needs."""
    known = {key: entry[key] for key in entry if key in Schedule.__struct_fields__ and key not in _INTERNAL}
    if not any(known.get(key) for key in FIRES_BY) and any(map(_is_near_timing, entry.keys() - known.keys())):
        known.pop("cron", None)  # whoever wrote `crn` has said when it fires
    return document.convert(at, {"id": "none", "cron": "@daily", "dag": "none", **known}, Schedule, "")[0]


def _is_near_timing(key: object) -> bool:
    return did_you_mean(str(key), FIRES_BY).endswith("?")


def _wrong(schedule: Schedule, given: Container[str]) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) for values that are of the right type; `given` are the keys of the entry."""
    if not is_id(schedule.id):
        yield "id", f"{schedule.id[:128]!r} is no id; {ID_RULE}"
    if not is_id(schedule.tenant):
        yield "tenant", f"{schedule.tenant[:128]!r} is no id; {ID_RULE}"
    if schedule.tags:
        yield from (("tags", f"`tags`: {what}") for what in _wrong_tags(schedule.tags))
    if schedule.params and (size := len(json.dumps(schedule.params))) > _PARAMS_BYTES:
        yield (
            "params",
            f"`params` take {size} bytes as JSON; at most {_PARAMS_BYTES} are allowed, put the rest in a file",
        )
    if schedule.matrix:
        yield from wrong_matrix(schedule)
    yield from wrong_timing(schedule)
    yield from wrong_policies(schedule, given)
    yield from wrong_limits(schedule.priority, schedule.pool)


def _wrong_tags(tags: list[str]) -> Iterator[str]:
    if len(tags) > _MOST_TAGS:
        yield f"there are {len(tags)}; at most {_MOST_TAGS} are allowed"
        return
    yield from (f"{tag[:128]!r} is no id; {ID_RULE}" for tag in tags if not is_id(tag))
    for tag, times in Counter(tags).items():
        if times > 1:
            yield f"{tag[:128]!r} stands there {times} times; write it once"
