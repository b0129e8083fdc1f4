"""`drain_queue`: execute what is on a queue, for programs that have no service running."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Protocol

from workers.errors import TickpoolError
from workers.events import Event, iso
from workers.ids import RUN_ID_RULE, is_run_id
from workers.run_context import RunInfo
from workers.run_request import RunRequest, wrong_in
from workers.segments import read_backward
from workers.settings import read_settings

from .dispatch import Dispatcher
from .history import History
from .judge import run_id_for
from .state_store import StateStore

__all__ = ["InvalidRequest", "RunQueueLike", "drain_queue"]

_ARRIVAL_S = 5.0


class InvalidRequest(TickpoolError):
    """A RunRequest that asks for nothing that can be run: (the request, what is wrong with it)."""

    def __str__(self) -> str:
        return f"run request {self.args[0]!r:.500}: {self.args[1]}"


class RunQueueLike(Protocol):
    """What `drain_queue` needs of a queue; `multiprocessing.Queue` and `queue.Queue` have it."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take an item, or raise queue.Empty."""

    def qsize(self) -> int:
        """Return about how many items there are."""


def drain_queue(run_queue: RunQueueLike, max_parallel: int = 3) -> list[dict[str, Any]]:
    """Execute every RunRequest of the queue on worker processes; return one mapping a run, in the queue's order.

    A mapping holds `run_id`, `schedule_id`, `minute`, `attempt`, `status`, `reason`, `duration_s`. The state log is
    STATE_STORE_PATH. A request that the log does not have is recorded first; one that has run already, or is on the
    queue twice, is `refused`. Attempts that the request allows are made before this returns. When it is interrupted,
    what runs is cancelled and the rest stays asked for. Raises InvalidRequest for a request that cannot be run, and
    then nothing was run.
    """
    if max_parallel < 1:
        raise InvalidRequest(f"max_parallel={max_parallel}", "1 or more workers are needed")
    items = list(_take_all(run_queue))
    requests = [_complete(item) for item in items]
    if not requests:
        return []
    named = {item["run_id"] for item in items if item.get("run_id")}
    dispatcher = Dispatcher(read_settings(os.environ), min(max_parallel, len(requests)))
    ends: dict[str, Event] = {}

    def note(event: Event) -> None:
        if event.get("event") == "run_finished" and not event.get("next_attempt") and event.get("run_id") in names:
            ends[str(event["run_id"])] = event
        elif event.get("event") == "run_requested" and event.get("parent"):
            # Beside what its parent has at work it needs a worker of its own.
            dispatcher.pool.size = min(max_parallel, dispatcher.pool.size + 1)

    try:
        waiting = _admit(dispatcher.store, requests, named)
        names = {request["run_id"] for request in waiting}
        dispatcher.store.follow(note)
        dispatcher.take(waiting)
        dispatcher.run_until(lambda: len(ends) == len(waiting) and not dispatcher.has_open_runs())
    finally:
        dispatcher.close()
    # Each end is told once: a second request for the same run was refused.
    return [_outcome(request, ends.pop(request["run_id"], None)) for request in requests]


def _take_all(run_queue: RunQueueLike) -> Iterable[Any]:
    # An mp.Queue counts an item before its feeder thread has written it: wait for what was counted.
    while run_queue.qsize() > 0:
        try:
            yield run_queue.get(timeout=_ARRIVAL_S)
        except queue.Empty:
            return


def _complete(item: Any) -> RunRequest:
    """Return the request with all it needs to be run and recorded. Raises InvalidRequest."""
    if not isinstance(item, dict) or not isinstance(item.get("dag"), str) or not item["dag"]:
        raise InvalidRequest(item, "it names no `dag`; give the path of a DAG file, such as dags/report.yaml")
    request: RunRequest = {"attempt": 1, **item}
    if type(request["attempt"]) is not int or request["attempt"] < 1:
        raise InvalidRequest(request, "`attempt` is a whole number from 1")
    fire = _moment(request) if request.get("minute") else None
    if fire is not None:
        request["minute"] = iso(fire)
    if not request.get("run_id"):
        name = str(request.get("schedule_id") or "")
        made_up = RunInfo.manual(name or "run", datetime.now(UTC)).run_id
        request["run_id"] = run_id_for(name, fire) if fire is not None and name else made_up
    if not is_run_id(request["run_id"]):
        raise InvalidRequest(request, f"`run_id` {request['run_id']!r:.200} cannot be used; {RUN_ID_RULE}")
    if wrong := wrong_in(request):
        raise InvalidRequest(request, wrong)
    return request


def _moment(request: RunRequest) -> datetime:
    try:
        moment = datetime.fromisoformat(request["minute"])
    except (TypeError, ValueError):
        raise InvalidRequest(request, "`minute` is an ISO 8601 time, such as 2026-11-23T09:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _admit(store: StateStore, requests: list[RunRequest], named: set[str]) -> list[RunRequest]:
    """Record the requests that the log has never had; return those that wait to run, as the log has them.

    `named` are the run ids that came with their requests, which may be old ones.
    """
    names = {request["run_id"] for request in requests}
    seen: set[str] = set()
    store.follow(lambda event: seen.update(names & {str(event.get("run_id"))}))
    store.refresh()
    if any(_has_own_name(request) for request in requests if request["run_id"] in named - seen):
        # A schedule's minutes are remembered; a name that somebody made up is only where it was written.
        seen |= names & {str(event.get("run_id")) for event in read_backward(store.log.path) if event}

    def unknown(history: History) -> list[Event]:
        fresh = {request["run_id"]: request for request in requests if request["run_id"] not in seen}
        return [
            {**request, "event": "schedule_enqueued"} for request in fresh.values() if not _is_judged(history, request)
        ]

    store.commit(unknown)
    runs = store.history.runs
    return [runs[run_id].next_request() for run_id in dict.fromkeys(r["run_id"] for r in requests) if run_id in runs]


def _has_own_name(request: RunRequest) -> bool:
    return "seq" not in request and not (request.get("schedule_id") and request.get("minute"))


def _is_judged(history: History, request: RunRequest) -> bool:
    schedule_id, minute = request.get("schedule_id"), request.get("minute")
    return bool(schedule_id and minute) and history.is_judged(str(schedule_id), datetime.fromisoformat(str(minute)))


def _outcome(request: RunRequest, end: Event | None) -> dict[str, Any]:
    facts = end or {
        "status": "refused",
        "reason": "the log has it already: it was run, or its minute was judged",
        "attempt": request.get("attempt"),
    }
    return {
        "run_id": request["run_id"],
        "schedule_id": request.get("schedule_id"),
        "minute": request.get("minute"),
        "attempt": facts.get("attempt"),
        "status": facts["status"],
        "reason": facts.get("reason"),
        "duration_s": facts.get("duration_s"),
    }
