"""Status: what an operator needs to see at a glance, folded from the log and looked up in the process table.

It reads the log and /proc only, so it tells the truth when the service is down, and never waits for it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal

import msgspec

from workers.errors import TickpoolError
from workers.events import Event, iso, text_or_none, time_of
from workers.run_events import is_final
from workers.segments import LogReader, read_backward
from workers.settings import Settings

from .history import History, Run
from .limits import AtWork, Tenant, is_by_hand, place_of
from .service_processes import NoService, Service, WorkerFacts, age_s, processes
from .text import counted

__all__ = [
    "EXIT_CODES",
    "Approval",
    "Drain",
    "Paused",
    "ServiceFacts",
    "Status",
    "approvals_of",
    "drain_of",
    "gather",
    "health_of",
    "paused_of",
    "problems_of",
]

Health = Literal["well", "degraded", "down"]
EXIT_CODES: dict[Health, int] = {"well": 0, "degraded": 1, "down": 2}
_SHOWN = 10


class Approval(msgspec.Struct):
    """What a run asks and nobody has answered; `default` is the answer once `until` has come."""

    run_id: str
    task_id: str
    asked_at: str | None
    message: str | None
    until: str | None
    default: str | None

    @property
    def asked_s(self) -> float | None:
        """When it was asked, in seconds since the epoch."""
        return time_of(self.asked_at)

    @property
    def until_s(self) -> float | None:
        """Until when it may be answered, in seconds since the epoch."""
        return time_of(self.until)


class Drain(msgspec.Struct):
    """That nothing starts, and who has said so."""

    since: str | None
    by: str | None
    reason: str | None


class ServiceFacts(msgspec.Struct):
    """How the service is: `problems` is a sentence each, why it is not well."""

    health: Health
    problems: list[str]
    supervisor: Service | NoService
    workers: Sequence[WorkerFacts]
    approvals: list[Approval]
    drain: Drain | None


class QueuedRun(msgspec.Struct):
    """A run that waits for a worker; `retry_at` is the end of its retry's delay."""

    run_id: str
    attempt: int
    retry_at: str | None


class Queue(msgspec.Struct):
    """The runs that wait for a worker: how many, how long the oldest has, and the first of them."""

    depth: int
    oldest_wait_s: float | None
    runs: list[QueuedRun]


class Wait(msgspec.Struct):
    """What a task of a parked run waits for: `approval`, `time`, or the `run` of a `run` or a `dag`."""

    task_id: str | None
    kind: str | None
    run: str | None


class ParkedRun(msgspec.Struct):
    """A run that waits without a worker; `until` is when time brings it back."""

    run_id: str
    attempt: int
    until: str | None
    waits: list[Wait]


class PoolUse(msgspec.Struct):
    """A pool, and how many of its slots are taken."""

    pool: str
    slots: int
    used: int


class TenantUse(msgspec.Struct):
    """A tenant that limits.yaml names, and how many of its runs are at work."""

    tenant: str
    max_parallel: int | None
    weight: int
    used: int


class Paused(msgspec.Struct):
    """A pause that is in force: of a schedule, of a tenant, or, where both are None, of all."""

    schedule_id: str | None
    tenant: str | None
    since: str
    until: str | None
    by: str | None
    reason: str | None

    @property
    def until_s(self) -> float | None:
        """Until when it is in force, in seconds since the epoch."""
        return time_of(self.until)


class NextFire(msgspec.Struct):
    """A fire time to come."""

    schedule_id: str
    minute: str
    in_s: float


class LogSize(msgspec.Struct):
    """The state log, and the bytes of its newest segment."""

    path: str
    bytes: int


class Status(ServiceFacts):
    """What `status` tells; docs/reference.md says what each of it is. `last_runs` are `run_finished` events."""

    queue: Queue
    parked: list[ParkedRun]
    pools: list[PoolUse]
    tenants: list[TenantUse]
    paused: list[Paused]
    next: list[NextFire]
    last_runs: list[Event]
    corrupt_lines: int
    log: LogSize


def gather(settings: Settings, now: datetime, *, limit: int = _SHOWN) -> Status:
    """Return the state of the service, with so many of each list that may be long."""
    from pathlib import Path

    path = Path(settings.state_path)
    reader = LogReader(path)
    history = History(reader.read())
    reader.close()
    supervisor, workers = processes(history, now)
    problems = list(problems_of(history, supervisor, workers, reader.corrupt, str(path)))
    at_work = _at_work(history)
    return Status(
        health=health_of(supervisor, problems),
        problems=problems,
        supervisor=supervisor,
        workers=workers,
        approvals=[each for run in history.runs.values() for each in approvals_of(run, now)],
        drain=drain_of(history),
        queue=_queue(history, now, limit),
        parked=list(_parked(history)),
        pools=[PoolUse(name, slots, len(at_work.of_pool(name))) for name, slots in history.limits.pools.items()],
        tenants=[_tenant(name, tenant, at_work) for name, tenant in history.limits.tenants.items()],
        paused=list(paused_of(history, now)),
        next=list(_next_fires(history, now, limit)),
        last_runs=list(islice(filter(is_final, read_backward(path)), limit)),
        corrupt_lines=reader.corrupt,
        log=LogSize(str(path), path.stat().st_size if path.exists() else 0),
    )


