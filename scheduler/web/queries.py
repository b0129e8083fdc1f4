"""What the API takes, as types: the query of each read, the body of each change; and what a cursor stands for."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar, Union

import msgspec
from msgspec import UNSET, Meta, UnsetType

from .problems import Problem

__all__ = [
    "AnswerBody", "AtQuery", "AttemptQuery", "BackfillBody", "EventsQuery", "FollowQuery", "LogQuery", "NowQuery",
    "OutputQuery", "PauseBody", "RerunBody", "RetryBody", "RunsQuery", "SchedulesQuery", "TasksQuery", "TriggerBody",
    "cursor_of", "key_of",
]  # fmt: skip

T = TypeVar("T")
Key = TypeVar("Key", bound=tuple[Any, ...])
Maybe = Union[T, UnsetType]  # noqa: UP007 - a generic alias
_Words = Annotated[str, Meta(max_length=200, description="a text, in whichever case")]
_Limit = Annotated[int, Meta(ge=1, le=500, description="a whole number, 1 to 500: at most so many are told")]
_Cursor = Annotated[str, Meta(max_length=1000, description="the `next_cursor` of the page before")]
_Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$", description="an id")]
_RunId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$", description="the id of a run")]
_TaskId = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}(\[[0-9]{1,4}\])?$",
        description="the id of a task, or of an item of one, such as `load[2]`",
    ),
]
_Attempt = Annotated[int, Meta(ge=1, le=1 << 31, description="a whole number from 1: without it, the newest attempt")]
_MOMENT = "an ISO 8601 time with its zone, such as 2026-11-23T09:00:00Z, or seconds since the epoch"
# Read by `moments`, as the pages read theirs.
_Moment = (
    Annotated[
        datetime,
        Meta(tz=True, extra_json_schema={"pattern": "^(197[2-9]|19[89][0-9]|[2-8][0-9]{3})-"}),
    ]
    | Annotated[float, Meta(ge=31_536_000, le=253_370_764_800)]
)
_DURATION = r"^[1-9][0-9]{0,3}[smhd]$"


class NowQuery(msgspec.Struct):
    """What the figures are of."""

    window: Annotated[Literal["1h", "24h", "30d"], Meta(description="one of 1h, 24h, 30d: what the figures are of")] = (
        "24h"
    )


class RunsQuery(msgspec.Struct):
    """Which runs."""

    q: Maybe[_Words] = UNSET
    schedule: Maybe[_Id] = UNSET
    tenant: Maybe[_Id] = UNSET
    status: Maybe[
        Annotated[
            Literal["success", "failed", "timeout", "crashed", "cancelled", "running", "queued", "parked"],
            Meta(description="one of success, failed, timeout, crashed, cancelled, running, queued, parked"),
        ]
    ] = UNSET
    kind: Maybe[
        Annotated[
            Literal["schedule", "manual", "backfill", "rerun", "deadline", "dag", "hand"],
            Meta(description="what asked for it, one of schedule, manual, backfill, rerun, deadline, dag, hand"),
        ]
    ] = UNSET
    since: Maybe[Annotated[_Moment, Meta(description=_MOMENT)]] = UNSET
    until: Maybe[Annotated[_Moment, Meta(description=_MOMENT)]] = UNSET
    cursor: Maybe[_Cursor] = UNSET
    limit: _Limit = 50


class AttemptQuery(msgspec.Struct):
    """Which attempt of a run."""

    attempt: Maybe[_Attempt] = UNSET


class TasksQuery(msgspec.Struct):
    """Which tasks."""

    attempt: Maybe[_Attempt] = UNSET
    cursor: Maybe[_Cursor] = UNSET
    limit: Annotated[int, Meta(ge=1, le=5000, description="a whole number, 1 to 5000: at most so many are told")] = 1000


class OutputQuery(msgspec.Struct):
    """Whose output."""

    attempt: Maybe[_Attempt] = UNSET
    task: Maybe[_TaskId] = UNSET


class LogQuery(msgspec.Struct):
    """Which lines of output: the newest; those from `after` on; those before `before`; or those that hold a word."""

    attempt: Maybe[_Attempt] = UNSET
    task: Maybe[_TaskId] = UNSET
    find: Maybe[_Words] = UNSET
    after: Annotated[
        int, Meta(ge=0, le=1 << 53, description="a whole number from 0: the `next` of the answer before")
    ] = 0
    before: Maybe[
        Annotated[int, Meta(ge=1, le=1 << 53, description="a whole number from 1: the `first` of an answer")]
    ] = UNSET
    limit: Annotated[int, Meta(ge=1, le=2000, description="a whole number, 1 to 2000: at most so many lines")] = 500


class AtQuery(msgspec.Struct):
    """Which moment."""

    at: Annotated[_Moment, Meta(description=_MOMENT)]


class SchedulesQuery(msgspec.Struct):
    """Which schedules, in which order."""

    q: Maybe[_Words] = UNSET
    tenant: Maybe[_Words] = UNSET
    tag: Maybe[_Words] = UNSET
    status: Maybe[
        Annotated[
            Literal["ok", "failing", "running", "never", "paused", "disabled", "invalid"],
            Meta(description="one of ok, failing, running, never, paused, disabled, invalid"),
        ]
    ] = UNSET
    sort: Annotated[Literal["name", "next"], Meta(description="one of name, next: by name, or by fire time")] = "name"
    cursor: Maybe[_Cursor] = UNSET
    limit: _Limit = 100


class EventsQuery(msgspec.Struct):
    """Which events: from the oldest that there is, or from a place on."""

    event: Maybe[Annotated[str, Meta(pattern="^[a-z_]{1,64}$", description="a name, such as `run_finished`")]] = UNSET
    run: Maybe[_RunId] = UNSET
    schedule: Maybe[_Id] = UNSET
    cursor: Maybe[Annotated[str, Meta(max_length=40, description="the `next_cursor` or `last_id` of a page")]] = UNSET
    limit: _Limit = 100


class FollowQuery(msgspec.Struct):
    """Which events, as they come."""

    event: Maybe[Annotated[str, Meta(pattern="^[a-z_]{1,64}$", description="a name, such as `run_finished`")]] = UNSET
    run: Maybe[_RunId] = UNSET
    schedule: Maybe[_Id] = UNSET
    last_event_id: Maybe[
        Annotated[str, Meta(max_length=40, description="as the header `Last-Event-ID`, which counts before it")]
    ] = UNSET


class AnswerBody(msgspec.Struct, forbid_unknown_fields=True):
    """What answers a question, and why."""

    answer: Annotated[Literal["approve", "reject"], Meta(description="`approve` or `reject`")]
    comment: Annotated[str, Meta(max_length=1000, description="a text of at most 1000 characters")] = ""


class RetryBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is to run again: `all`, or what `failed`; or a task, and what needs it."""

    what: Annotated[Literal["all", "failed"], Meta(description="`all` or `failed`; `first` names a task")] = "all"
    first: Maybe[_TaskId] = UNSET


