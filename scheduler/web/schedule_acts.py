"""What an operator asks of a schedule on the dashboard, recorded as the command line records it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec import UnsetType
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from scheduler.backfill_plan import NoSlots, backfill_events, backfill_id, free_slots, slots_between, succeeded
from scheduler.control import pause, request_schedule, resume, wake_service
from scheduler.durations import read_durations
from scheduler.history import History
from scheduler.moments import InvalidMoment, InvalidUntil, read_day, read_moment, read_until
from scheduler.pauses import Scope
from scheduler.schedule_model import Schedule
from scheduler.state_store import StateStore
from scheduler.text import counted, span
from workers.dag import Dag
from workers.errors import InvalidFile, TickpoolError, did_you_mean
from workers.events import Event, iso
from workers.given_params import InvalidParam, checked_params
from workers.settings import Settings

from .answers import Done, Plan
from .desk import Desk, by_of, desk_of
from .endpoints import Nothing
from .problems import Problem
from .queries import BackfillBody, PauseBody, TriggerBody
from .recording import record

__all__ = ["do_backfill", "do_pause", "do_resume", "do_trigger"]


async def do_trigger(request: Request, body: TriggerBody) -> Done:
    """Ask for a run now, or at a time, with params."""
    desk, by = desk_of(request), by_of(request)
    schedule = await _schedule(request)
    at = _read(read_moment, "at", body.at)
    dag = await run_in_threadpool(desk.book.dag_of, schedule)
    if not isinstance(dag, Dag):
        told = dag.faults[0] if dag.faults else f"its DAG {schedule.dag} is not there"
        raise Problem(409, "Its DAG cannot be run", str(told))
    texts = [f"{name}={text}" for name, text in body.texts.items()]
    try:
        params = checked_params(dag, schedule.dag, texts, {**schedule.params, **body.params})
    except InvalidParam as error:
        raise Problem(400, "This param cannot be used", f"{error.args[0]}: {error.args[1]}") from None
    except InvalidFile as error:
        raise Problem(400, "These params cannot be used", error.faults[0].message) from None
    asked = request_schedule(schedule, params, desk.now(), at, by)
    events, is_served = await _recorded(desk, lambda _: [asked])
    run_id = str(events[0]["run_id"])
    await desk.feed.until_seen(run_id)
    note = "" if is_served else "; no service runs, so it waits for one"
    return Done(f"Requested {run_id}{note}", by, run_id=run_id, location=f"/runs/{run_id}")


async def do_pause(request: Request, body: PauseBody) -> Done:
    """Pause a schedule, until a moment or for a duration, with a reason."""
    desk, by = desk_of(request), by_of(request)
    name, now = _name(request), desk.now()
    await _demand(request)
    until = _read(lambda option, text: read_until(option, text, now), "until", body.until)
    if until is not None and until <= now:
        raise Problem(409, "This is no time to pause until", f"`until` {iso(until)} has passed")
    await _recorded(desk, lambda _: [pause(("schedule", name), until, body.reason.strip(), by)])
    return Done(f"Paused {name}" + (f" until {iso(until)}" if until else ""), by)


async def do_resume(request: Request, _body: Nothing) -> Done:
    """Resume a schedule that is paused for itself."""
    desk, by, name = desk_of(request), by_of(request), _name(request)
    await _demand(request)
    now, scope = desk.now(), ("schedule", name)

    def decide(history: History) -> list[Event]:
        held = dict(history.pauses.in_force(now))
        if scope in held:
            return [resume(scope, by)]
        wider = _wider(history, name, held)
        told = f"{wider}; `tickpool resume` ends that" if wider else f"schedule `{name}` is not paused"
        raise Problem(409, "It is not paused by itself", told)

    await _recorded(desk, decide)
    wider = _wider(desk.feed.history, name, dict(desk.feed.history.pauses.in_force(now)))
    return Done(f"Resumed {name}" + (f"; held all the same: {wider}" if wider else ""), by)


async def do_backfill(request: Request, body: BackfillBody) -> Done | Plan:
    """Run the fire times from a day or moment up to another; with `dry_run` say what that comes to."""
    desk, by = desk_of(request), by_of(request)
    schedule, now, most = await _schedule(request), desk.now(), body.max_parallel
    first = _read(lambda option, text: read_day(option, text, schedule.zone), "from", body.from_)
    last = _read(lambda option, text: read_day(option, text, schedule.zone), "until", body.until)
    wanted = await _wanted(desk, schedule, first or now, min(now, last) if last else now, body)
    if body.dry_run:
        slots = free_slots(desk.feed.history, schedule.id, wanted)
        return await run_in_threadpool(_plan, desk.feed.settings, schedule.id, slots, most)
    name = backfill_id(schedule.id, now)
    events, is_served = await _recorded(
        desk, lambda history: backfill_events(history, name, schedule, wanted, most, by)
    )
    if not events:
        raise Problem(409, "Nothing to backfill", "another backfill is at each of these fire times already")
    total = int(events[0]["total"])
    note = "" if is_served else "; no service runs, so it waits for one"
    return Done(f"Backfill of {counted(total, 'run')} begins{note}", by, backfill_id=name, count=total)


async def _wanted(desk: Desk, schedule: Schedule, first: datetime, last: datetime, body: BackfillBody) -> list[int]:
    def slots() -> list[int]:
        found = slots_between(schedule, first, last)
        done = succeeded(desk.feed.settings, schedule.id, found) if body.only_missing else set()
        left = [slot for slot in found if slot not in done]
        return left[::-1] if body.reverse else left

    try:
        wanted = await run_in_threadpool(slots)
    except NoSlots as error:
        raise Problem(409, "Nothing to backfill", str(error)) from None
    if not wanted:
        raise Problem(409, "Nothing to backfill", "a run of each of these fire times has succeeded already")
    return wanted


def _plan(settings: Settings, schedule_id: str, slots: Sequence[int], most: int) -> Plan:
    known = read_durations(Path(settings.state_path)).get(schedule_id)
    takes_s = None if known is None or not slots else known.p50_s * len(slots) / most
    ends = [iso(datetime.fromtimestamp(slot, UTC)) for slot in (*slots[:1], *slots[-1:])]
    count = len(slots)
    about = "" if takes_s is None else f", about {span(takes_s)} with {most} at a time"
    message = f"{counted(count, 'run')} of {schedule_id}" + (f", {ends[0]} to {ends[1]}{about}" if slots else "")
    return Plan(
        schedule_id, count, ends[0] if ends else None, ends[1] if ends else None, takes_s, message,
        f"{message}.\n\nRun them?" if slots else None,
    )  # fmt: skip


async def _recorded(desk: Desk, decide: Callable[[History], Sequence[Event]]) -> tuple[list[Event], bool]:
    """Record what `decide` returns under the lock; say whether there is a service to see it. Raises Problem."""

    def act() -> tuple[list[Event], bool]:
        store = StateStore(desk.feed.settings.state_log())
        try:
            store.refresh()  # most of it without the lock
            return record(store, decide, wake_service)
        finally:
            store.close()

    try:
        return await run_in_threadpool(act)
    except NoSlots as error:
        raise Problem(409, "Nothing to backfill", str(error)) from None
    except TickpoolError as error:
        raise Problem(503, "The log takes nothing", str(error)) from None


async def _schedule(request: Request) -> Schedule:
    """Return the schedule of the path as its file says it now. Raises Problem."""
    desk, name = desk_of(request), _name(request)
    book = desk.book
    configuration = await book.fresh()
    found = book.schedule(name)
    if found is not None:
        return found
    if configuration is None:
        raise Problem(409, "The schedules cannot be read", book.problem)
    faults = [fault for fault in configuration.faults if f"`{name}`" in fault.message]
    if not faults and name in desk.feed.history.schedules:
        # One fault in a file leaves out all of its schedules, which go on as they were.
        faults = list(configuration.faults)
    if faults:
        raise Problem(409, "Its file has a fault", str(faults[0]))
    raise Problem(404, "No such schedule", _unknown(name, book.names(), str(book.directory)))


async def _demand(request: Request) -> None:
    """Raise Problem for a schedule that neither the log nor the files know."""
    desk, name = desk_of(request), _name(request)
    state = desk.feed.history.schedules.get(name)
    if state is None or not state.spec:
        await _schedule(request)


def _unknown(name: str, names: Sequence[str], directory: str) -> str:
    return f"no schedule `{name[:128]}` in {directory}{did_you_mean(name, names)}"


def _wider(history: History, name: str, held: Mapping[Scope, object]) -> str:
    """Say by what a schedule is held, other than by itself."""
    state = history.schedules.get(name)
    tenant = str(state.spec.get("tenant") or "default") if state is not None else ""
    if ("all", "") in held:
        return "all schedules are paused"
    return f"tenant {tenant} is paused" if ("tenant", tenant) in held else ""


def _read(read: Callable[[str, str], datetime], option: str, text: str | UnsetType) -> datetime | None:
    if isinstance(text, UnsetType):
        return None
    try:
        return read(option, text.strip())
    except (InvalidMoment, InvalidUntil) as error:
        raise Problem(400, "This is no moment", str(error)) from None


def _name(request: Request) -> str:
    return str(request.path_params["schedule_id"])