def health_of(supervisor: Service | NoService, problems: Sequence[str]) -> Health:
    """Say in a word how the service is."""
    if isinstance(supervisor, NoService):
        return "down"
    return "degraded" if problems else "well"


def _queue(history: History, now: datetime, limit: int) -> Queue:
    waiting = [run for run in history.runs.values() if run.status == "queued"]
    ages = [age_s(run.request.get("timestamp"), now) for run in waiting]
    waits = [age for age in ages if age is not None]
    shown = [QueuedRun(run.run_id, run.attempt, run.retry_at) for run in waiting[:limit]]
    return Queue(len(waiting), max(waits, default=None), shown)


def _parked(history: History) -> Iterator[ParkedRun]:
    """Yield the parked runs, and what each of their tasks waits for."""
    for run in history.runs.values():
        if run.status == "parked" and run.parked is not None:
            listed = run.parked.get("waits")
            waits = [_wait(each) for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
            yield ParkedRun(run.run_id, run.attempt, text_or_none(run.parked.get("until")), waits)


def _wait(row: dict[str, Any]) -> Wait:
    return Wait(*(text_or_none(row.get(name)) for name in Wait.__struct_fields__))


def approvals_of(run: Run, now: datetime) -> Iterator[Approval]:
    """Yield the approvals that a run asks for and that somebody may still give."""
    for task_id, asked in run.asks(now).items():
        facts = (text_or_none(asked.get(name)) for name in ("timestamp", "message", "until", "default"))
        yield Approval(run.run_id, task_id, *facts)


def _tenant(name: str, tenant: Tenant, at_work: AtWork) -> TenantUse:
    return TenantUse(name, tenant.max_parallel, tenant.weight, len(at_work.of_tenant(name)))


def _at_work(history: History) -> AtWork:
    at_work = AtWork()
    for run in history.runs.values():
        if run.start is not None and not is_by_hand(run.request, run.start):
            at_work.add(run.run_id, *place_of(run.request))
    return at_work


def drain_of(history: History) -> Drain | None:
    """Return the drain that is in force."""
    event = history.drain
    if event is None:
        return None
    return Drain(*(text_or_none(event.get(name)) for name in ("timestamp", "by", "reason")))


def paused_of(history: History, now: datetime) -> Iterator[Paused]:
    """Yield the pauses that are in force."""
    for (kind, name), pause in history.pauses.in_force(now):
        yield Paused(
            schedule_id=name if kind == "schedule" else None,
            tenant=name if kind == "tenant" else None,
            since=iso(datetime.fromtimestamp(pause.since, UTC)),
            until=None if pause.until is None else iso(datetime.fromtimestamp(pause.until, UTC)),
            by=pause.by or None,
            reason=pause.reason or None,
        )


def _next_fires(history: History, now: datetime, limit: int) -> Iterator[NextFire]:
    """Yield the next fire times of the schedules in force, soonest first."""
    from .schedule_model import schedule_from_spec

    def fires() -> Iterator[tuple[datetime, str]]:
        for name, state in history.schedules.items():
            if not state.spec.get("enabled"):
                continue
            tenant = str(state.spec.get("tenant") or "default")
            # A spec that a newer version wrote may say what this one cannot read.
            with suppress(TickpoolError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError):
                schedule = schedule_from_spec(name, state.spec, history.calendars)
                fire = schedule.fires.next(now.astimezone(schedule.zone))
                # What is paused without an end has none to come.
                if fire is not None and not history.pauses.is_paused(name, tenant, fire, fire):
                    yield fire.astimezone(UTC), name

    for fire, name in heapq.nsmallest(limit, fires()):
        yield NextFire(name, iso(fire), round((fire - now).total_seconds(), 1))


def problems_of(
    history: History,
    supervisor: Service | NoService,
    workers: Sequence[WorkerFacts],
    corrupt: int,
    log: str,
    *,
    most_faults: int | None = None,
) -> Iterator[str]:
    """Yield why the service is not well, a sentence each; of the configuration's faults at most so many."""
    if isinstance(supervisor, NoService):
        yield f"the service is down: {supervisor.reason}"
    elif (size := sum(bool(worker.name) for worker in workers)) < (supervisor.max_parallel or 0):
        yield f"{size} of {counted(supervisor.max_parallel or 0, 'worker')} there"
    if history.drain is not None:
        yield f"nothing starts: {history.drain.get('by')} has drained it (`tickpool drain --off` ends that)"
    for fault in history.faults[:most_faults]:
        place = f"{fault.get('file')}:{fault.get('line')}:{fault.get('col')}"
        yield f"configuration fault at {place}: {fault.get('reason')}"
    for worker in workers:
        if worker.state == "gone":
            yield f"run {worker.run_id} is open but its process {worker.pid} is gone"
    if corrupt:
        yield f"{counted(corrupt, 'corrupt line')} in {log}"
