"""What a task waits for that needs no process: a moment, the end of a run, a person's answer. Pure.

Moments are seconds since the epoch and not monotonic: such a wait outlives the process, and the machine's boot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from datetime import time as clock_time
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from . import params
from .dag_model import ANY_END, Approval, Task, Wait
from .errors import TickpoolError
from .events import Event, iso
from .ids import is_run_id, run_id_at
from .kind_rules import is_time
from .run_context import RunInfo
from .tasks import Outcome

__all__ = ["ANSWERS", "CannotWait", "Waiting", "answer", "begin", "come", "end", "is_waiting_kind"]

ANSWERS = ("task_approved", "task_rejected")
_WAITS = ("time", "delay", "run")
# An id of a run ends with its fire time, or has one and what tells it from others behind that.
_NAMES_A_RUN = re.compile(r".*\.\d{8}T\d{4}(\d{2})?Z.*")
_TEXT_CHARS = 1000


class CannotWait(TickpoolError):
    """Something that cannot be waited for: (what, why)."""

    def __str__(self) -> str:
        return f"cannot wait for {self.args[0]}: {self.args[1]}"


class Waiting(msgspec.Struct, frozen=True, omit_defaults=True):
    """An attempt of a task that waits. `due_s` is when its moment comes, `until_s` when it has waited too long.

    `run` is the id of the run whose end it waits for, with the statuses that are good; `default` is the answer that
    counts when nobody gives one in time; `timeout` is that length as it is written.
    """

    task_id: str
    task_attempt: int
    kind: Literal["approval", "time", "run", "dag"]
    since_s: float
    due_s: float | None = None
    until_s: float | None = None
    run: str = ""
    status: tuple[str, ...] = ()
    message: str = ""
    default: str = ""
    timeout: str = ""

    def next_s(self) -> float | None:
        """Return the first moment that changes something by itself; None where only others do."""
        return min((at_s for at_s in (self.due_s, self.until_s) if at_s is not None), default=None)


def is_waiting_kind(task: Task) -> bool:
    """Say whether a task waits for something without a process of its own."""
    if task.wait is not None:
        return any(getattr(task.wait, name) is not None for name in _WAITS)
    return task.kind in ("approval", "dag")


def begin(task: Task, task_attempt: int, lookup: params.Lookup, run: RunInfo, now_s: float, child: str) -> Waiting:
    """Return what an attempt of a task waits for from now on; `child` is the id of the run that its `dag` is run as.

    Raises CannotWait, and what a reference raises.
    """
    timeout_s = None if task.timeout is None else task.timeout.total_seconds()
    known: dict[str, Any] = {
        "task_id": task.id,
        "task_attempt": task_attempt,
        "since_s": round(now_s, 3),
        "until_s": None if timeout_s is None else round(now_s + timeout_s, 3),
        "timeout": "" if task.timeout is None else str(task.timeout),
    }
    if task.approval is not None:
        asked = Approval(task.approval) if isinstance(task.approval, str) else task.approval
        message = params.resolve_text(asked.message, lookup)[:_TEXT_CHARS]
        return Waiting(**known, kind="approval", message=message, default=asked.default or "")
    if task.wait is None:
        return Waiting(**known, kind="dag", run=child, status=("success",))
    if task.wait.run is not None:
        name = _run_of(params.resolve_text(task.wait.run, lookup), run)
        return Waiting(**known, kind="run", run=name, status=task.wait.status)
    if task.wait.delay is not None:
        return Waiting(**known, kind="time", due_s=round(now_s + task.wait.delay.total_seconds(), 3))
    return Waiting(**known, kind="time", due_s=_moment_of(task.wait, lookup, run, now_s))


def _run_of(name: str, run: RunInfo) -> str:
    found = name if _NAMES_A_RUN.fullmatch(name) else run_id_at(name, run.fire_time)
    if not is_run_id(found):
        raise CannotWait(f"run {name[:80]!r}", "that is no id of a schedule or a run")
    if found == run.run_id:
        raise CannotWait(f"run `{found}`", "it is this run itself")
    return found


def _moment_of(wait: Wait, lookup: params.Lookup, run: RunInfo, now_s: float) -> float:
    """Return the moment of `time`; of a time of day, the first one at or after the run's fire time."""
    text = params.resolve_text(wait.time or "", lookup)
    if not is_time(text):
        raise CannotWait(f"{text[:80]!r}", "write `06:30`, or an ISO 8601 time with its zone")
    if ":" in text[:3]:
        since = datetime.fromisoformat(run.fire_time) if run.fire_time else datetime.fromtimestamp(now_s, UTC)
        local = since.astimezone(ZoneInfo(wait.timezone))
        moment = datetime.combine(local.date(), clock_time.fromisoformat(text), local.tzinfo)
        if moment.astimezone(UTC) < since:
            moment = datetime.combine(local.date() + timedelta(days=1), moment.timetz())
        return moment.timestamp()
    return datetime.fromisoformat(text).timestamp()


def come(waiting: Waiting, now_s: float) -> Outcome | None:
    """Return how the wait ends by the time that has passed; None while it goes on."""
    if waiting.due_s is not None and now_s >= waiting.due_s:
        return _outcome(waiting, now_s, "success")
    if waiting.until_s is None or now_s < waiting.until_s:
        return None
    if waiting.default:
        said = {"by": "nobody", "comment": f"nobody answered within {waiting.timeout}"}
        return _answered(waiting, said, now_s, is_approved=waiting.default == "approve")
    return _outcome(waiting, now_s, "timeout", f"timed out after {waiting.timeout}")


def answer(waiting: Waiting, event: Event, now_s: float) -> Outcome:
    """Return how an approval ends by a `task_approved` or `task_rejected`."""
    said = {key: str(event[key])[:_TEXT_CHARS] for key in ("by", "comment") if event.get(key)}
    return _answered(waiting, said, now_s, is_approved=event["event"] == "task_approved")


def _answered(waiting: Waiting, said: Mapping[str, str], now_s: float, *, is_approved: bool) -> Outcome:
    at = iso(datetime.fromtimestamp(now_s, UTC))
    outputs = {"by": said.get("by", ""), "comment": said.get("comment", ""), "at": at}
    if is_approved:
        return _outcome(waiting, now_s, "success", outputs=outputs)
    why = f": {said['comment']}" if said.get("comment") else ""
    return _outcome(waiting, now_s, "failed", f"rejected by {said.get('by') or 'nobody knows whom'}{why}", outputs)


def end(waiting: Waiting, finish: Event, outputs: Mapping[str, Any], now_s: float) -> Outcome:
    """Return how a wait for a run ends by that run's last `run_finished`; `outputs` are those of its tasks."""
    status = str(finish.get("status"))
    told = {**outputs, "run_id": waiting.run, "status": status}
    if status in waiting.status or ANY_END in waiting.status:
        return _outcome(waiting, now_s, "success", outputs=told)
    why = f": {finish['reason']}" if finish.get("reason") else ""
    return _outcome(waiting, now_s, "failed", f"run {waiting.run} ended as {status}{why}", told)


def _outcome(
    waiting: Waiting,
    now_s: float,
    status: Literal["success", "failed", "timeout"],
    reason: str | None = None,
    outputs: Mapping[str, Any] | None = None,
) -> Outcome:
    # The clock may have been set meanwhile.
    duration_s = round(max(0.0, now_s - waiting.since_s), 6)
    return Outcome(status, reason, duration_s=duration_s, outputs=dict(outputs or {}))
