"""The RunRequest: the mapping that asks for one run. It is the event that recorded it, so replay is a put."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from . import retry
from .dag_model import ANY_END, STATUSES, Retries
from .events import iso
from .units import Duration

__all__ = [
    "ANY_END",
    "RUN_FIELDS",
    "STATUSES",
    "RunRequest",
    "cancel_requested",
    "cancel_text",
    "marker_for",
    "next_attempt",
    "run_fields",
    "wrong_in",
]

RunRequest = dict[str, Any]
RUN_FIELDS = ("run_id", "schedule_id", "minute", "attempt")


def run_fields(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that every event of a run carries; a `tenant` but the default one, and `for_schedule`, if any.

    Those two say whose an end is where the request is no longer at hand.
    """
    fields = {name: request.get(name) for name in RUN_FIELDS}
    if request.get("tenant") not in (None, "", "default"):
        fields["tenant"] = request["tenant"]
    if request.get("for_schedule"):
        fields["for_schedule"] = request["for_schedule"]
    return fields


def wrong_in(request: Mapping[str, Any]) -> str:
    """Say what keeps a request from being run, if anything does: another hand may have written it."""
    dag, project, params = request.get("dag"), request.get("project") or ".", request.get("params") or {}
    limit_s, offered = request.get("timeout_s"), request.get("offered") or {}
    kept, parked = request.get("kept") or [], request.get("parked")
    if not isinstance(dag, str) or not dag:
        return f"its request names no DAG: `dag` is {dag!r:.200}"
    if not isinstance(project, str) or not project.isprintable():
        return f"its request names no project: `project` is {project!r:.200}; write the path of a directory"
    if not os.path.isabs(project) and os.path.normpath(project).split(os.sep)[0] == os.pardir:
        return f"`project` leaves the working directory: {project!r:.200}; write an absolute path to mean that"
    if not isinstance(params, Mapping):
        return f"`params` of its request is {params!r:.200}; write a mapping"
    if not isinstance(offered, Mapping):
        return f"`offered` of its request is {offered!r:.200}; write a mapping"
    if not isinstance(kept, list) or not all(isinstance(each, str) for each in kept):
        return f"`kept` of its request is {kept!r:.200}; write a list of task ids"
    if parked is not None and not (isinstance(parked, dict) and {"waits", "tasks"} <= parked.keys()):
        return f"`parked` of its request is {parked!r:.200}; write what its `run_parked` says"
    if limit_s is not None and (isinstance(limit_s, bool) or not isinstance(limit_s, int | float)):
        return f"`timeout_s` of its request is {limit_s!r:.200}; write a number of seconds"
    return ""


def marker_for(log_path: str | os.PathLike[str], run_id: str, attempt: int) -> str:
    """Return the value of TICKPOOL_RUN for one attempt; two services with different logs never share one."""
    return f"{_log_mark(os.fspath(log_path))}:{run_id}:{attempt}"


@functools.lru_cache(maxsize=8)
def _log_mark(log_path: str) -> str:
    return hashlib.sha256(os.path.realpath(log_path).encode()).hexdigest()[:12]


def next_attempt(request: Mapping[str, Any], status: str, now: datetime) -> dict[str, Any]:
    """Return `next_attempt` and `retry_at` for the `run_finished` of an attempt, or nothing when it was the last.

    A failed or timed-out attempt is followed by another while `retries` lasts. A crashed one, whose effects are
    unknown, only where the request says `retry_on_crash`: at least once instead of at most once.
    """
    attempt = int(request.get("attempt") or 1)
    try:
        retries = _retries(request.get("retries") or {})
        if status == "crashed":
            allowed = request.get("retry_on_crash") is True and attempt <= max(retries.max, 1)
        else:
            allowed = status in ("failed", "timeout") and attempt <= retries.max
        wait_s = retry.delay_s(retries, attempt, f"{request.get('run_id')}:{attempt}") if allowed else 0.0
        return {"next_attempt": attempt + 1, "retry_at": iso(now + timedelta(seconds=wait_s))} if allowed else {}
    except (TypeError, ValueError, AttributeError, OverflowError):
        # Written by another hand or version. What cannot be read allows no further attempt, and keeps no run open.
        return {}


def cancel_requested(run_id: str, reason: str, by: str | None = None) -> dict[str, Any]:
    """Return the event that asks for the end of a run, with why and by whom: whoever appends it has cancelled the run.

    A run that waits is closed without a start, one that runs gets SIGTERM; one that is not open is left alone.
    """
    why = {"reason": reason, "by": by}
    return {"event": "cancel_requested", "run_id": run_id, **{key: text for key, text in why.items() if text}}


def cancel_text(cancel: Mapping[str, Any]) -> str:
    """Say why a run was cancelled, from the `cancel_requested`: `cancelled: replaced by report.20261123T1505Z`."""
    reason, by = cancel.get("reason") or "asked for", cancel.get("by")
    return f"cancelled: {reason!s:.500}" + (f" by {by!s:.500}" if by else "")


def _retries(plan: Mapping[str, Any]) -> Retries:
    return Retries(
        max=int(plan.get("max", 0)),
        delay=Duration(seconds=plan.get("delay_s", 0)),
        backoff=float(plan.get("backoff", 2.0)),
        max_delay=Duration(seconds=plan.get("max_delay_s", 3600)),
        jitter=bool(plan.get("jitter", False)),
    )