class RerunBody(msgspec.Struct, forbid_unknown_fields=True):
    """With the schedule and the DAG of `today`, or as they `was` then."""

    like: Annotated[Literal["today", "was"], Meta(description="`today` or `was`")] = "today"


class TriggerBody(msgspec.Struct, forbid_unknown_fields=True):
    """A run now, or `at` a time. `texts` are params as a person writes them, read as their defaults ask for it."""

    at: Maybe[
        Annotated[
            str,
            Meta(
                description="an ISO 8601 time with its zone, such as 2026-11-23T09:00:00Z",
                extra_json_schema={"format": "date-time"},
            ),
        ]
    ] = UNSET
    params: Annotated[dict[str, Any], Meta(description="values of the DAG's parameters, by name")] = {}
    texts: Annotated[dict[str, str], Meta(description="the same as texts; where the default is no text, JSON")] = {}


class PauseBody(msgspec.Struct, forbid_unknown_fields=True):
    """Until when, and why."""

    until: Maybe[
        Annotated[
            str,
            Meta(
                description="a duration such as 2h or 7d, or an ISO 8601 time with its zone; without it, until resumed",
                extra_json_schema={"anyOf": [{"pattern": _DURATION}, {"format": "date-time"}]},
            ),
        ]
    ] = UNSET
    reason: Annotated[str, Meta(max_length=1000, description="a text of at most 1000 characters")] = ""


class BackfillBody(msgspec.Struct, forbid_unknown_fields=True):
    """The fire times `from` a day or moment up to `until`, without that."""

    from_: Annotated[
        str,
        Meta(
            description="a day such as 2026-11-23, or an ISO 8601 time with its zone",
            extra_json_schema={"anyOf": [{"format": "date"}, {"format": "date-time"}]},
        ),
    ] = msgspec.field(name="from")
    until: Maybe[
        Annotated[
            str,
            Meta(
                description="a day or time as `from`; without it, now",
                extra_json_schema={"anyOf": [{"format": "date"}, {"format": "date-time"}]},
            ),
        ]
    ] = UNSET
    max_parallel: Annotated[int, Meta(ge=1, le=1000, description="a whole number, 1 to 1000: so many at a time")] = 1
    only_missing: Annotated[bool, Meta(description="true or false: leave out what has succeeded")] = False
    reverse: Annotated[bool, Meta(description="true or false: the newest first")] = False
    dry_run: Annotated[bool, Meta(description="true or false: only say what it comes to")] = False


def cursor_of(*key: Any) -> str:
    """Return a cursor that stands for a place in a list."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def key_of(cursor: Maybe[str], kind: type[Key]) -> Key | None:
    """Return what a cursor stands for, None without one. Raises Problem for what was never one."""
    if not cursor:
        return None
    try:
        text = base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        key: Key = msgspec.json.decode(text, type=kind)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise Problem(410, "No such cursor", "`cursor` is the `next_cursor` of a page; begin without it") from None
    return key
